#pragma once
// How runs look from outside: the rows and events that submitters get, as messages and JSON. Nothing here is derived
// from a single hospital's data: sizes, states, reasons, and what the policies published.

#include <optional>
#include <string>

#include "attest/decision.hpp"
#include "coordinator/store.hpp"
#include "protocols/messages/messages.pb.h"

namespace cloister::coordinator {

namespace messages = protocols::messages;

std::string settings_json(const attest::Settings& settings);

messages::RunRow row_of(const Run& run, std::size_t receipts);
/// Everything else about a run: instance, receipts, results, events.
std::string details_json(const Run& run, const std::vector<Receipt>& receipts, const std::vector<Published>& results,
                         const std::vector<Event>& events);

// Events: objects with "event" and what belongs to it; `stamped` adds run, number and time for the wire.
std::string submitted_event(const Run& run);
std::string launching_event();
std::string instance_event(const std::string& instance, const std::string& state);  ///< as the launcher says
std::string waiting_event(const std::string& reason, std::chrono::milliseconds again);
std::string started_event(View record, bool simulated);
std::string attached_event(const std::string& why);
std::string status_event(const messages::RunStatus& status);
std::string receipt_event(const std::string& receipt_json, const base::Sha256& digest, std::size_t acknowledgements);
std::string result_event(const Published& result, std::optional<double> auc);
std::string cancel_event(const std::string& by, const std::string& reason);
std::string ended_event(RunState state, const std::string& reason);
std::string stamped(const std::string& event, std::uint64_t run, std::uint64_t number, Time at);

}  // namespace cloister::coordinator

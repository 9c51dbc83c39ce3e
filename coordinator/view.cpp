#include "coordinator/view.hpp"

#include <cmath>
#include <nlohmann/json.hpp>

namespace cloister::coordinator {

namespace {

using nlohmann::json;
using nlohmann::ordered_json;

/// Text from other processes may hold any bytes: what is not UTF-8 is replaced, never refused.
std::string dump(const ordered_json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string time_or_empty(Time time) {
  return time == Time{} ? std::string() : base::text(time);
}

ordered_json parsed(const std::string& text) {
  ordered_json value = ordered_json::parse(text, nullptr, false);
  return value.is_discarded() ? ordered_json(text) : value;
}

}  // namespace

std::string settings_json(const attest::Settings& settings) {
  ordered_json out = ordered_json::object();
  for (const auto& [name, value] : settings) {
    const bool whole = value == std::floor(value) && std::abs(value) < 1e15;
    out[name] = whole ? ordered_json(static_cast<std::int64_t>(value)) : ordered_json(value);
  }
  return dump(out);
}

messages::RunRow row_of(const Run& run, std::size_t receipts) {
  messages::RunRow row;
  row.set_run(run.id.run);
  row.set_study(run.study);
  row.set_submitter(run.submitter);
  row.set_state(std::string(name(run.state)));
  row.set_reason(run.reason);
  row.set_round(run.round);
  row.set_rounds(run.rounds);
  row.set_submitted_at(time_or_empty(run.submitted_at));
  row.set_ended_at(time_or_empty(run.ended_at));
  row.set_note(run.note);
  row.set_settings_json(run.settings_json);
  row.set_simulated(run.simulated);
  row.set_charter(run.id.charter.data(), run.id.charter.size());
  row.set_receipts(static_cast<std::uint32_t>(receipts));
  return row;
}

std::string details_json(const Run& run, const std::vector<Receipt>& receipts, const std::vector<Published>& results,
                         const std::vector<Event>& events) {
  ordered_json out;
  out["charter"] = base::digest_text(run.id.charter);
  out["started_at"] = time_or_empty(run.started_at);
  out["record"] = run.record.empty() ? "" : base::digest_text(base::sha256(run.record));
  out["evidence"] = run.evidence.empty() ? "" : base::digest_text(base::sha256(run.evidence));
  out["receipts"] = ordered_json::array();
  for (const Receipt& receipt : receipts)
    out["receipts"].push_back({{"round", receipt.round}, {"acknowledgements", receipt.acknowledgements.size()}});
  out["results"] = ordered_json::array();
  for (const Published& result : results)
    out["results"].push_back(
        {{"round", result.round}, {"kind", result.kind}, {"digest", base::digest_text(result.digest)}});
  out["events"] = ordered_json::array();
  for (const Event& event : events)
    out["events"].push_back(parsed(stamped(event.json, run.id.run, event.number, event.at)));
  return dump(out);
}

std::string submitted_event(const Run& run) {
  return dump({{"event", "submitted"},
               {"submitter", run.submitter},
               {"study", run.study},
               {"note", run.note},
               {"settings", parsed(run.settings_json)}});
}

std::string launching_event() {
  return dump({{"event", "launching"}});
}

std::string instance_event(const std::string& instance, const std::string& state) {
  return dump({{"event", "instance"}, {"instance", instance}, {"state", state}});
}

std::string waiting_event(const std::string& reason, std::chrono::milliseconds again) {
  return dump({{"event", "waiting"}, {"reason", reason}, {"again_in", base::text(again)}});
}

std::string started_event(View record, bool simulated) {
  return dump({{"event", "started"}, {"record", base::digest_text(base::sha256(record))}, {"simulated", simulated}});
}

std::string attached_event(const std::string& why) {
  return dump({{"event", "attached_again"}, {"reason", why}});
}

std::string status_event(const messages::RunStatus& status) {
  ordered_json members = ordered_json::array();
  for (const auto& member : status.members())
    members.push_back({{"owner", member.owner()},
                       {"state", member.state()},
                       {"reason", member.reason()},
                       {"bytes_in", member.bytes_in()},
                       {"bytes_out", member.bytes_out()},
                       {"bytes_repeated", member.bytes_repeated()}});
  ordered_json counts = ordered_json::object();
  for (const auto& count : status.counts()) counts[count.state()] = count.count();
  return dump({{"event", "status"},
               {"round", status.round()},
               {"task", status.task()},
               {"state", status.state()},
               {"reason", status.reason()},
               {"members", std::move(members)},
               {"counts", std::move(counts)},
               {"bytes_in", status.bytes_in()},
               {"bytes_out", status.bytes_out()},
               {"bytes_repeated", status.bytes_repeated()},
               {"ms", status.milliseconds()}});
}

std::string receipt_event(const std::string& receipt_json, const base::Sha256& digest, std::size_t acknowledgements) {
  return dump({{"event", "committed"},
               {"digest", base::digest_text(digest)},
               {"acknowledgements", acknowledgements},
               {"receipt", parsed(receipt_json)}});
}

std::string result_event(const Published& result, std::optional<double> auc) {
  ordered_json out = {{"event", "published"},
                      {"kind", result.kind},
                      {"round", result.round},
                      {"digest", base::digest_text(result.digest)}};
  if (result.kind == "evaluate") out["auc"] = auc ? ordered_json(*auc) : ordered_json();  // null: one class only
  return dump(out);
}

std::string cancel_event(const std::string& by, const std::string& reason) {
  return dump({{"event", "cancel_asked"}, {"by", by}, {"reason", reason}});
}

std::string ended_event(RunState state, const std::string& reason) {
  return dump({{"event", "ended"}, {"state", name(state)}, {"reason", reason}});
}

std::string stamped(const std::string& event, std::uint64_t run, std::uint64_t number, Time at) {
  ordered_json out = {{"run", run}, {"at", base::text(at)}};
  if (number != 0) out["number"] = number;
  const ordered_json body = parsed(event);
  if (body.is_object()) out.update(body);
  return dump(out);
}

}  // namespace cloister::coordinator

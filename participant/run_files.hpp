#pragma once
// Where a run's machine goes on after a restart: made from the ledger, which has every durable step of it. And what the
// policies published to the cohort, in files beside the ledger:
//
//   results/<charter>-run-<n>-round-<r>.statistics       canonical encoding; durable when save_result returns
//   updates/…                                            store.hpp

#include <optional>
#include <string>

#include "participant/ledger.hpp"
#include "protocols/round/participant.hpp"

namespace cloister::participant {

class RunFiles {
 public:
  static Result<RunFiles> open(const std::string& folder);

  Result<void> save_result(const RoundId& id, const std::string& kind, View value) const;

 private:
  explicit RunFiles(std::string folder) : folder_(std::move(folder)) {}
  std::string folder_;
};

/// The participant's record as the ledger has it; nothing for a run that the ledger does not know.
std::optional<protocols::round::ParticipantRecord> record_of(const LedgerState& ledger, const RunId& id);

/// The run under `charter` that was begun and has not ended; the last one if there are several.
std::optional<std::uint64_t> unfinished_run(const LedgerState& ledger, const base::Sha256& charter);

}  // namespace cloister::participant

#pragma once
// What a node keeps of its runs besides the ledger, in the ledger's folder:
//
//   runs/<charter>-run-<n>.record                        where the round's machine goes on after a restart
//   receipts/<charter>-run-<n>-round-<r>.receipt         committed: field(receipt) || u32 count ||
//   field(acknowledgement)… results/<charter>-run-<n>-round-<r>.statistics       what the policies published to the
//   cohort (canonical encoding) updates/…                                            store.hpp
//
// Every write is durable on return.

#include <optional>
#include <string>

#include "participant/ledger.hpp"
#include "protocols/round/participant.hpp"

namespace cloister::participant {

class RunFiles {
 public:
  static Result<RunFiles> open(const std::string& folder);

  Result<void> save(const base::Sha256& charter, const protocols::round::ParticipantRecord& record) const;
  /// Nothing when there is none. Errors: it is there and cannot be read.
  Result<std::optional<protocols::round::ParticipantRecord>> load(const RunId& id) const;
  Result<void> save_receipt(const RoundId& id, const protocols::round::CommittedReceipt& committed) const;
  Result<void> save_result(const RoundId& id, const std::string& kind, View value) const;

 private:
  explicit RunFiles(std::string folder) : folder_(std::move(folder)) {}
  std::string folder_;
};

/// The run under `charter` that was begun and has not ended; the last one if there are several.
std::optional<std::uint64_t> unfinished_run(const LedgerState& ledger, const base::Sha256& charter);

}  // namespace cloister::participant

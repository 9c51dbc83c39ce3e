#include "participant/run_files.hpp"

#include <filesystem>
#include <fmt/format.h>

#include "base/file.hpp"

namespace cloister::participant {
namespace {

namespace fs = std::filesystem;
using protocols::round::ParticipantRecord;

std::string round_name(const RoundId& id) {
  return fmt::format("{}-run-{}-round-{}", base::hex(View(id.charter).first(8)), id.run, id.round);
}

}  // namespace

Result<RunFiles> RunFiles::open(const std::string& folder) {
  if (auto made = base::make_folder((fs::path(folder) / "results").string(), 0700); !made) return made.error();
  return RunFiles(folder);
}

Result<void> RunFiles::save_result(const RoundId& id, const std::string& kind, View value) const {
  return base::write_file((fs::path(folder_) / "results" / (round_name(id) + "." + kind)).string(), value, 0600);
}

std::optional<ParticipantRecord> record_of(const LedgerState& ledger, const RunId& id) {
  const LedgerRun* run = ledger.run(id);
  if (run == nullptr) return std::nullopt;
  ParticipantRecord out;
  out.run = id.run;
  out.receipt_key = run->receipt_key;
  if (const auto* charged = ledger.last(id, [](const LedgerRound& r) { return r.charge.has_value(); })) {
    const Charge& charge = *charged->second.charge;
    out.order = charge.order;
    out.answered = charged->first.round;
    out.offer = charge.offer;
    out.withdrawn = charge.withdrawn;
  }
  if (const auto* stored = ledger.last(id, [](const LedgerRound& r) { return r.update.has_value(); })) {
    const StoredUpdate& update = *stored->second.update;
    out.stored = stored->first.round;
    out.update = update.digest;
    out.update_length = update.length;
    out.weight = update.weight;
  }
  std::uint32_t known = 0;
  if (const auto* committed = ledger.last(id, [](const LedgerRound& r) { return r.committed; })) {
    known = committed->first.round;
    if (const auto at = run->receipts.find(known); at != run->receipts.end()) out.committed = at->second;
  }
  for (auto it = ledger.rounds.lower_bound({id.charter, id.run, known});
       it != ledger.rounds.end() && it->first.of() == id; ++it)
    if (it->second.receipt) out.receipts[it->first.round] = *it->second.receipt;
  return out;
}

std::optional<std::uint64_t> unfinished_run(const LedgerState& ledger, const base::Sha256& charter) {
  std::optional<std::uint64_t> out;
  for (const auto& [id, run] : ledger.runs)
    if (id.charter == charter && run.outcome.empty()) out = id.run;
  return out;
}

}  // namespace cloister::participant

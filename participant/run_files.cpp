#include "participant/run_files.hpp"

#include <filesystem>
#include <fmt/format.h>

#include "base/encoding.hpp"
#include "base/file.hpp"

namespace cloister::participant {
namespace {

namespace fs = std::filesystem;
using protocols::round::ParticipantRecord;

constexpr std::size_t record_cap = 16 << 20;

std::string run_name(const RunId& id) {
  return fmt::format("{}-run-{}", base::hex(View(id.charter).first(8)), id.run);
}
std::string round_name(const RoundId& id) {
  return fmt::format("{}-round-{}", run_name(id.of()), id.round);
}

}  // namespace

Result<RunFiles> RunFiles::open(const std::string& folder) {
  for (const char* part : {"runs", "receipts", "results"})
    if (auto made = base::make_folder((fs::path(folder) / part).string(), 0700); !made) return made.error();
  return RunFiles(folder);
}

Result<void> RunFiles::save(const base::Sha256& charter, const ParticipantRecord& record) const {
  const std::string name = run_name({charter, record.run}) + ".record";
  return base::write_file((fs::path(folder_) / "runs" / name).string(), record.serialize(), 0600);
}

Result<std::optional<ParticipantRecord>> RunFiles::load(const RunId& id) const {
  const std::string path = (fs::path(folder_) / "runs" / (run_name(id) + ".record")).string();
  if (!fs::exists(path)) return std::optional<ParticipantRecord>();
  const Result<Bytes> bytes = base::read_file(path, record_cap);
  if (!bytes) return bytes.error();
  Result<ParticipantRecord> record = ParticipantRecord::parse(*bytes);
  if (!record) return record.error();
  return std::optional<ParticipantRecord>(std::move(*record));
}

Result<void> RunFiles::save_receipt(const RoundId& id, const protocols::round::CommittedReceipt& committed) const {
  base::Writer w;
  w.field(committed.receipt).u32(static_cast<std::uint32_t>(committed.acknowledgements.size()));
  for (const Bytes& a : committed.acknowledgements) w.field(a);
  return base::write_file((fs::path(folder_) / "receipts" / (round_name(id) + ".receipt")).string(), w.bytes(), 0600);
}

Result<void> RunFiles::save_result(const RoundId& id, const std::string& kind, View value) const {
  return base::write_file((fs::path(folder_) / "results" / (round_name(id) + "." + kind)).string(), value, 0600);
}

std::optional<std::uint64_t> unfinished_run(const LedgerState& ledger, const base::Sha256& charter) {
  std::optional<std::uint64_t> out;
  for (const auto& [id, run] : ledger.runs)
    if (id.charter == charter && run.outcome.empty()) out = id.run;
  return out;
}

}  // namespace cloister::participant

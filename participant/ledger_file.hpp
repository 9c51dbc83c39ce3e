#pragma once
// The file under the ledger: records that are only ever appended (docs/formats.md, "Ledger"). One process may write;
// others may read while it does. Not thread-safe.

#include <functional>
#include <span>
#include <string>

#include "base/crypto.hpp"

namespace cloister::participant {

inline constexpr std::size_t ledger_record_cap = 1 << 20;  ///< a signed receipt of a large cohort is some 100 KiB

/// Gets each record's payload, in order; an error stops the reading and becomes the reader's error.
using OnRecord = std::function<Result<void>(View payload)>;

class LedgerFile {
 public:
  /// Opens for appending, or creates, and hands every record to `on_record`. A last record that a crash cut off is
  /// removed and `repaired()` says so. Errors: unavailable (another process holds it, the system's reason); malformed
  /// (anything else than a cut-off end does not check: then nothing is changed, for a ledger that forgets would allow
  /// what was spent already).
  static Result<LedgerFile> open(const std::string& path, const OnRecord& on_record);
  /// Reads what is there without a lock; a record that is being written right now is left out.
  static Result<void> read(const std::string& path, const OnRecord& on_record);

  LedgerFile(LedgerFile&& other) noexcept;
  LedgerFile& operator=(LedgerFile&& other) noexcept;
  ~LedgerFile();

  enum class Until { power_cut, next_append };
  /// Appends the records, in order, in one write. `power_cut`: on return they and all before them survive a power cut.
  /// `next_append`: they survive the process, and the power cut from the next durable append on. After a failure the
  /// file is as before; when even that cannot be promised, every later append fails too.
  Result<void> append(std::span<const Bytes> payloads, Until durable = Until::power_cut);

  const std::string& path() const { return path_; }
  const std::string& repaired() const { return repaired_; }  ///< what was mended at open, or empty

 private:
  LedgerFile(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
  std::string path_;
  int fd_ = -1;
  std::uint64_t end_ = 0;  ///< where the next record starts
  base::Sha256 last_{};    ///< checksum of the last record
  bool broken_ = false;
  std::string repaired_;
};

}  // namespace cloister::participant

#pragma once
// The file under the ledger: records that are only ever appended, each durable before the call returns
// (docs/formats.md, "Ledger"). One process may write; others may read while it does. Not thread-safe.

#include <functional>
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

  /// On return the record survives a power cut. After a failure the file is as before; when even that cannot be
  /// promised, every later append fails too.
  Result<void> append(View payload);

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

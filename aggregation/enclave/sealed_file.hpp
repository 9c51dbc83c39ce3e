#pragma once
// Bytes that wait outside the enclave's memory: an anonymous file whose blocks are sealed with AES-256-GCM under a key
// that never leaves this process. The host can lose it (the update then counts as dropped), not read, change, swap or
// shorten it.

#include <functional>
#include <optional>

#include "base/bytes.hpp"
#include "base/crypto.hpp"

namespace cloister::enclave {

/// Append, then read from the start. One owner, one thread at a time. The space is freed on destruction.
class SealedFile {
 public:
  /// In the first of /var/tmp, /tmp that takes an unnamed file. Error unavailable names why none did.
  static Result<SealedFile> make();
  SealedFile(SealedFile&& other) noexcept;
  SealedFile& operator=(SealedFile&& other) noexcept;
  SealedFile(const SealedFile&) = delete;
  SealedFile& operator=(const SealedFile&) = delete;
  ~SealedFile();

  /// Seals `bytes` as one block of at most `block_cap`. After an error the file is of no more use.
  Result<void> append(View bytes);
  /// Opens every block in order. Error untrusted: the file is not what was sealed. An error of `each` ends the reading.
  Result<void> read(const std::function<Result<void>(View)>& each) const;

  /// One block, opened.
  Result<Bytes> block(std::size_t index) const;

  std::size_t blocks() const { return ends_.size(); }
  std::uint64_t size() const { return plain_; }  ///< bytes before sealing

  static constexpr std::size_t block_cap = 1 << 20;

 private:
  explicit SealedFile(int fd);
  int fd_ = -1;
  base::Array<32> key_{};
  std::vector<std::uint64_t> ends_;  ///< of each block, in plain bytes
  std::uint64_t plain_ = 0;
};

}  // namespace cloister::enclave

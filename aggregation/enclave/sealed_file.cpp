#include "aggregation/enclave/sealed_file.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/crypto.h>
#include <unistd.h>

#include "base/encoding.hpp"

namespace cloister::enclave {
namespace {

constexpr std::size_t tag_size = 16;

// NIST SP 800-38D section 8.2.1: the invocation field of a deterministic nonce is a counter. A block's index is used
// once, because a file only grows and its key seals nothing else.
Bytes nonce(std::uint64_t block) {
  return base::Writer().u32(0).u64(block).bytes();
}

Error io_error(std::string_view doing) {
  return base::unavailable("sealed file", fmt::format("cannot {}: {}", doing, std::strerror(errno)));
}

}  // namespace

SealedFile::SealedFile(int fd) : fd_(fd), key_(base::random_array<32>()) {}

SealedFile::SealedFile(SealedFile&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), key_(other.key_), ends_(std::move(other.ends_)), plain_(other.plain_) {
  OPENSSL_cleanse(other.key_.data(), other.key_.size());
}

SealedFile& SealedFile::operator=(SealedFile&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(key_, other.key_);
  std::swap(ends_, other.ends_);
  std::swap(plain_, other.plain_);
  return *this;
}

SealedFile::~SealedFile() {
  if (fd_ >= 0) ::close(fd_);
  OPENSSL_cleanse(key_.data(), key_.size());
}

Result<SealedFile> SealedFile::make() {
  Error last = base::unavailable("sealed file", "no folder to try");
  for (const char* folder : {"/var/tmp", "/tmp"}) {
    const int fd = ::open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC | O_EXCL, 0600);
    if (fd >= 0) return SealedFile(fd);
    last = io_error(fmt::format("make an unnamed file in {}", folder));
  }
  return last;
}

Result<void> SealedFile::append(View bytes) {
  if (bytes.size() > block_cap) return base::malformed("sealed file", "a block over its cap");
  const Bytes sealed = base::aes_gcm_seal(key_, nonce(ends_.size()), {}, bytes);
  std::uint64_t at = plain_ + tag_size * ends_.size();
  for (View rest = sealed; !rest.empty();) {
    const ssize_t n = ::pwrite(fd_, rest.data(), rest.size(), static_cast<off_t>(at));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return io_error("write");
    at += static_cast<std::uint64_t>(n);
    rest = rest.subspan(static_cast<std::size_t>(n));
  }
  ends_.push_back(plain_ += bytes.size());
  return {};
}

Result<Bytes> SealedFile::block(std::size_t index) const {
  const std::uint64_t begin = index == 0 ? 0 : ends_[index - 1];
  const std::uint64_t at = begin + tag_size * index;
  Bytes sealed(ends_[index] - begin + tag_size);
  for (std::size_t have = 0; have < sealed.size();) {
    const ssize_t n = ::pread(fd_, sealed.data() + have, sealed.size() - have, static_cast<off_t>(at + have));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return io_error("read");
    if (n == 0) return base::untrusted("sealed file", fmt::format("it ends in block {}; somebody cut it", index));
    have += static_cast<std::size_t>(n);
  }
  return base::aes_gcm_open(key_, nonce(index), {}, sealed, fmt::format("sealed file, block {}", index));
}

Result<void> SealedFile::read(const std::function<Result<void>(View)>& each) const {
  for (std::size_t i = 0; i < ends_.size(); ++i) {
    const auto plain = block(i);
    if (!plain) return plain.error();
    if (auto done = each(*plain); !done) return done.error();
  }
  return {};
}

}  // namespace cloister::enclave

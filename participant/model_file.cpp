#include "participant/model_file.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <unistd.h>

#include "base/encoding.hpp"
#include "base/file.hpp"
#include "base/time.hpp"

namespace cloister::participant {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t block = 256 << 10;
constexpr std::string_view state_version = "cloister model state 1";
constexpr std::size_t state_size = 4 + state_version.size() + 32 + 8 + 8;

}  // namespace

Result<ModelFile> ModelFile::open(const std::string& folder, std::uint64_t capacity) {
  if (auto made = base::make_folder(folder, 0700); !made) return made.error();
  const std::string path = (fs::path(folder) / "current").string();
  ModelFile out(path, ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600),
                ::open((path + ".state").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (out.file_ < 0 || out.state_ < 0)
    return base::unavailable(path, fmt::format("cannot open the model's file: {}", std::strerror(errno)));
  // The room is taken now: a full disk is said at the start and not in the middle of a download.
  int room = ::posix_fallocate(out.file_, 0, static_cast<off_t>(std::max<std::uint64_t>(capacity, 1)));
  if (room == EOPNOTSUPP || room == EINVAL) room = 0;  // this file system gives room only as it is written
  if (room != 0 || ::ftruncate(out.file_, static_cast<off_t>(capacity)) != 0)
    return base::unavailable(path, fmt::format("cannot take {} for the model: {}", base::size_text(capacity),
                                               std::strerror(room != 0 ? room : errno)));
  if (auto taken = out.take_up(); !taken) return taken.error();
  if (out.length_ > capacity) {
    if (auto forgotten = out.want({}, 0); !forgotten) return forgotten.error();
  }
  return out;
}

ModelFile::ModelFile(ModelFile&& o) noexcept
    : path_(std::move(o.path_)),
      file_(std::exchange(o.file_, -1)),
      state_(std::exchange(o.state_, -1)),
      digest_(o.digest_),
      length_(o.length_),
      received_(o.received_),
      hasher_(std::move(o.hasher_)),
      holds_(o.holds_) {}

ModelFile& ModelFile::operator=(ModelFile&& o) noexcept {
  std::swap(path_, o.path_);
  std::swap(file_, o.file_);
  std::swap(state_, o.state_);
  std::swap(digest_, o.digest_);
  std::swap(length_, o.length_);
  std::swap(received_, o.received_);
  std::swap(hasher_, o.hasher_);
  std::swap(holds_, o.holds_);
  return *this;
}

ModelFile::~ModelFile() {
  if (file_ >= 0) ::close(file_);
  if (state_ >= 0) ::close(state_);
}

// What was there is hashed once more: a power cut may have taken pages that the state counts.
Result<void> ModelFile::take_up() {
  Bytes bytes(state_size);
  const ssize_t n = ::pread(state_, bytes.data(), bytes.size(), 0);
  base::Reader r("model state", View(bytes).first(n > 0 ? static_cast<std::size_t>(n) : 0));
  const std::string version = r.string("version", 64);
  const auto digest = r.array<32>("digest");
  const std::uint64_t length = r.u64("length"), received = r.u64("received");
  if (!r.finish() || version != state_version || received > length) return want({}, 0);  // of no use, and no loss
  digest_ = digest;
  length_ = length;
  Bytes piece(block);
  while (received_ < received) {
    const auto wanted = std::min<std::uint64_t>(block, received - received_);
    const ssize_t got = ::pread(file_, piece.data(), wanted, static_cast<off_t>(received_));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return want({}, 0);
    add(View(piece).first(static_cast<std::size_t>(got)));
  }
  return {};
}

void ModelFile::add(View bytes) {
  hasher_->add(bytes);
  received_ += bytes.size();
  if (received_ < length_) return;
  holds_ = std::move(*hasher_).finish() == digest_;
  hasher_.reset();
}

Result<void> ModelFile::note() const {
  const Bytes bytes = base::Writer().field(state_version).raw(digest_).u64(length_).u64(received_).bytes();
  if (::pwrite(state_, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size())) return {};
  return base::unavailable(path_ + ".state", fmt::format("cannot write: {}", std::strerror(errno)));
}

Result<void> ModelFile::want(const base::Sha256& digest, std::uint64_t length) {
  if (digest == digest_ && length == length_) return {};
  digest_ = digest;
  length_ = length;
  return restart();
}

Result<void> ModelFile::restart() {
  received_ = 0;
  holds_ = false;
  hasher_.emplace();
  return note();
}

Result<void> ModelFile::append(View bytes) {
  if (bytes.size() > length_ - received_) std::abort();
  std::uint64_t at = received_;
  for (View rest = bytes; !rest.empty();) {
    const ssize_t n = ::pwrite(file_, rest.data(), rest.size(), static_cast<off_t>(at));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return base::unavailable(path_, fmt::format("cannot write: {}", std::strerror(errno)));
    at += static_cast<std::uint64_t>(n);
    rest = rest.subspan(static_cast<std::size_t>(n));
  }
  add(bytes);
  return note();
}

}  // namespace cloister::participant

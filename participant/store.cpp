#include "participant/store.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.hpp"

namespace cloister::participant {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t block = 64 << 10;  // stays in the cache between copy, digest and write

std::string run_prefix(const RunId& id) {
  return fmt::format("{}-run-{}-", base::hex(View(id.charter).first(8)), id.run);
}

Error io_error(const std::string& path, std::string_view doing) {
  return base::unavailable(path, fmt::format("cannot {}: {}", doing, std::strerror(errno)));
}

Result<base::Sha256> digest_of(const StoredBytes& file, std::uint64_t length) {
  base::Hasher hasher;
  Bytes piece(4 * block);
  for (std::uint64_t at = 0; at < length;) {
    const std::span<std::uint8_t> part(piece.data(), std::min<std::uint64_t>(piece.size(), length - at));
    if (auto read = file.read(at, part); !read) return read.error();
    hasher.add(part);
    at += part.size();
  }
  return std::move(hasher).finish();
}

}  // namespace

StoredBytes::StoredBytes(StoredBytes&& o) noexcept : fd_(std::exchange(o.fd_, -1)), path_(std::move(o.path_)) {}

StoredBytes::~StoredBytes() {
  if (fd_ >= 0) ::close(fd_);
}

Result<void> StoredBytes::read(std::uint64_t offset, std::span<std::uint8_t> into) const {
  while (!into.empty()) {
    const ssize_t n = ::pread(fd_, into.data(), into.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return io_error(path_, "read");
    if (n == 0) return base::unavailable(path_, "the stored update was cut off");
    offset += static_cast<std::uint64_t>(n);
    into = into.subspan(static_cast<std::size_t>(n));
  }
  return {};
}

Result<UpdateStore> UpdateStore::open(const std::string& folder) {
  if (auto made = base::make_folder(folder, 0700); !made) return made.error();
  return UpdateStore(folder);
}

std::string UpdateStore::path(const RoundId& id) const {
  return (fs::path(folder_) / fmt::format("{}round-{}.update", run_prefix(id.of()), id.round)).string();
}

std::string UpdateStore::spare() const {
  return (fs::path(folder_) / "spare").string();
}

// The spare file is an earlier round's: writing over its pages costs a third of writing new ones.
Result<StoredUpdate> UpdateStore::put(const RoundId& id, View update, std::uint64_t weight) {
  checked_.erase(path(id));
  const std::string beside = spare();
  const int fd = ::open(beside.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return io_error(beside, "create");
  const StoredBytes owner(fd, beside);
  if (::ftruncate(fd, static_cast<off_t>(update.size())) != 0) return io_error(beside, "size");
  base::Hasher hasher;
  Bytes piece(std::min(block, update.size()));
  for (std::uint64_t at = 0; at < update.size();) {
    const View part = update.subspan(at, std::min<std::uint64_t>(block, update.size() - at));
    std::memcpy(piece.data(), part.data(), part.size());
    hasher.add(View(piece).first(part.size()));
    for (std::size_t done = 0; done < part.size();) {
      const ssize_t n = ::pwrite(fd, piece.data() + done, part.size() - done, static_cast<off_t>(at + done));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return io_error(beside, "write");
      done += static_cast<std::size_t>(n);
    }
    at += part.size();
  }
  if (::rename(beside.c_str(), path(id).c_str()) != 0) return io_error(path(id), "rename into place");
  const StoredUpdate stored{std::move(hasher).finish(), update.size(), weight};
  checked_[path(id)] = stored.digest;
  return stored;
}

Result<StoredBytes> UpdateStore::get(const RoundId& id, const StoredUpdate& recorded) {
  const std::string file = path(id);
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return io_error(file, "open");
  StoredBytes out(fd, file);
  struct stat info {};
  if (::fstat(fd, &info) != 0) return io_error(file, "look at");
  bool same = static_cast<std::uint64_t>(info.st_size) == recorded.length;
  if (const auto known = checked_.find(file); same && (known == checked_.end() || known->second != recorded.digest)) {
    const auto found = digest_of(out, recorded.length);
    if (!found) return found.error();
    same = *found == recorded.digest;
    if (same) checked_[file] = *found;
  }
  if (!same)
    return base::untrusted(file, fmt::format("wanted the update with {}, found other bytes; it counts as lost",
                                             base::digest_text(recorded.digest)));
  return out;
}

void UpdateStore::remove(const RoundId& id) {
  checked_.erase(path(id));
  std::error_code ignored;
  fs::rename(path(id), spare(), ignored);
}

void UpdateStore::remove_run(const RunId& id) {
  std::error_code ignored;
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(folder_, ignored))
    if (entry.path().filename().string().starts_with(run_prefix(id))) found.push_back(entry.path());
  found.emplace_back(spare());
  for (const auto& file : found) {
    checked_.erase(file.string());
    fs::remove(file, ignored);
  }
}

}  // namespace cloister::participant

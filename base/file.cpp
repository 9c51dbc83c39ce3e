#include "base/file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

namespace cloister::base {
namespace {

Error failed(const std::string& path, std::string_view doing) {
  return unavailable(path, fmt::format("cannot {}: {}", doing, std::strerror(errno)));
}

struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

}  // namespace

Result<Bytes> read_file(const std::string& path, std::size_t cap) {
  Descriptor d{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (d.fd < 0) return failed(path, "open");
  Bytes out;
  std::array<std::uint8_t, 1 << 16> piece;
  for (;;) {
    const ssize_t n = ::read(d.fd, piece.data(), piece.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return failed(path, "read");
    if (n == 0) return out;
    if (out.size() + static_cast<std::size_t>(n) > cap)
      return malformed(path, fmt::format("larger than {} bytes, the most that is read here", cap));
    out.insert(out.end(), piece.begin(), piece.begin() + n);
  }
}

Result<void> write_file(const std::string& path, View bytes, unsigned mode) {
  const std::string beside = fmt::format("{}.{}.new", path, ::getpid());
  {
    Descriptor d{::open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode)};
    if (d.fd < 0) return failed(beside, "create");
    std::size_t at = 0;
    while (at < bytes.size()) {
      const ssize_t n = ::write(d.fd, bytes.data() + at, bytes.size() - at);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) {
        Error e = failed(beside, "write");
        ::unlink(beside.c_str());
        return e;
      }
      at += static_cast<std::size_t>(n);
    }
    if (::fsync(d.fd) != 0) return failed(beside, "fsync");
  }
  if (::rename(beside.c_str(), path.c_str()) != 0) return failed(path, "rename into place");
  const std::string folder = std::filesystem::path(path).parent_path().string();
  Descriptor d{::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (d.fd < 0 || ::fsync(d.fd) != 0) return failed(path, "fsync the folder");
  return {};
}

Result<void> make_folder(const std::string& path, unsigned mode) {
  std::error_code e;
  std::filesystem::create_directories(path, e);
  if (e) return unavailable(path, "cannot make the folder: " + e.message());
  std::filesystem::permissions(path, static_cast<std::filesystem::perms>(mode), e);
  return {};
}

}  // namespace cloister::base

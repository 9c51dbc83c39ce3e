#include "participant/ledger_file.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>
#include <utility>

#include "base/encoding.hpp"
#include "base/file.hpp"

namespace cloister::participant {
namespace {

// file   = magic ‖ records
// record = u32 length ‖ raw check (4) ‖ payload ‖ raw checksum (32)
// check = first 4 bytes of SHA-256(last checksum ‖ u32 length), checksum = SHA-256(last checksum ‖ payload); the first
// record follows SHA-256(magic). The check on the length tells a damaged length from a cut-off end, which look alike
// otherwise.
constexpr std::string_view magic = "cloister ledger 1\n";
constexpr std::size_t head = 8;
constexpr std::size_t tail = 32;
constexpr std::size_t file_cap = std::size_t{1} << 32;

Error failed(const std::string& path, std::string_view doing) {
  return base::unavailable(path, fmt::format("cannot {} the ledger: {}", doing, std::strerror(errno)));
}

base::Sha256 chained(const base::Sha256& last, View bytes) {
  base::Hasher h;
  h.add(last).add(bytes);
  return std::move(h).finish();
}

Array<4> length_check(const base::Sha256& last, std::uint32_t length) {
  return base::array<4>(chained(last, base::Writer().u32(length).bytes()));
}

bool zeros(View bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::uint8_t b) { return b == 0; });
}

/// Appends the record to `out`; gives its checksum.
base::Sha256 frame(Bytes& out, const base::Sha256& last, View payload) {
  const auto length = static_cast<std::uint32_t>(payload.size());
  const base::Sha256 checksum = chained(last, payload);
  const Bytes bytes = base::Writer().u32(length).raw(length_check(last, length)).raw(payload).raw(checksum).bytes();
  out.insert(out.end(), bytes.begin(), bytes.end());
  return checksum;
}

struct Scan {
  std::uint64_t end = 0;  ///< where the whole records end
  base::Sha256 last{};
  std::size_t torn = 0;  ///< bytes of a cut-off record after `end`
};

// Is the record at `at`, whose last bytes do not check, the cut-off end of an append? Then it and all behind it is
// zeros from the beginning of one of its sectors on, which the file system never filled, or its whole checksum is.
bool never_filled(View bytes, std::uint64_t at, std::uint64_t size) {
  constexpr std::uint64_t sector = 512, enough = 8;
  const std::uint64_t end = at + size, last_sector = (end - 1) / sector * sector;
  if (last_sector > at && end - last_sector >= enough && zeros(bytes.subspan(last_sector))) return true;
  return zeros(bytes.subspan(end - tail));
}

// What a crash during an append leaves: some first bytes of what was appended (a record or several), or blocks of it
// that the file system never filled (zeros). Everything else is damage and refused.
Result<Scan> scan(const std::string& path, View bytes, const OnRecord& on_record) {
  Scan s{.last = base::sha256(base::view(magic))};
  if (bytes.size() < magic.size()) {
    if (!std::equal(bytes.begin(), bytes.end(), magic.begin()) && !zeros(bytes))
      return base::malformed(path,
                             "wanted \"cloister ledger 1\" in the first line, found something else; is this a ledger?");
    s.torn = bytes.size();
    return s;
  }
  if (base::text(bytes.first(magic.size())) != magic)
    return base::unsupported(
        path,
        "wanted \"cloister ledger 1\" in the first line, found something else; is this a ledger, or one "
        "of a newer version?");
  s.end = magic.size();
  while (s.end < bytes.size()) {
    const View rest = bytes.subspan(s.end);
    if (rest.size() < head || zeros(rest)) {
      s.torn = rest.size();
      return s;
    }
    base::Reader reader("ledger", rest);
    const std::uint32_t length = reader.u32("length");
    const auto damaged = [&](std::string_view what) {
      return base::malformed(
          path, fmt::format("the record at byte {} is damaged ({}) and is not the cut-off end of a crash; nothing was "
                            "changed. Restore the ledger from a copy: without it, what was spent is unknown",
                            s.end, what));
    };
    if (reader.array<4>("check") != length_check(s.last, length) || length > ledger_record_cap)
      return damaged("its length does not check");
    if (rest.size() < head + length + tail) {
      s.torn = rest.size();
      return s;
    }
    const View payload = rest.subspan(head, length);
    const View checksum = rest.subspan(head + length, tail);
    if (!base::equal(checksum, chained(s.last, payload))) {
      if (!never_filled(bytes, s.end, head + length + tail)) return damaged("its checksum does not match");
      s.torn = rest.size();
      return s;
    }
    if (auto r = on_record(payload); !r) return r.error();
    s.last = base::array<32>(checksum);
    s.end += head + length + tail;
  }
  return s;
}

bool write_at(int fd, View bytes, std::uint64_t at) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(at));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    bytes = bytes.subspan(static_cast<std::size_t>(n));
    at += static_cast<std::uint64_t>(n);
  }
  return true;
}

bool sync_folder(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  const int fd = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool ok = fd >= 0 && ::fsync(fd) == 0;
  if (fd >= 0) ::close(fd);
  return ok;
}

}  // namespace

LedgerFile::LedgerFile(LedgerFile&& o) noexcept
    : path_(std::move(o.path_)),
      fd_(std::exchange(o.fd_, -1)),
      end_(o.end_),
      last_(o.last_),
      broken_(o.broken_),
      repaired_(std::move(o.repaired_)) {}

LedgerFile& LedgerFile::operator=(LedgerFile&& o) noexcept {
  std::swap(path_, o.path_);
  std::swap(fd_, o.fd_);
  std::swap(end_, o.end_);
  std::swap(last_, o.last_);
  std::swap(broken_, o.broken_);
  std::swap(repaired_, o.repaired_);
  return *this;
}

LedgerFile::~LedgerFile() {
  if (fd_ >= 0) ::close(fd_);
}

Result<void> LedgerFile::read(const std::string& path, const OnRecord& on_record) {
  const Result<Bytes> bytes = base::read_file(path, file_cap);
  if (!bytes) return bytes.error();
  if (const Result<Scan> s = scan(path, *bytes, on_record); !s) return s.error();
  return {};
}

Result<LedgerFile> LedgerFile::open(const std::string& path, const OnRecord& on_record) {
  LedgerFile file(path, ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (file.fd_ < 0) return failed(path, "open");
  if (::flock(file.fd_, LOCK_EX | LOCK_NB) != 0)
    return base::unavailable(
        path, "another process holds this ledger; stop that node first (two nodes would spend the same budget twice)");
  const Result<Bytes> bytes = base::read_file(path, file_cap);
  if (!bytes) return bytes.error();
  const Result<Scan> s = scan(path, *bytes, on_record);
  if (!s) return s.error();
  file.end_ = s->end;
  file.last_ = s->last;
  if (s->torn > 0) {
    file.repaired_ = fmt::format(
        "removed {} bytes of a record that a crash cut off at byte {}; it was never answered for", s->torn, s->end);
    if (::ftruncate(file.fd_, static_cast<off_t>(s->end)) != 0) return failed(path, "mend the end of");
  }
  if (s->end == 0) {
    if (!write_at(file.fd_, base::view(magic), 0)) return failed(path, "write");
    file.end_ = magic.size();
  }
  if (::fsync(file.fd_) != 0 || !sync_folder(path)) return failed(path, "fsync");
  return file;
}

Result<void> LedgerFile::append(std::span<const Bytes> payloads, Until durable) {
  if (broken_)
    return base::unavailable(path_,
                             "an earlier write to the ledger failed; start the node again once the disk is well");
  Bytes bytes;
  base::Sha256 last = last_;
  for (const Bytes& payload : payloads) {
    if (payload.size() > ledger_record_cap)
      return base::malformed(
          path_, fmt::format("a record of {} bytes; at most {} are kept", payload.size(), ledger_record_cap));
    last = frame(bytes, last, payload);
  }
  if (!write_at(fd_, bytes, end_)) {
    const Error e = failed(path_, "write");
    broken_ = ::ftruncate(fd_, static_cast<off_t>(end_)) != 0;
    return e;
  }
  // fdatasync: the file's length goes with it, its times need not. After a failure what is on the disk is unknown, and
  // a second call may succeed without having written.
  if (durable == Until::power_cut && ::fdatasync(fd_) != 0) {
    broken_ = true;
    return failed(path_, "fsync");
  }
  end_ += bytes.size();
  last_ = last;
  return {};
}

}  // namespace cloister::participant

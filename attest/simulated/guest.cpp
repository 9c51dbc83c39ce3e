#include "attest/simulated/guest.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <mutex>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/encoding.hpp"

namespace cloister::attest::simulated {
namespace {

constexpr std::string_view where = "simulated TEE";

Error broken(std::string_view doing) {
  return base::unavailable(std::string(where), fmt::format("cannot {}: {}", doing, std::strerror(errno)));
}

}  // namespace

struct Guest::Link {
  explicit Link(int descriptor) : fd(descriptor) {}
  Link(const Link&) = delete;
  ~Link() { ::close(fd); }

  Result<void> write(View bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return broken("ask it");
      bytes = bytes.subspan(static_cast<std::size_t>(n));
    }
    return {};
  }

  Result<Bytes> read(std::size_t size) {
    Bytes out(size);
    std::size_t at = 0;
    while (at < size) {
      const ssize_t n = ::recv(fd, out.data() + at, size - at, 0);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return broken("read its answer");
      if (n == 0) return base::unavailable(std::string(where), "it closed the link before it answered");
      at += static_cast<std::size_t>(n);
    }
    return out;
  }

  Result<Bytes> call(View request) {
    std::lock_guard lock(mutex);
    if (lost) return *lost;
    auto answer = exchange(request);
    // After a broken exchange an answer would meet the wrong request.
    if (!answer) lost = answer.error();
    if (!answer) return answer.error();
    base::Reader r("answer of the simulated TEE", *answer);
    const std::string outcome = r.string("outcome", 16);
    const View value = r.field("value", guest_message_cap);
    if (auto ok = r.finish(); !ok) return ok.error();
    if (outcome == "ok") return base::copy(value);
    if (outcome == "error") return base::denied(std::string(where), base::text(value));
    return base::unsupported("answer of the simulated TEE.outcome",
                             fmt::format("wanted ok or error, found \"{}\"", outcome));
  }

  Result<Bytes> exchange(View request) {
    if (auto ok = write(base::Writer().field(request).bytes()); !ok) return ok.error();
    auto header = read(4);
    if (!header) return header.error();
    const std::uint32_t length = base::Reader("length", *header).u32("length");
    if (length > guest_message_cap)
      return base::malformed("answer of the simulated TEE",
                             fmt::format("wanted at most {} bytes, found {}", guest_message_cap, length));
    return read(length);
  }

  int fd;
  std::mutex mutex;
  std::optional<Error> lost;
};

Result<Guest> Guest::open(int fd) {
  int type = 0;
  socklen_t size = sizeof type;
  if (::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_STREAM)
    return base::unavailable(
        std::string(where),
        fmt::format("descriptor {} is no link to a TEE; start this program with cloister-simulated-tee", fd));
  if (::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) return broken("hide the link from children");
  const timeval ten_seconds{10, 0};
  if (::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &ten_seconds, sizeof ten_seconds) != 0 ||
      ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &ten_seconds, sizeof ten_seconds) != 0)
    return broken("set its deadline");
#ifndef __SANITIZE_ADDRESS__  // the leak check at exit traces its own process
  if (::prctl(PR_SET_DUMPABLE, 0) != 0) return broken("hide this process's memory");
#endif
  return Guest(std::make_shared<Link>(fd));
}

Result<Bytes> Guest::document() const {
  return link_->call(base::Writer().field("document 1").bytes());
}

Result<Bytes> Guest::evidence(const Array<64>& report_data, View wanted_measurement) const {
  return link_->call(base::Writer().field("evidence 1").raw(report_data).field(wanted_measurement).bytes());
}

Attester Guest::attester(Bytes wanted_measurement) const {
  return [guest = *this, wanted = std::move(wanted_measurement)](const Array<64>& report_data) {
    return guest.evidence(report_data, wanted);
  };
}

}  // namespace cloister::attest::simulated

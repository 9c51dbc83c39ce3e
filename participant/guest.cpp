#include "participant/guest.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include "attest/claims.hpp"
#include "base/encoding.hpp"

namespace cloister::participant {
namespace {

constexpr std::string_view version = "cloister participant document 1";
constexpr std::size_t text_cap = 1 << 20;

}  // namespace

Bytes GuestDocument::serialize() const {
  return base::Writer().field(version).field(config_file).field(config).u32(runs).u8(once ? 1 : 0).bytes();
}

Result<GuestDocument> GuestDocument::parse(View bytes) {
  base::Reader r("participant document", bytes);
  if (const std::string found = r.string("version", 64); r.ok() && found != version)
    r.fail("version", fmt::format("wanted \"{}\", found another", version));
  GuestDocument out;
  out.config_file = r.string("config file", 4096);
  out.config = r.string("config", text_cap);
  out.runs = r.u32("runs");
  out.once = r.u8("once") != 0;
  if (auto done = r.finish(); !done) return done.error();
  return out;
}

Error become_tee(const std::string& tee_program, const std::string& platform, const std::string& own_program,
                 const base::Sha256& charter, const GuestDocument& document) {
  const Bytes bytes = document.serialize();
  const int fd = ::memfd_create("document", 0);  // stays open over the exec
  if (fd < 0 || ::write(fd, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()) ||
      ::lseek(fd, 0, SEEK_SET) != 0)
    return base::unavailable(tee_program,
                             fmt::format("cannot hand over the launch document: {}", std::strerror(errno)));
  std::string words[] = {tee_program,
                         "--platform",
                         platform,
                         "--guest",
                         own_program,
                         "--host-data",
                         base::hex(attest::host_data_for(charter, bytes)),
                         "--document",
                         std::to_string(fd),
                         "--",
                         "participant",
                         "guest"};
  char* arguments[std::size(words) + 1] = {};
  for (std::size_t i = 0; i < std::size(words); ++i) arguments[i] = words[i].data();
  ::execv(tee_program.c_str(), arguments);
  return base::unavailable(
      tee_program,
      fmt::format("cannot start the simulated TEE: {}; it is installed beside cloister", std::strerror(errno)));
}

}  // namespace cloister::participant

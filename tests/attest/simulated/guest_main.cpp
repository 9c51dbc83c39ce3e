// A guest for tests: its first argument says what it shall do. Prints facts, a line each.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <signal.h>
#include <string>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "attest/simulated/guest.hpp"
#include "base/encoding.hpp"

namespace {

using namespace cloister;
using attest::simulated::Guest;

void say(const std::string& line) {
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

int report() {
  auto guest = Guest::open();
  if (!guest) return say(guest.error().text()), 1;
  Array<64> report_data{};
  report_data.fill(0x5a);
  say(base::text(guest->document().value()));
  say(base::hex(guest->evidence(report_data, Bytes(48, 0xaa)).value()));  // it claims another's measurement
  say(base::hex(guest->attester(Bytes(48, 0xbb))(report_data).value()));
  return 0;
}

// Open descriptors but the one that lists them.
int descriptors() {
  DIR* folder = ::opendir("/proc/self/fd");
  std::string out;
  while (const dirent* e = ::readdir(folder))
    if (e->d_name[0] != '.' && std::atoi(e->d_name) != ::dirfd(folder)) out += std::string(e->d_name) + " ";
  say(out);
  return 0;
}

std::string ask(View request) {
  const Bytes framed = base::Writer().field(request).bytes();
  if (::send(3, framed.data(), framed.size(), MSG_NOSIGNAL) < 0) return "the link is closed";
  std::uint8_t header[4];
  if (::recv(3, header, 4, MSG_WAITALL) != 4) return "the link is closed";
  Bytes body(base::Reader("length", header).u32("length"));
  if (::recv(3, body.data(), body.size(), MSG_WAITALL) != static_cast<ssize_t>(body.size())) return "the answer is cut";
  base::Reader r("answer", body);
  const std::string outcome = r.string("outcome", 16);
  return outcome + ": " + r.string("value", 1 << 20);
}

int malformed() {
  using base::Writer;
  say(ask({}));
  say(ask(Writer().field("measurement 1").field("aa").bytes()));
  say(ask(Writer().field("evidence 1").raw(Bytes(63)).bytes()));
  say(ask(Writer().field("evidence 1").raw(Bytes(64)).field("").u8(0).bytes()));
  say(ask(Writer().field("document 1").u8(0).bytes()));
  say(ask(Writer().field("document 1").bytes()));  // it still answers
  say(ask(Bytes(5000)));                           // larger than any request: the link ends
  say(ask(Writer().field("document 1").bytes()));
  return 0;
}

int allocate() {
  void* at = ::mmap(nullptr, 1ul << 30, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  say(at == MAP_FAILED ? "refused" : "given");
  return 0;
}

int wait_forever() {
  say(std::to_string(::getpid()));
  for (;;) ::pause();
}

}  // namespace

extern char** environ;

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "report") return report();
  if (what == "environment") return say(environ[0] == nullptr ? "empty" : environ[0]), 0;
  if (what == "descriptors") return descriptors();
  if (what == "malformed") return malformed();
  if (what == "allocate") return allocate();
  if (what == "exit") return std::atoi(argv[2]);
  if (what == "abort") return ::raise(SIGKILL);
  if (what == "wait") return wait_forever();
  return 2;
}

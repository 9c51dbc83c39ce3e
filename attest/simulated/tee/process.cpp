#include "attest/simulated/tee/process.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "attest/simulated/guest.hpp"
#include "base/encoding.hpp"

namespace cloister::attest::simulated::tee {
namespace {

constexpr std::size_t request_cap = 4096;

class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() { reset(); }
  void reset() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

Error failed(std::string_view doing) {
  return base::unavailable("simulated TEE", fmt::format("cannot {}: {}", doing, std::strerror(errno)));
}

// Above the few descriptors that the guest keeps, so that arranging those never overwrites it.
Result<Descriptor> high(int fd, std::string_view what) {
  Descriptor low(fd);
  if (fd < 0) return failed(what);
  Descriptor out(::fcntl(fd, F_DUPFD_CLOEXEC, 16));
  if (out.get() < 0) return failed(what);
  return out;
}

Result<void> copy_all(int from, int to, const std::string& path) {
  Bytes piece(1 << 20);
  std::size_t total = 0;
  for (;;) {
    const ssize_t n = ::read(from, piece.data(), piece.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return base::unavailable(path, fmt::format("cannot read: {}", std::strerror(errno)));
    if (n == 0) return {};
    total += static_cast<std::size_t>(n);
    if (total > guest_cap)
      return base::malformed(path, fmt::format("larger than {} bytes, the most a guest may have", guest_cap));
    for (ssize_t at = 0; at < n;) {
      const ssize_t m = ::write(to, piece.data() + at, static_cast<std::size_t>(n - at));
      if (m < 0 && errno == EINTR) continue;
      if (m < 0) return failed("copy the guest into memory");
      at += m;
    }
  }
}

// The one copy that is measured and started: in memory and sealed, so that nothing can change it in between.
Result<Descriptor> sealed_copy(const std::string& path) {
  Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) return base::unavailable(path, fmt::format("cannot open: {}", std::strerror(errno)));
  auto memory = high(::memfd_create("cloister-guest", MFD_CLOEXEC | MFD_ALLOW_SEALING), "make memory for the guest");
  if (!memory) return memory.error();
  if (auto ok = copy_all(file.get(), memory->get(), path); !ok) return ok.error();
  if (::fchmod(memory->get(), 0500) != 0 ||
      ::fcntl(memory->get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) != 0)
    return failed("seal the guest's copy");
  return memory;
}

Result<Measurement> measure_sealed(int fd, const GuestOptions& options) {
  struct stat st {};
  if (::fstat(fd, &st) != 0) return failed("measure the guest");
  const auto size = static_cast<std::size_t>(st.st_size);
  constexpr Array<4> elf{0x7f, 'E', 'L', 'F'};
  if (size < elf.size())
    return base::unsupported(options.path, "wanted an ELF program, found a file of less than 4 bytes");
  void* at = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (at == MAP_FAILED) return failed("measure the guest");
  const View program(static_cast<const std::uint8_t*>(at), size);
  // A script's interpreter would be started, and that was not measured.
  const bool is_elf = std::equal(elf.begin(), elf.end(), program.begin());
  const Measurement out = is_elf ? measure(program, options.arguments) : Measurement{};
  ::munmap(at, size);
  if (!is_elf) return base::unsupported(options.path, "wanted an ELF program, found another kind of file");
  return out;
}

sigset_t handled_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (int s : {SIGCHLD, SIGTERM, SIGINT}) sigaddset(&set, s);
  return set;
}

struct Child {
  int program, link, null;
  pid_t parent;
  const std::optional<std::uint64_t>& memory;
  char* const* argv;
};

// In the child, between fork and exec: system calls only. Ends in the guest or with status 127.
[[noreturn]] void become_guest(const Child& c) {
  const auto must = [](bool ok, const char* doing) {
    if (ok) return;
    const char* parts[] = {"cloister-simulated-tee: cannot ", doing, "\n"};
    for (const char* p : parts) (void)!::write(2, p, std::strlen(p));
    ::_exit(127);
  };
  // The guest dies with its TEE; if that is gone already, at once.
  must(::prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && ::getppid() == c.parent, "tie the guest's life to the TEE's");
  const sigset_t none = [] {
    sigset_t s;
    sigemptyset(&s);
    return s;
  }();
  must(::sigprocmask(SIG_SETMASK, &none, nullptr) == 0, "unblock signals");
  must(::dup2(c.null, 0) == 0 && ::dup2(c.link, guest_descriptor) == guest_descriptor,
       "arrange the guest's descriptors");
  must(::close_range(guest_descriptor + 1, ~0u, CLOSE_RANGE_CLOEXEC) == 0, "hide other descriptors from the guest");
#ifndef __SANITIZE_ADDRESS__  // its shadow takes terabytes of address space
  if (c.memory) {
    const rlimit limit{*c.memory, *c.memory};
    must(::setrlimit(RLIMIT_AS, &limit) == 0, "limit the guest's memory");
  }
#endif
  const rlimit no_core{0, 0};
  must(::setrlimit(RLIMIT_CORE, &no_core) == 0, "forbid core files");
  char* const environment[] = {nullptr};
  ::fexecve(c.program, c.argv, environment);
  must(false, "start the guest");
  ::_exit(127);
}

Result<pid_t> start(const GuestOptions& options, int program, int link, int null) {
  std::vector<std::string> arguments{"guest"};
  arguments.insert(arguments.end(), options.arguments.begin(), options.arguments.end());
  std::vector<char*> argv;
  for (std::string& a : arguments) argv.push_back(a.data());
  argv.push_back(nullptr);
  const Child child{program, link, null, ::getpid(), options.memory, argv.data()};
  const pid_t pid = ::fork();
  if (pid < 0) return failed("start a process");
  if (pid == 0) become_guest(child);
  return pid;
}

// The TEE's end of the pair. A guest that breaks the framing is told why and loses the link, and only the link.
class Server {
 public:
  Server(const Platform& platform, const Started& started, Descriptor link)
      : platform_(platform), started_(started), link_(std::move(link)) {}
  int fd() const { return link_.get(); }

  void readable() {
    std::array<std::uint8_t, 4096> piece;
    const ssize_t n = ::recv(link_.get(), piece.data(), piece.size(), 0);
    if (n < 0 && errno == EINTR) return;
    if (n <= 0) return link_.reset();
    pending_.insert(pending_.end(), piece.begin(), piece.begin() + n);
    while (link_.get() >= 0 && serve_one()) {
    }
  }

 private:
  bool serve_one() {
    if (pending_.size() < 4) return false;
    const std::uint32_t length = base::Reader("request", pending_).u32("length");
    if (length > request_cap) {
      send(base::Writer()
               .field("error")
               .field(fmt::format("request: wanted at most {} bytes, found {}", request_cap, length))
               .bytes());
      link_.reset();
      return false;
    }
    if (pending_.size() < 4 + length) return false;
    send(answer(platform_, started_, View(pending_).subspan(4, length), base::now()));
    pending_.erase(pending_.begin(), pending_.begin() + 4 + length);
    return true;
  }

  void send(View message) {
    const Bytes framed = base::Writer().field(message).bytes();
    for (View left = framed; !left.empty();) {
      const ssize_t n = ::send(link_.get(), left.data(), left.size(), MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return link_.reset();
      left = left.subspan(static_cast<std::size_t>(n));
    }
  }

  const Platform& platform_;
  const Started& started_;
  Descriptor link_;
  Bytes pending_;
};

int exit_status(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

Result<int> serve(Server& server, pid_t guest, int signals) {
  for (;;) {
    pollfd wait[2] = {{signals, POLLIN, 0}, {server.fd(), POLLIN, 0}};
    if (::poll(wait, 2, -1) < 0) {
      if (errno == EINTR) continue;
      return failed("wait for the guest");
    }
    if (wait[1].revents != 0) server.readable();
    if (wait[0].revents == 0) continue;
    signalfd_siginfo signal{};
    if (::read(signals, &signal, sizeof signal) != sizeof signal) continue;
    if (signal.ssi_signo != SIGCHLD) ::kill(guest, static_cast<int>(signal.ssi_signo));
    int status = 0;
    if (::waitpid(guest, &status, WNOHANG) == guest) return exit_status(status);
  }
}

}  // namespace

Result<int> run(const Platform& platform, const GuestOptions& options) {
  auto program = sealed_copy(options.path);
  if (!program) return program.error();
  auto measured = measure_sealed(program->get(), options);
  if (!measured) return measured.error();
  const Started started{*measured, options.host_data, options.document};

  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return failed("make the guest's link");
  auto inner = high(pair[0], "make the guest's link"), outer = high(pair[1], "make the guest's link");
  auto null = high(::open("/dev/null", O_RDONLY | O_CLOEXEC), "open /dev/null");
  if (!inner) return inner.error();
  if (!outer) return outer.error();
  if (!null) return null.error();
  // A guest that asks and never reads must not hold up its own end.
  const timeval ten_seconds{10, 0};
  if (::setsockopt(outer->get(), SOL_SOCKET, SO_SNDTIMEO, &ten_seconds, sizeof ten_seconds) != 0)
    return failed("set the link's deadline");

  const sigset_t set = handled_signals();
  if (::sigprocmask(SIG_BLOCK, &set, nullptr) != 0) return failed("block signals");
  Descriptor signals(::signalfd(-1, &set, SFD_CLOEXEC));
  if (signals.get() < 0) return failed("wait for signals");
  auto guest = start(options, program->get(), inner->get(), null->get());
  if (!guest) return guest.error();
  inner->reset();
  Server server(platform, started, std::move(*outer));
  return serve(server, *guest, signals.get());
}

}  // namespace cloister::attest::simulated::tee

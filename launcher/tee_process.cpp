#include "launcher/tee_process.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>

extern char** environ;

namespace cloister::launcher {
namespace {

constexpr int document_descriptor = 3;  // in the TEE

Error failed(const std::string& where, std::string_view doing, int error = errno) {
  return base::unavailable(where, fmt::format("cannot {}: {}", doing, std::strerror(error)));
}

struct Descriptor {
  explicit Descriptor(int d) : fd(d) {}
  Descriptor(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
  int fd;
};

// A document can be larger than a pipe, and a file could be changed under the TEE's eyes: memory it is.
int memory_with(View bytes) {
  const int fd = ::memfd_create("cloister-launch-document", MFD_CLOEXEC);
  for (std::size_t at = 0; fd >= 0 && at < bytes.size();) {
    const ssize_t n = ::write(fd, bytes.data() + at, bytes.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      ::close(fd);
      return -1;
    }
    at += static_cast<std::size_t>(n);
  }
  return fd;
}

// The child gets `in`, `out`, `error` as 0, 1, 2 and `extra` as 3, and nothing else that this process has open.
Result<pid_t> spawn(std::vector<std::string> command, int in, int out, int error, int extra) {
  std::vector<char*> argv;
  for (std::string& word : command) argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
  ::posix_spawn_file_actions_init(&files);
  ::posix_spawnattr_init(&attributes);
  ::posix_spawn_file_actions_adddup2(&files, in, 0);
  ::posix_spawn_file_actions_adddup2(&files, out, 1);
  ::posix_spawn_file_actions_adddup2(&files, error, 2);
  if (extra >= 0) ::posix_spawn_file_actions_adddup2(&files, extra, document_descriptor);
  ::posix_spawn_file_actions_addclosefrom_np(&files, extra >= 0 ? document_descriptor + 1 : 3);
  sigset_t none;
  sigemptyset(&none);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  sigset_t all;
  sigfillset(&all);
  ::posix_spawnattr_setsigdefault(&attributes, &all);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  pid_t pid = -1;
  const int e = ::posix_spawn(&pid, argv[0], &files, &attributes, argv.data(), environ);
  ::posix_spawn_file_actions_destroy(&files);
  ::posix_spawnattr_destroy(&attributes);
  if (e != 0) return failed(command[0], "start it", e);
  return pid;
}

int wait_for(pid_t pid) {
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

Result<TeeProcess> TeeProcess::start(const TeeSettings& tee, const Launch& launch, const std::string& output) {
  Descriptor document(memory_with(launch.document_bytes));
  if (document.fd < 0) return failed("launch document", "hand it over");
  Descriptor out(::open(output.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (out.fd < 0) return failed(output, "open it");
  Descriptor null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (null.fd < 0) return failed("/dev/null", "open it");
  std::vector<std::string> command{tee.program,
                                   "--platform",
                                   tee.platform,
                                   "--guest",
                                   launch.binary.path,
                                   "--host-data",
                                   base::hex(launch.host_data),
                                   "--document",
                                   std::to_string(document_descriptor),
                                   "--memory",
                                   std::to_string(launch.document.memory),
                                   "--parent",
                                   std::to_string(::getpid()),
                                   "--"};
  command.insert(command.end(), launch.binary.arguments.begin(), launch.binary.arguments.end());
  auto pid = spawn(std::move(command), null.fd, out.fd, out.fd, document.fd);
  if (!pid) return pid.error();
  // Not through <sys/pidfd.h>: glibc 2.36 declares it without C linkage.
  const int pidfd = static_cast<int>(::syscall(SYS_pidfd_open, *pid, 0));
  if (pidfd < 0) {
    Error e = failed(tee.program, "watch it");
    ::kill(*pid, SIGKILL);
    wait_for(*pid);
    return e;
  }
  return TeeProcess(*pid, pidfd);
}

TeeProcess::TeeProcess(TeeProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), pidfd_(std::exchange(other.pidfd_, -1)) {}

TeeProcess::~TeeProcess() {
  if (pid_ > 0) kill(), reap();
  if (pidfd_ >= 0) ::close(pidfd_);
}

void TeeProcess::terminate() {
  if (pid_ > 0) ::kill(pid_, SIGTERM);
}
void TeeProcess::kill() {
  if (pid_ > 0) ::kill(pid_, SIGKILL);
}
int TeeProcess::reap() {
  return wait_for(std::exchange(pid_, -1));
}

Result<std::string> platform_identity(const TeeSettings& tee) {
  int pipe[2];
  if (::pipe2(pipe, O_CLOEXEC) != 0) return failed(tee.program, "make a pipe");
  Descriptor in(::open("/dev/null", O_RDONLY | O_CLOEXEC)), read_end(pipe[0]);
  auto pid = spawn({tee.program, "identity", "--platform", tee.platform}, in.fd, pipe[1], 2, -1);
  ::close(pipe[1]);
  if (!pid) return pid.error();
  std::string out;
  char piece[256];
  for (ssize_t n; (n = ::read(read_end.fd, piece, sizeof piece)) > 0;) out.append(piece, static_cast<std::size_t>(n));
  if (const int status = wait_for(*pid); status != 0)
    return base::unavailable(tee.program,
                             fmt::format("could not tell the platform's identity (exit status {})", status));
  while (out.ends_with('\n')) out.pop_back();
  return out;
}

}  // namespace cloister::launcher

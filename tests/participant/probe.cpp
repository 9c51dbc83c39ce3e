// A program that tries what a trainer must not be able to do, and says how far it got: a line "name=result" per
// argument on descriptor 3, result "ok" or the system's error. It links nothing of ours.
#include <arpa/inet.h>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <string>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

extern char** environ;

namespace {

std::string outcome(bool ok) {
  return ok ? "ok" : std::strerror(errno);
}

void say(const std::string& name, const std::string& result) {
  const std::string line = name + "=" + result + "\n";
  if (::write(3, line.data(), line.size()) < 0) std::_Exit(9);
}

std::string connect_to(const std::string& port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  if (fd < 0) return outcome(false);
  sockaddr_in to = {};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<std::uint16_t>(std::stoi(port)));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return outcome(::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0);
}

std::string open_path(const std::string& path, int flags) {
  return outcome(::open(path.c_str(), flags, 0600) >= 0);
}

std::string allocate(std::size_t mebibytes) {
  void* memory =
      ::mmap(nullptr, mebibytes << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return outcome(memory != MAP_FAILED);
}

std::string descriptors() {
  std::string out;
  for (int fd = 0; fd < 1024; ++fd)
    if (::fcntl(fd, F_GETFD) >= 0) out += (out.empty() ? "" : ",") + std::to_string(fd);
  return out;
}

std::string read_given(int fd) {
  char text[64] = {};
  return ::pread(fd, text, sizeof text - 1, 0) < 0 ? outcome(false) : text;
}

std::string listing(const std::string& path) {
  DIR* folder = ::opendir(path.c_str());
  if (folder == nullptr) return outcome(false);
  std::string out;
  while (const dirent* e = ::readdir(folder))
    if (e->d_name[0] != '.') out += std::string(out.empty() ? "" : ",") + e->d_name;
  return out;
}

std::string flood() {  // processes, until the system says no
  for (int n = 0; n < 2000; ++n) {
    const pid_t pid = ::fork();
    if (pid < 0) return outcome(false);
    if (pid == 0) {
      ::pause();
      std::_Exit(0);
    }
  }
  return "ok";
}

void attempt(const std::string& what) {
  const auto colon = what.find(':');
  const std::string verb = what.substr(0, colon);
  const std::string rest = colon == std::string::npos ? "" : what.substr(colon + 1);
  if (verb == "connect") return say(verb, connect_to(rest));
  if (verb == "socket-unix") return say(verb, outcome(::socket(AF_UNIX, SOCK_STREAM, 0) >= 0));
  if (verb == "read") return say(verb, open_path(rest, O_RDONLY));
  if (verb == "write") return say(verb, open_path(rest, O_WRONLY));
  if (verb == "create") return say(verb, open_path(rest, O_WRONLY | O_CREAT));
  if (verb == "write-data") return say(verb, outcome(::pwrite(4, "x", 1, 0) == 1));
  if (verb == "reopen-data") return say(verb, open_path("/proc/self/fd/4", O_RDWR));
  if (verb == "given") return say(verb, read_given(std::stoi(rest)));
  if (verb == "allocate") return say(verb, allocate(std::stoul(rest)));
  if (verb == "descriptors") return say(verb, descriptors());
  if (verb == "environment") return say(verb, environ == nullptr || *environ == nullptr ? "empty" : *environ);
  if (verb == "ptrace") return say(verb, outcome(::ptrace(PTRACE_ATTACH, std::stoi(rest), nullptr, nullptr) == 0));
  if (verb == "kill") return say(verb, outcome(::kill(std::stoi(rest), 0) == 0));
  if (verb == "list") return say(verb, listing(rest));
  if (verb == "user") return say(verb, std::to_string(::getuid()));
  if (verb == "folder") {
    char path[4096];
    return say(verb, ::getcwd(path, sizeof path) != nullptr ? path : outcome(false));
  }
  if (verb == "flood") return say(verb, flood());
  if (verb == "chmod") return say(verb, outcome(::chmod(rest.c_str(), 0777) == 0));
  if (verb == "stderr") {
    std::fprintf(stderr, "%s\n", rest.c_str());
    return say(verb, "ok");
  }
  if (verb == "abort") std::abort();
  if (verb == "exit") std::_Exit(std::stoi(rest));
  if (verb == "spin") {
    say(verb, "spinning");
    for (;;) (void)::getppid();
  }
  if (verb == "hang") {
    say(verb, std::to_string(::getpid()));
    for (;;) ::pause();
  }
  say(verb, "no such attempt");
}

}  // namespace

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) attempt(argv[i]);
  std::_Exit(0);  // no leak check at exit under a sanitizer: it would trace this process, which the sandbox forbids
}

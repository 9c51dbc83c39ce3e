#include "participant/sandbox.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <map>
#include <poll.h>
#include <signal.h>
#include <sstream>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>

#include "base/file.hpp"
#include "participant/sandbox_plan.hpp"

namespace cloister::participant {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::size_t program_cap = std::size_t{1} << 30;
constexpr milliseconds start_at_most{20000};

class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(Descriptor&& o) noexcept : fd_(std::exchange(o.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& o) noexcept {
    std::swap(fd_, o.fd_);
    return *this;
  }
  ~Descriptor() { close(); }
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

Error failed(const std::string& where, std::string_view step) {
  return base::unavailable(where, fmt::format("cannot {}: {}", step, std::strerror(errno)));
}

// Memory that nobody can change any more: what was hashed is what is executed.
Result<Descriptor> sealed_copy(const std::string& path, View bytes) {
  Descriptor memory(::memfd_create("program", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (memory.get() < 0) return failed(path, "make memory for the program");
  std::size_t at = 0;
  while (at < bytes.size()) {
    const ssize_t n = ::write(memory.get(), bytes.data() + at, bytes.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return failed(path, "copy the program");
    at += static_cast<std::size_t>(n);
  }
  if (::fcntl(memory.get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) != 0)
    return failed(path, "seal the program");
  return memory;
}

bool anyone_may_read(const std::string& path) {
  struct stat s = {};
  if (::stat(path.c_str(), &s) != 0 || (s.st_mode & S_IROTH) == 0) return false;
  for (fs::path folder = fs::path(path).parent_path(); folder.has_relative_path(); folder = folder.parent_path())
    if (::stat(folder.c_str(), &s) != 0 || (s.st_mode & S_IXOTH) == 0) return false;
  return true;
}

struct Pipe {
  Descriptor read, write;
  static Result<Pipe> make() {
    int fds[2];
    if (::pipe2(fds, O_CLOEXEC) != 0) return failed("sandbox", "make a pipe");
    return Pipe{Descriptor(fds[0]), Descriptor(fds[1])};
  }
};

// The child's lines "layer=0" and "layer=13:step".
struct Report {
  std::map<std::string, std::string> layers;  ///< to why it is missing; empty: applied
  bool ready = false, ended = false;
  std::string fatal;

  bool has(const std::string& layer) const {
    const auto it = layers.find(layer);
    return it != layers.end() && it->second.empty();
  }
  void line(const std::string& text) {
    const auto equal = text.find('=');
    if (equal == std::string::npos) return;
    const std::string name = text.substr(0, equal);
    const auto colon = text.find(':', equal);
    const std::string why =
        colon == std::string::npos
            ? std::string()
            : fmt::format("{}: {}", text.substr(colon + 1), std::strerror(std::atoi(text.c_str() + equal + 1)));
    if (name == "ready") {
      ready = true;
    } else if (name == "fatal") {
      fatal = why;
    } else {
      layers[name] = why;
    }
  }
};

// Reads reports until `until` holds or the child closed the pipe.
void read_reports(int fd, Report& report, steady_clock::time_point deadline, bool until_ready) {
  std::string rest;
  while (!report.ended && report.fatal.empty() && !(until_ready && report.ready)) {
    pollfd p{fd, POLLIN, 0};
    const auto left = std::chrono::duration_cast<milliseconds>(deadline - steady_clock::now()).count();
    const int n = left <= 0 ? 0 : ::poll(&p, 1, static_cast<int>(left));
    if (n < 0 && errno == EINTR) continue;
    char piece[512];
    const ssize_t got = n == 1 ? ::read(fd, piece, sizeof piece) : -1;
    if (n != 1) {
      report.fatal = "the child did not get ready within 20 s";
      return;
    }
    if (got <= 0) {
      report.ended = true;
      return;
    }
    rest.append(piece, static_cast<std::size_t>(got));
    for (auto end = rest.find('\n'); end != std::string::npos; end = rest.find('\n')) {
      report.line(rest.substr(0, end));
      rest.erase(0, end + 1);
    }
  }
}

std::vector<Guarantee> judge(const Report& report) {
  const auto guarantee = [&](std::string name, std::initializer_list<std::pair<const char*, const char*>> layers) {
    Guarantee g{std::move(name), {}, {}};
    for (const auto& [layer, shown] : layers) {
      if (report.has(layer)) {
        g.by.emplace_back(shown);
      } else if (const auto it = report.layers.find(layer); it != report.layers.end()) {
        g.missing += fmt::format("{}{} ({})", g.missing.empty() ? "" : ", ", shown, it->second);
      }
    }
    return g;
  };
  return {
      guarantee("no network", {{"network namespace", "network namespace"}, {"seccomp", "seccomp"}}),
      guarantee("no keys", {{"private view", "private view"},
                            {"mount namespace", "private view"},
                            {"landlock", "Landlock"},
                            {"another user", "another user"}}),
      guarantee("read-only data", {{"private view", "private view"}, {"landlock", "Landlock"}, {"seccomp", "seccomp"}}),
      guarantee("no other process", {{"process namespace", "process namespace"}, {"seccomp", "seccomp"}}),
      guarantee("limits", {{"limits", "resource limits"}})};
}

std::string exit_text(int status) {
  if (WIFEXITED(status)) return fmt::format("exited with status {}", WEXITSTATUS(status));
  const int signal = WTERMSIG(status);
  const std::string_view hint = signal == SIGKILL   ? "; out of memory, or over its processor time?"
                                : signal == SIGXCPU ? "; over its processor time"
                                : signal == SIGXFSZ ? "; it wrote more than it may"
                                : signal == SIGABRT ? "; out of memory?"
                                                    : "";
  return fmt::format("was killed by signal {} ({}{})", signal, ::strsignal(signal), hint);
}

}  // namespace

Result<SandboxedChild> SandboxedChild::start(const SandboxOptions& options) {
  const Result<Bytes> bytes = base::read_file(options.program, program_cap);
  if (!bytes) return bytes.error();
  if (const auto found = base::sha256(*bytes); found != options.digest)
    return base::untrusted(
        options.program, fmt::format("wanted the program with {}, found {}; install the trainer that the charter names",
                                     base::digest_text(options.digest), base::digest_text(found)));
  const auto memory = sealed_copy(options.program, *bytes);
  if (!memory) return memory.error();
  auto shown = sandbox::files_for(options.program, *bytes, options.readable);
  if (!shown) return shown.error();
  auto filter = sandbox::make_filter();
  auto report_pipe = Pipe::make(), gate = Pipe::make(), status = Pipe::make();
  if (!report_pipe || !gate || !status) return failed("sandbox", "make a pipe");
  const Descriptor null_fd(::open("/dev/null", O_RDWR | O_CLOEXEC));
  const Descriptor error_fd(
      options.error_file.empty()
          ? ::open("/dev/null", O_WRONLY | O_CLOEXEC)
          : ::open(options.error_file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600));
  if (null_fd.get() < 0 || error_fd.get() < 0) return failed(options.error_file, "open");

  sandbox::Plan plan;
  plan.program = fs::path(options.program).lexically_normal().string();
  plan.program_fd = memory->get();
  plan.program_size = bytes->size();
  plan.script = bytes->size() > 2 && (*bytes)[0] == '#';
  plan.shown = std::move(*shown);
  plan.arguments = {options.program};
  plan.arguments.insert(plan.arguments.end(), options.arguments.begin(), options.arguments.end());
  plan.descriptors = options.descriptors;
  plan.null_fd = null_fd.get();
  plan.error_fd = error_fd.get();
  if (filter) plan.filter = std::move(*filter);
  plan.limits = options.limits;
  plan.leave_out = options.leave_out;
  plan.others_may_read = std::all_of(plan.shown.begin(), plan.shown.end(),
                                     [](const auto& s) { return s.device || s.optional || anyone_may_read(s.source); });
  plan.parent = ::getpid();
  plan.report = report_pipe->write.get();
  plan.gate = gate->read.get();
  plan.status = status->write.get();
  const pid_t pid = ::fork();
  if (pid < 0) return failed(options.program, "fork");
  if (pid == 0) sandbox::run_child(plan);
  report_pipe->write.close();
  status->write.close();

  SandboxedChild child(pid, status->read.release(), {});
  Report report;
  read_reports(report_pipe->read.get(), report, steady_clock::now() + start_at_most, true);
  if (!report.ready)
    return base::unavailable(options.program,
                             fmt::format("cannot be started in its sandbox: {}",
                                         report.fatal.empty() ? "it ended while getting ready" : report.fatal));
  child.guarantees_ = judge(report);
  if (options.required)
    for (const Guarantee& g : child.guarantees_)
      if (!g.held())
        return base::denied(
            "trainer.isolation",
            fmt::format("wanted \"required\", found \"{}\" without anything that sees to it: {}; run the "
                        "node where the kernel allows it, or set isolation = \"best-effort\"",
                        g.name, g.missing.empty() ? "left out" : g.missing));
  if (::write(gate->write.get(), "g", 1) != 1) return failed(options.program, "start");
  read_reports(report_pipe->read.get(), report, steady_clock::now() + start_at_most, false);
  if (!report.fatal.empty())
    return base::unavailable(options.program, "cannot be started in its sandbox: " + report.fatal);
  return child;
}

SandboxedChild::SandboxedChild(SandboxedChild&& o) noexcept
    : pid_(std::exchange(o.pid_, -1)),
      status_fd_(std::exchange(o.status_fd_, -1)),
      ended_(std::move(o.ended_)),
      guarantees_(std::move(o.guarantees_)) {}

SandboxedChild& SandboxedChild::operator=(SandboxedChild&& o) noexcept {
  std::swap(pid_, o.pid_);
  std::swap(status_fd_, o.status_fd_);
  std::swap(ended_, o.ended_);
  std::swap(guarantees_, o.guarantees_);
  return *this;
}

SandboxedChild::~SandboxedChild() {
  kill();
  if (status_fd_ >= 0) ::close(status_fd_);
}

void SandboxedChild::kill() noexcept {
  if (pid_ <= 0) return;
  ::kill(-pid_,
         SIGKILL);  // its group, which the program cannot leave; where there is a process namespace, that ends too
  ::kill(pid_, SIGKILL);
  for (int status = 0; ::waitpid(pid_, &status, 0) < 0 && errno == EINTR;) {
  }
  pid_ = -1;
}

std::string SandboxedChild::wait(milliseconds patience) {
  if (!ended_.empty()) return ended_;
  if (status_fd_ < 0) return "was never started";
  const auto deadline = steady_clock::now() + patience;
  for (;;) {
    pollfd p{status_fd_, POLLIN, 0};
    const auto left = std::chrono::ceil<milliseconds>(deadline - steady_clock::now()).count();
    const int n = ::poll(&p, 1, static_cast<int>(std::max<std::int64_t>(left, 0)));
    if (n < 0 && errno == EINTR) continue;
    if (n == 0) return "still runs";
    int status = 0;
    const bool whole = ::read(status_fd_, &status, sizeof status) == static_cast<ssize_t>(sizeof status);
    return ended_ = whole ? exit_text(status) : "was stopped";
  }
}

std::string summary(const std::vector<Guarantee>& guarantees) {
  std::string out;
  for (const Guarantee& g : guarantees) {
    std::string by;
    for (const auto& layer : g.by) by += (by.empty() ? "" : ", ") + layer;
    out += fmt::format("{}{}{} ({})", out.empty() ? "" : "; ", g.held() ? "" : "NOT ", g.name,
                       g.held()            ? by
                       : g.missing.empty() ? "nothing sees to it"
                                           : g.missing);
  }
  return out;
}

}  // namespace cloister::participant

#pragma once
// A child process whose output is read line by line, against a deadline.

#include <chrono>
#include <fcntl.h>
#include <optional>
#include <poll.h>
#include <signal.h>
#include <stdexcept>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace cloister::tests {

class Process {
 public:
  /// Standard output and standard error are read together unless `errors_apart` (then the latter go to the test's own).
  explicit Process(std::vector<std::string> argv, bool errors_apart = false) {
    int pipes[2];
    if (::pipe2(pipes, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
    std::vector<char*> raw;
    for (std::string& argument : argv) raw.push_back(argument.data());
    raw.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(pipes[1], STDOUT_FILENO);
      if (!errors_apart) ::dup2(pipes[1], STDERR_FILENO);
      ::execv(raw[0], raw.data());
      ::_exit(127);
    }
    ::close(pipes[1]);
    out_ = pipes[0];
  }
  ~Process() {
    kill(SIGKILL);
    if (out_ >= 0) ::close(out_);
  }
  Process(const Process&) = delete;

  /// The next line without its end; nothing at the end of the output. Throws when none comes in time.
  std::optional<std::string> line(std::chrono::milliseconds within = std::chrono::seconds(30)) {
    const auto deadline = std::chrono::steady_clock::now() + within;
    for (;;) {
      if (const auto end = buffer_.find('\n'); end != std::string::npos) {
        std::string found = buffer_.substr(0, end);
        buffer_.erase(0, end + 1);
        return found;
      }
      const auto left =
          std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
      pollfd waiting{out_, POLLIN, 0};
      if (left.count() <= 0 || ::poll(&waiting, 1, static_cast<int>(left.count())) == 0)
        throw std::runtime_error("no further line in time; so far:\n" + all_);
      char block[4096];
      const ssize_t n = ::read(out_, block, sizeof block);
      if (n <= 0) return std::nullopt;
      buffer_.append(block, static_cast<std::size_t>(n));
      all_.append(block, static_cast<std::size_t>(n));
    }
  }
  /// Reads until a line contains `text`; gives it. Throws when the output ends before.
  std::string line_with(const std::string& text) {
    while (auto found = line())
      if (found->find(text) != std::string::npos) return *found;
    throw std::runtime_error("it ended without \"" + text + "\":\n" + all_);
  }
  std::string rest() {
    while (line()) continue;
    return all_;
  }
  /// Signals it and waits for its end.
  void kill(int signal) {
    if (pid_ <= 0) return;
    ::kill(pid_, signal);
    wait();
  }
  /// Exit status, or 128 and the signal.
  int wait() {
    if (pid_ > 0) {
      int status = 0;
      ::waitpid(pid_, &status, 0);
      status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
      pid_ = -1;
    }
    return status_;
  }

 private:
  pid_t pid_ = -1;
  int out_ = -1;
  int status_ = 0;
  std::string buffer_, all_;
};

}  // namespace cloister::tests

#pragma once
// Starts a program that may not be trusted with more than it is given: some open descriptors, read-only libraries and
// bounded resources. Whatever the kernel offers is applied, each layer on its own: namespaces with a private read-only
// view of the file system, Landlock, seccomp, resource limits, an unprivileged user. What could not be applied is
// listed, or, when isolation is required, nothing starts. Works as root and unprivileged. Not thread-safe; may be
// called in a process with threads.

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "base/crypto.hpp"

namespace cloister::participant {

struct SandboxLimits {
  std::uint64_t memory = std::uint64_t{8} << 30;  ///< bytes of address space; 0: unlimited
  std::chrono::seconds cpu{0};                    ///< of processor time, all threads; 0: unlimited
  std::uint64_t file_size = 1 << 20;              ///< bytes of any file it writes (its standard error)
  std::uint32_t processes = 512;                  ///< threads count
};

/// One descriptor of this process and its number (3 or more) in the child.
struct GivenDescriptor {
  int fd = -1;
  int as = -1;
};

struct SandboxOptions {
  std::string program;    ///< absolute path of an ELF program or a script with #!
  base::Sha256 digest{};  ///< of its bytes: the very bytes that were hashed are executed
  std::vector<std::string> arguments;
  std::vector<GivenDescriptor> descriptors;  ///< still owned by the caller; every other one is closed in the child
  std::string error_file;                    ///< gets standard error, emptied first, mode 0600; empty: nowhere
  std::vector<std::string> readable;         ///< files and folders it may read besides its libraries, at the same paths
  SandboxLimits limits;
  bool required = false;   ///< start nothing unless every guarantee holds
  unsigned leave_out = 0;  ///< Layer bits not to apply: for tests of each layer alone
};

enum Layer : unsigned { namespaces = 1, landlock = 2, seccomp = 4, other_user = 8 };

/// Something the child cannot do, and what in this kernel sees to it.
struct Guarantee {
  std::string name;             ///< "no network", "no keys", "read-only data", "no other process", "limits"
  std::vector<std::string> by;  ///< "network namespace", "seccomp"
  std::string missing;          ///< why a layer is missing; with `by` empty, why the guarantee does not hold
  bool held() const { return !by.empty(); }
};

class SandboxedChild {
 public:
  /// On return the program runs. Errors: unavailable (cannot read or start it: the step and the system's reason),
  /// untrusted (its bytes have another digest), denied (isolation is required and a guarantee does not hold).
  static Result<SandboxedChild> start(const SandboxOptions& options);

  SandboxedChild(SandboxedChild&& other) noexcept;
  SandboxedChild& operator=(SandboxedChild&& other) noexcept;
  ~SandboxedChild();  ///< kills it and every process that it made

  const std::vector<Guarantee>& guarantees() const { return guarantees_; }
  /// Waits until it ends, at most `patience`: "exited with status 1", "was killed by signal 9 (Killed)", "still runs".
  std::string wait(std::chrono::milliseconds patience);
  void kill() noexcept;

 private:
  SandboxedChild(int pid, int status_fd, std::vector<Guarantee> guarantees)
      : pid_(pid), status_fd_(status_fd), guarantees_(std::move(guarantees)) {}
  int pid_ = -1;
  int status_fd_ = -1;
  std::string ended_;
  std::vector<Guarantee> guarantees_;
};

/// "no network (network namespace, seccomp); no keys (…)": a line for logs and `doctor`.
std::string summary(const std::vector<Guarantee>& guarantees);

}  // namespace cloister::participant

#pragma once
// Inside the sandbox: what the parent prepares before the fork, so that the child only makes system calls.

#include <linux/filter.h>
#include <string>
#include <sys/types.h>
#include <vector>

#include "participant/sandbox.hpp"

namespace cloister::participant::sandbox {

/// A file or folder of the child's view.
struct Shown {
  std::string source;
  std::string target;  ///< absolute, in the view
  bool folder = false;
  bool device = false;
  bool optional = false;  ///< left out where the kernel refuses to show it
};

struct Plan {
  std::string program;  ///< its path in the view
  int program_fd = -1;  ///< sealed memory with the checked bytes
  std::uint64_t program_size = 0;
  bool script = false;  ///< needs a path to be executed: only with the private view
  std::vector<Shown> shown;
  std::vector<std::string> arguments;  ///< with argv[0]
  std::vector<GivenDescriptor> descriptors;
  int null_fd = -1;
  int error_fd = -1;
  std::vector<sock_filter> filter;
  SandboxLimits limits;
  unsigned leave_out = 0;
  bool others_may_read =
      true;  ///< every shown file can be read by any user, so that one may be chosen without the view
  pid_t parent = -1;
  int report = -1;  ///< child writes "layer=0\n", "layer=<errno>:<step>\n" or "fatal=<errno>:<step>\n"
  int gate = -1;    ///< child reads one byte before it executes the program
  int status = -1;  ///< wait status of the program, as an int
};

/// The libraries, interpreter and devices that `program` needs, and `readable`.
Result<std::vector<Shown>> files_for(const std::string& program, View bytes, const std::vector<std::string>& readable);

/// The seccomp program (seccomp_filter.cpp says what it denies and why).
Result<std::vector<sock_filter>> make_filter();

/// Runs in the forked child: applies the layers and executes the program. Holds a copy of the node's memory, keys
/// included, until then, so nothing in between can be inspected or run.
[[noreturn]] void run_child(Plan& plan) noexcept;

}  // namespace cloister::participant::sandbox

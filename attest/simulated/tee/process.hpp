#pragma once
// Starts a guest from the very bytes that were measured, and serves its requests until it ends.

#include <optional>
#include <string>
#include <vector>

#include "attest/simulated/tee/answer.hpp"

namespace cloister::attest::simulated::tee {

struct GuestOptions {
  std::string path;
  std::vector<std::string> arguments;  ///< fixed and measured; the guest's argv[0] is "guest"
  Array<32> host_data{};
  Bytes document;
  std::optional<std::uint64_t> memory;  ///< bytes of address space (RLIMIT_AS); absent: no limit
};

/// Runs the guest to its end. Its standard output and error are this process's; its environment is empty; it has
/// descriptors 0 (/dev/null), 1, 2 and 3 only; it dies with this process. SIGTERM and SIGINT are passed on. Gives its
/// exit status, or 128 + the signal that ended it. Errors: unavailable (the system), unsupported (no ELF program),
/// malformed (too large). Single-threaded programs only: it forks, and it blocks signals of the calling thread.
Result<int> run(const Platform& platform, const GuestOptions& options);

}  // namespace cloister::attest::simulated::tee

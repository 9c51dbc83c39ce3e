#include "base/process.hpp"

#include <cerrno>
#include <cstring>
#include <sys/prctl.h>
#include <sys/resource.h>

namespace cloister::base {

Result<void> forbid_core_dumps() {
  const rlimit none{0, 0};
  const bool limited = ::setrlimit(RLIMIT_CORE, &none) == 0;
#if defined(__SANITIZE_ADDRESS__)  // the leak check at exit traces its own process
  const bool hidden = true;
#else
  const bool hidden = ::prctl(PR_SET_DUMPABLE, 0) == 0;
#endif
  if (limited && hidden) return {};
  return unavailable("process", std::string("cannot forbid core dumps: ") + std::strerror(errno));
}

}  // namespace cloister::base

#pragma once
// What a process that holds keys or data asks of the kernel for itself.

#include "base/result.hpp"

namespace cloister::base {

/// From now on a crash writes this process's memory nowhere, neither to a file nor to a handler of the system (which
/// RLIMIT_CORE alone does not stop, core(5)), and no other process of the same user may look into it. Inherited over
/// fork; over exec only the limit is. Error unavailable: the kernel refuses.
Result<void> forbid_core_dumps();

}  // namespace cloister::base

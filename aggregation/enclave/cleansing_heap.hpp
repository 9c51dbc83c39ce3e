#pragma once
// What the aggregator frees it also erases: a slot, a frame's payload, a sum that was divided, OpenSSL's record
// buffers. So a single update is in this process's memory only as long as the round needs it, whoever forgets to clear
// it.
//
// Replaces operator delete of the whole program (libstdc++'s operator new takes from malloc) and OpenSSL's allocator.

namespace cloister::enclave {

/// Call first thing in main. False: OpenSSL has memory already that it would free without erasing it.
[[nodiscard]] bool cleanse_freed_memory();

}  // namespace cloister::enclave

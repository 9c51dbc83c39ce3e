#pragma once
// The two sides that the channel's bench compares: plain OpenSSL, and the attested channel, on the same loopback with
// the same suite and the same kinds of keys, each end in a thread of its own.

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <memory>

#include "base/bytes.hpp"

namespace cloister::bench {

inline constexpr std::size_t chunk = 1 << 20;
enum class Way { up, down };  ///< from the dialling end to the listening one, or back

class Side {
 public:
  virtual ~Side() = default;
  /// One connection that carries `chunks` MiB; done when the receiver has said so.
  virtual void stream(Way way, std::size_t chunks) = 0;
  /// So many connections, `at_once` of them at a time, each with a message each way: both ends know that both are done.
  virtual void connections(std::size_t count, std::size_t at_once) = 0;
};

/// Blocking, both ends with self-made Ed25519 certificates, no protocol above; a thread per end and connection.
std::unique_ptr<Side> plain_tls();

/// Simulated evidence that is signed and verified, a grant of a founded charter that is checked, a hospital's policy
/// that judges: all that a node does when it connects. A single-threaded io_context per end.
std::unique_ptr<Side> attested();

/// Resident bytes that `count` idle attested connections cost the process of their server, which waits on each.
std::size_t idle_memory(std::size_t count);

void must(bool ok, const char* what);

}  // namespace cloister::bench

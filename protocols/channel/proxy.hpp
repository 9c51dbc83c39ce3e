#pragma once
// Dialling out: straight, or through an HTTP CONNECT proxy (RFC 9110 section 9.3.6).

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <string>
#include <string_view>

#include "base/deadline.hpp"
#include "base/result.hpp"

namespace cloister::protocols::channel {

/// Where to dial, and through which HTTP CONNECT proxy ("host:port", empty for none).
struct Endpoint {
  std::string host;
  std::uint16_t port = 0;
  std::string proxy;

  std::string text() const;  ///< "aggregator.example:8443", for messages
};

/// An open TCP connection to `to`. Throws unavailable (nobody answers, the proxy says no), malformed (not a proxy),
/// always naming host, port and proxy.
boost::asio::awaitable<boost::asio::ip::tcp::socket> dial(Endpoint to, Deadline deadline);

/// What a proxy's answer to CONNECT means: nothing for 2xx, else why not. `head`: status line and fields up to the
/// empty line.
Result<void> judge_connect_answer(std::string_view head, const Endpoint& to);

}  // namespace cloister::protocols::channel

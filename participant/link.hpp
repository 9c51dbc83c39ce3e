#pragma once
// Keeps the node connected: dials the enclave, again and again with growing pauses while nobody answers, slowly after a
// refusal; reads frames into the inbox; asks for fresh evidence at the interval that the policy names, between rounds.
// A link on which nothing moves is asked for a sign of life, and given up when none comes: a VPN that dropped, or a
// proxy that forgot us, says nothing by itself.

#include <chrono>
#include <functional>
#include <memory>
#include <optional>

#include "participant/inbox.hpp"

namespace cloister::participant {

struct LinkOptions {
  protocols::channel::Endpoint to;
  base::PrivateKey tls;
  protocols::channel::EnclaveExpectation expected;
  std::optional<attest::Attester> attester;
  std::chrono::milliseconds deadline{};                             ///< of a dial with all its handshakes
  std::chrono::milliseconds renew{};                                ///< evidence older than this is asked for again
  std::chrono::milliseconds first_pause{200}, longest_pause{5000};  ///< while nobody answers
  std::chrono::milliseconds refused_pause{10000};                   ///< after a policy said no
};

/// The next pause: doubled up to `longest`, then a random part of its upper half, so that many hospitals do not dial as
/// one.
std::chrono::milliseconds with_jitter(std::chrono::milliseconds pause);

class Link {
 public:
  Link(boost::asio::any_io_executor executor, LinkOptions options, Inbox& inbox, std::shared_ptr<base::Log> log);

  /// Until stop(). Never throws what a peer did: that becomes Closed.
  boost::asio::awaitable<void> run();
  void stop() noexcept;
  /// The owner of the inbox says whether a round is under way; evidence is renewed between rounds only.
  void set_idle(bool idle) { idle_ = idle; }

 private:
  boost::asio::awaitable<void> serve();
  boost::asio::awaitable<void> read(protocols::channel::Connection& connection);
  /// Beside read(): throws unavailable when the link is dead.
  boost::asio::awaitable<void> feel_pulse(protocols::channel::Connection& connection);
  boost::asio::awaitable<void> renew(protocols::channel::Connection& connection);
  boost::asio::awaitable<void> pause(std::chrono::milliseconds length);
  void report(std::string reason, bool refused);

  LinkOptions options_;
  Inbox& inbox_;
  std::shared_ptr<base::Log> log_;
  boost::asio::steady_timer timer_, pulse_;
  protocols::channel::ConnectionPtr connection_;
  std::chrono::milliseconds next_pause_{};
  base::Deadline renew_at_{};
  std::string last_reason_;
  bool idle_ = true;
  bool inbox_full_ = false;  ///< nothing is read because of us, not because of the link
  bool stopped_ = false;
};

}  // namespace cloister::participant

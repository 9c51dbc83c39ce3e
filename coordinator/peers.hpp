#pragma once
// The two whom the coordinator dials.

#include "attest/charter.hpp"
#include "protocols/channel/channel.hpp"

namespace cloister::coordinator {

namespace channel = protocols::channel;
namespace messages = protocols::messages;
using channel::awaitable;

/// Gives open connections. Throws cloister::Exception: denied and untrusted mean that asking again will not help,
/// unavailable that it may.
class Peers {
 public:
  virtual ~Peers() = default;
  virtual awaitable<channel::ConnectionPtr> launcher(const attest::Charter& charter, channel::Deadline deadline) = 0;
  /// Judged by the model owner's policy; its record() is the instance's.
  virtual awaitable<channel::ConnectionPtr> enclave(const attest::Charter& charter, channel::Deadline deadline) = 0;
  /// Grant and evidence again, judged anew, on an open connection that nobody receives from meanwhile; what comes in
  /// between is kept for its next receive.
  virtual awaitable<void> attest_again(const attest::Charter& charter, channel::ConnectionPtr connection,
                                       channel::Deadline deadline) = 0;
};

/// Over the network: the launcher by its pinned key, the enclave through grant, evidence and policy.
class NetworkPeers : public Peers {
 public:
  /// `proxy`: "host:port" of an HTTP CONNECT proxy, or empty.
  NetworkPeers(base::PrivateKey tls, std::string proxy, std::shared_ptr<base::Log> log)
      : tls_(std::move(tls)), proxy_(std::move(proxy)), log_(std::move(log)) {}
  awaitable<channel::ConnectionPtr> launcher(const attest::Charter& charter, channel::Deadline deadline) override;
  awaitable<channel::ConnectionPtr> enclave(const attest::Charter& charter, channel::Deadline deadline) override;
  awaitable<void> attest_again(const attest::Charter& charter, channel::ConnectionPtr connection,
                               channel::Deadline deadline) override;

 private:
  base::PrivateKey tls_;
  std::string proxy_;
  std::shared_ptr<base::Log> log_;
};

}  // namespace cloister::coordinator

#pragma once
// TLS 1.3 connections whose ends are known: by keys pinned in the charter, or by attestation after the handshake
// (docs/formats.md, "Channel"; RFC 9261; draft-fossati-seat-expat). One connection per peer. Connections live on one strand
// (or single-threaded io_context); nothing here is thread-safe. Failures throw cloister::Exception whose Error says who refused
// and why; a refusal that the peer sent arrives as Error::Kind::denied with the peer's findings in `what`.

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "attest/decision.hpp"
#include "attest/evidence.hpp"
#include "base/crypto.hpp"
#include "base/log.hpp"
#include "protocols/channel/frame.hpp"

namespace cloister::protocols::channel {

template <class T>
using awaitable = boost::asio::awaitable<T>;
using boost::asio::ip::tcp;

/// An open connection: frames in order, both ways. One coroutine may receive while another sends; two senders queue.
class Connection {
 public:
  virtual ~Connection() = default;

  virtual awaitable<void> send(MessageType type, const google::protobuf::MessageLite& message) = 0;
  /// One or more DATA frames; `bytes` must live until it returns.
  virtual awaitable<void> send_data(View bytes) = 0;
  /// The next frame; Error unavailable when the peer closed, malformed when it broke the framing.
  virtual awaitable<Frame> receive() = 0;
  virtual void close() noexcept = 0;

  virtual const base::PublicKey& peer_key() const = 0;  ///< proven by the TLS handshake
  virtual const std::string& peer_owner() const = 0;    ///< the charter's owner with that key; "aggregator" for an enclave
  virtual const std::optional<attest::Claims>& peer_claims() const = 0;  ///< when it proved some
  virtual const Bytes& record() const = 0;              ///< the instance record in force on this connection; empty on pinned links
  virtual std::uint64_t bytes_sent() const = 0;
  virtual std::uint64_t bytes_received() const = 0;
};

using ConnectionPtr = std::shared_ptr<Connection>;
using Deadline = std::chrono::steady_clock::time_point;

/// Where to dial, and through which HTTP CONNECT proxy ("host:port", empty for none).
struct Endpoint {
  std::string host;
  std::uint16_t port = 0;
  std::string proxy;
};

/// A client's judgement of an enclave, made from the charter by the caller.
struct EnclaveExpectation {
  base::Sha256 charter{};
  /// Grant (serialized) and record (serialized) to the grant's platform identity, or why not: the charter's grant key, record
  /// digest, not_after on this owner's clock, platforms that the compute owner's policy lists (protocols/launch).
  std::function<Result<Bytes>(View grant, View record)> check_grant;
  /// The record's TLS key (protocols/launch).
  std::function<Result<base::PublicKey>(View record)> tls_key;
  /// This owner's decision over the verified claims (report data and platform are checked by the channel).
  std::function<attest::Decision(const attest::Claims&)> judge;
};

/// Participant, coordinator: dial the enclave, grant check, evidence after the handshake, judge; then prove this side when the
/// enclave asks and `attester` is set. Returns when the enclave said Ready.
awaitable<ConnectionPtr> connect_enclave(Endpoint to, base::PrivateKey own_tls, EnclaveExpectation expected,
                                         std::optional<attest::Attester> attester, Deadline deadline, std::shared_ptr<base::Log> log);

/// Evidence again, on an open connection (the interval that the policy names). Throws like connect_enclave; only between rounds.
awaitable<void> attest_again(Connection& connection, const EnclaveExpectation& expected, Deadline deadline);

/// A link between two keys pinned in the charter (or a submitter's in the model owner's policy): coordinator to launcher,
/// submitter to coordinator. `server`: the only key that may answer. Empty: whoever answers, key in peer_key() (the launcher
/// towards a new instance, which it then judges by its instance evidence).
awaitable<ConnectionPtr> connect_pinned(Endpoint to, base::PrivateKey own_tls, std::optional<base::PublicKey> server, Deadline deadline);

/// Whose key is it? An owner's name, or nothing for a stranger, who is refused in the handshake.
using Known = std::function<std::optional<std::string>(const base::PublicKey&)>;

/// Server side of a pinned link; strangers are refused in the handshake and logged as a refusal.
awaitable<ConnectionPtr> accept_pinned(tcp::socket socket, base::PrivateKey own_tls, Known known, Deadline deadline, std::shared_ptr<base::Log> log);

/// What the enclave shows and asks on every connection that is not the launcher's.
struct EnclaveIdentity {
  base::PrivateKey tls;
  base::Sha256 charter{};
  Bytes record;
  std::function<Bytes()> grant;    ///< the one in force; empty when there is none: the peer is told to try again
  attest::Attester attester;
  Bytes dice_evidence;             ///< for the certificate's DICE extension; never authorises
  Known known;
  std::string launcher_owner;      ///< whose link is returned right after TLS, without Hello
  /// Must this peer prove itself, and is it allowed? Claims null: it proved nothing. Called for participants and the coordinator.
  std::function<bool(const std::string& owner)> wants_evidence;
  std::function<attest::Decision(const std::string& owner, const attest::Claims* claims)> judge_peer;
};

/// The enclave's side of connect_enclave. Also answers attest_again requests inside receive().
awaitable<ConnectionPtr> accept_enclave(tcp::socket socket, const EnclaveIdentity& identity, Deadline deadline, std::shared_ptr<base::Log> log);

/// Tells the peer why and closes; never throws. The peer's call fails with Error::Kind::denied and these findings.
awaitable<void> refuse(ConnectionPtr connection, attest::Decision decision, std::string reason, bool retry = false);

/// Parses a message of a frame; Error malformed names the type.
template <class Message>
Message parse(const Frame& frame) {
  Message m;
  if (!m.ParseFromArray(frame.payload.data(), static_cast<int>(frame.payload.size())))
    throw Exception(base::malformed("message", "frame of type " + std::to_string(frame.type) + " does not parse"));
  return m;
}

}  // namespace cloister::protocols::channel

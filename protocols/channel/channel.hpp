#pragma once
// TLS 1.3 connections whose ends are known: by keys pinned in the charter, or by attestation after the handshake
// (docs/formats.md, "Channel"; RFC 9261; draft-fossati-seat-expat). One connection per peer. Connections live on one
// strand (or single-threaded io_context); nothing here is thread-safe. Failures throw cloister::Exception whose Error
// says who failed and why. A denial, by this side's owner or by the peer, is the subclass Refused (refused.hpp), which
// carries the findings.
//
//   party (client)                                                      enclave (server)
//     TLS 1.3, both keys proven  <------------------------------------->  strangers end here
//                                AuthenticatorRequest ---------------->
//                                <-------------------------------------  Hello{charter, record, grant}
//     checks grant and record    <-------------------------------------  Authenticator{evidence}
//     verifies, judges           Accepted ---------------------------->
//                                <-------------------------------------  AuthenticatorRequest   (if the party must
//                                prove itself) Authenticator{evidence} ------------->  verifies, judges
//                                <-------------------------------------  Ready
//     either side at any time: Refusal{findings, reason, retry}, then close

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "attest/decision.hpp"
#include "attest/evidence.hpp"
#include "base/crypto.hpp"
#include "base/deadline.hpp"
#include "base/log.hpp"
#include "protocols/channel/credentials.hpp"
#include "protocols/channel/frame.hpp"
#include "protocols/channel/proxy.hpp"
#include "protocols/channel/refused.hpp"

namespace cloister::protocols::channel {

template <class T>
using awaitable = boost::asio::awaitable<T>;
using boost::asio::ip::tcp;

/// An open connection: frames in order, both ways. One coroutine may receive while others send. A receive that was
/// cancelled (a deadline) loses nothing: the next one goes on where it was. Destruction closes.
class Connection {
 public:
  virtual ~Connection() = default;

  /// Serialized when called, encrypted and sent when awaited. Throws malformed when it is larger than its type's cap,
  /// unavailable when the peer has gone, Refused when it said why.
  virtual awaitable<void> send(MessageType type, const google::protobuf::MessageLite& message) = 0;
  /// One or more DATA frames; `bytes` must live until it returns.
  virtual awaitable<void> send_data(View bytes) = 0;
  /// The next frame. Throws unavailable when the peer closed or was cut, malformed or unsupported when it broke the
  /// framing, Refused when it said why it goes. Requests for evidence are answered inside and not shown.
  virtual awaitable<Frame> receive() = 0;
  /// The same, reusing the memory of `into` (a stream of data frames then allocates twice and no more).
  virtual awaitable<void> receive(Frame& into) = 0;
  /// Data straight into the caller's memory: fills `into` from position `have` on with the payload of the data frames
  /// that come, however they are cut, and moves `have` along as bytes arrive. True when `into` is full; false when a
  /// frame of another type comes first, which the next receive() gives. Throws as receive(). Cancelled, `have` says how
  /// much has arrived, and the next call (of either kind) goes on there. `into` and `have` live until it returns.
  virtual awaitable<bool> receive_data(std::span<std::uint8_t> into, std::size_t& have) = 0;
  /// At once, with a goodbye to the peer; a waiting receive or send ends with unavailable.
  virtual void close() noexcept = 0;

  virtual const base::PublicKey& peer_key() const = 0;  ///< proven by the TLS handshake
  virtual const std::string& peer_owner()
      const = 0;  ///< the charter's owner with that key; "aggregator" for an enclave
  virtual const std::optional<attest::Claims>& peer_claims() const = 0;  ///< when it proved some
  virtual const Bytes& record() const = 0;  ///< the instance record in force on this connection; empty on pinned links
  virtual std::uint64_t bytes_sent() const = 0;
  virtual std::uint64_t bytes_received() const = 0;
  /// From now on a LaunchRequest may be as large as a charter: only for a peer that may ask for launches.
  virtual void await_launches() {}
  /// Of bytes_sent(): what the other end's system has not confirmed yet, so that it may be lost with the connection.
  virtual std::uint64_t bytes_unconfirmed() const { return 0; }
};

using ConnectionPtr = std::shared_ptr<Connection>;
using base::Deadline;

/// Bytes to claims, as attest::verify_evidence; tests put their own kind here.
using VerifyEvidence = std::function<Result<attest::Claims>(View evidence, Time at)>;

/// A client's judgement of an enclave, made from the charter by the caller.
struct EnclaveExpectation {
  base::Sha256 charter{};
  /// Grant (serialized) and record (serialized) to the grant's platform identity as policies list it
  /// ("simulated:4f2a…"), or why not: the charter's grant key,
  /// record digest, not_after on this owner's clock, platforms that the compute owner's policy lists
  /// (protocols/launch).
  std::function<Result<Bytes>(View grant, View record)> check_grant;
  /// The record's TLS key (protocols/launch).
  std::function<Result<base::PublicKey>(View record)> tls_key;
  /// This owner's decision over the verified claims (report data and platform are checked by the channel).
  std::function<attest::Decision(const attest::Claims&)> judge;
  VerifyEvidence verify = attest::verify_evidence;
};

/// Participant, coordinator: dial the enclave, grant check, evidence after the handshake, judge; then prove this side
/// when the enclave asks and `attester` is set (an enclave that asks and gets none says who demands it). Returns when
/// the enclave said Ready. What this side refuses is logged as "refusal", told to the enclave and thrown as Refused.
/// `log` may be null.
awaitable<ConnectionPtr> connect_enclave(Endpoint to, Credentials own_tls, EnclaveExpectation expected,
                                         std::optional<attest::Attester> attester, Deadline deadline,
                                         std::shared_ptr<base::Log> log);

/// Grant and evidence again, on an open connection of connect_enclave (the interval that the policy names). Throws like
/// connect_enclave. Nobody else receives meanwhile; frames that come in between are kept for the next receive().
awaitable<void> attest_again(Connection& connection, const EnclaveExpectation& expected, Deadline deadline);

/// A link between two keys pinned in the charter (or a submitter's in the model owner's policy): coordinator to
/// launcher, submitter to coordinator. `server`: the only key that may answer. Empty: whoever answers, key in
/// peer_key() (the launcher towards a new instance, which it then judges by its instance evidence). Returns once the
/// server has accepted this side's key.
awaitable<ConnectionPtr> connect_pinned(Endpoint to, Credentials own_tls, std::optional<base::PublicKey> server,
                                        Deadline deadline);

/// Whose key is it? An owner's name, or nothing for a stranger, who is refused in the handshake.
using Known = std::function<std::optional<std::string>(const base::PublicKey&)>;

/// Server side of a pinned link; strangers are refused in the handshake and logged as a refusal.
awaitable<ConnectionPtr> accept_pinned(tcp::socket socket, Credentials own_tls, Known known, Deadline deadline,
                                       std::shared_ptr<base::Log> log);

/// What the enclave shows and asks on every connection that is not the launcher's.
struct EnclaveIdentity {
  Credentials tls;
  base::Sha256 charter{};
  Bytes record;
  std::function<Bytes()> grant;  ///< the one in force; empty when there is none: the peer is told to try again
  attest::Attester attester;
  Bytes dice_evidence;  ///< instance evidence (report data of the record) for the certificate's DICE extension, or
                        ///< empty: a pre-check that can refuse and never authorises
  Known known;
  std::string launcher_owner;  ///< whose link is returned right after TLS, without Hello
  /// Must this peer prove itself, and is it allowed? Claims null: it proved nothing. Called for participants and the
  /// coordinator.
  std::function<bool(const std::string& owner)> wants_evidence;
  std::function<attest::Decision(const std::string& owner, const attest::Claims* claims)> judge_peer;
  VerifyEvidence verify = attest::verify_evidence;
  std::string software = "cloister-aggregator";  ///< name and version, for the peers' logs
};

/// The enclave's side of connect_enclave. The connection answers attest_again inside receive().
/// Throws Refused when either side said no, after the other was told and the refusal logged. `log` may be null.
awaitable<ConnectionPtr> accept_enclave(tcp::socket socket, std::shared_ptr<const EnclaveIdentity> identity,
                                        Deadline deadline, std::shared_ptr<base::Log> log);
/// The same, for one connection: many share one identity.
inline awaitable<ConnectionPtr> accept_enclave(tcp::socket socket, EnclaveIdentity identity, Deadline deadline,
                                               std::shared_ptr<base::Log> log) {
  return accept_enclave(std::move(socket), std::make_shared<const EnclaveIdentity>(std::move(identity)), deadline,
                        std::move(log));
}

/// Tells the peer why and closes; never throws. The peer's call fails with Error::Kind::denied and these findings.
awaitable<void> refuse(ConnectionPtr connection, attest::Decision decision, std::string reason, bool retry = false);

/// Parses a message of a frame; Error malformed names the type.
template <class Message>
Message parse(const Frame& frame) {
  Message m;
  if (!m.ParseFromArray(frame.payload.data(), static_cast<int>(frame.payload.size())))
    throw Exception(base::malformed("message", MessageType_Name(frame.type) + " does not parse"));
  return m;
}

}  // namespace cloister::protocols::channel

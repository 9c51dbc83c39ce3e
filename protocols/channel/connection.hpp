#pragma once
// Frames over one TLS connection, and what the channel itself says in them. Not for other modules: they see
// channel.hpp.

#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "protocols/channel/authenticator.hpp"
#include "protocols/channel/channel.hpp"
#include "protocols/channel/tls.hpp"

namespace cloister::protocols::channel {

class FramedConnection final : public Connection, public std::enable_shared_from_this<FramedConnection> {
 public:
  FramedConnection(std::unique_ptr<Tls> tls, Tls::Role role, std::string owner);

  awaitable<void> send(MessageType type, const google::protobuf::MessageLite& message) override;
  awaitable<void> send_data(View bytes) override;
  awaitable<Frame> receive() override;
  awaitable<void> receive(Frame& into) override;
  awaitable<bool> receive_data(std::span<std::uint8_t> into, std::size_t& have) override;
  void close() noexcept override { tls_->close(); }

  const base::PublicKey& peer_key() const override { return tls_->peer_key(); }
  const std::string& peer_owner() const override { return owner_; }
  const std::optional<attest::Claims>& peer_claims() const override { return claims_; }
  const Bytes& record() const override { return record_; }
  std::uint64_t bytes_sent() const override { return tls_->bytes_sent(); }
  std::uint64_t bytes_received() const override { return tls_->bytes_received(); }
  std::uint64_t bytes_unconfirmed() const override { return tls_->bytes_unconfirmed(); }

  void await_launches() override { launches_ = true; }

  Tls& tls() { return *tls_; }
  const base::Sha256& peer_certificate() const { return tls_->peer_certificate(); }
  const std::string& name() const { return tls_->name(); }
  /// The next frame as it came, but a Refusal throws. Cancelled, it goes on where it was.
  awaitable<void> receive_raw(Frame& into);
  /// receive_raw, and the frame is of `type` and parses, or it throws malformed.
  template <class Message>
  awaitable<Message> expect(MessageType type, Deadline deadline, std::string what);
  /// A frame that came while another was awaited: the next receive() gives it.
  void keep(Frame frame);

  AuthenticatorKeys authenticator_keys(Prover prover) const;
  Array<64> report_data(Prover prover, bool own, const RequestContext& context) const;
  /// Answers the peer's request with evidence, or with an empty authenticator when `attester` is null.
  /// Throws malformed, untrusted (a context used before), unavailable (no evidence to be had).
  Bytes answer_request(Prover prover, View request, const attest::Attester* attester);

  void set_claims(attest::Claims claims) { claims_ = std::move(claims); }
  /// Where this side's later refusals go (attest_again); may be null.
  void log_to(std::shared_ptr<base::Log> log) { log_ = std::move(log); }
  const std::shared_ptr<base::Log>& log() const { return log_; }
  void set_record(Bytes record) { record_ = std::move(record); }
  /// The enclave's end answers later requests for evidence inside receive().
  void answer_from(std::shared_ptr<const EnclaveIdentity> identity) { identity_ = std::move(identity); }

 private:
  awaitable<void> fill(std::span<std::uint8_t> into, std::size_t& have, bool inside_frame);
  awaitable<void> receive_header();
  std::size_t take_kept(std::span<std::uint8_t> into);
  std::size_t take_received(std::span<std::uint8_t> into);
  awaitable<bool> handled_inside(const Frame& frame);
  awaitable<void> answer_again(View request);
  awaitable<void> write(View head, View body);
  awaitable<void> send_bytes(MessageType type, Bytes payload);

  std::unique_ptr<Tls> tls_;
  Tls::Role role_;
  std::string owner_;
  std::shared_ptr<base::Log> log_;
  Bytes record_;
  std::optional<attest::Claims> claims_;
  std::shared_ptr<const EnclaveIdentity> identity_;
  bool awaits_accepted_ = false;  // evidence went out; the next Accepted belongs to it
  std::set<RequestContext> used_contexts_;

  // The frame being received; it survives a cancelled receive. header_->length counts what nobody has been given yet.
  Array<header_size> head_{};
  std::size_t head_have_ = 0;
  std::optional<Header> header_;
  Bytes payload_;
  std::size_t payload_have_ = 0;
  bool receiving_ = false;
  bool launches_ = false;
  std::deque<Frame> kept_;
  std::size_t kept_bytes_ = 0;
};

/// A peer's words for a log or a terminal: no control characters, at most 2 KiB.
std::string tame(const std::string& text);

/// The wire form of a denial, and back. What a peer says is cut to sane lengths and printable text.
messages::Refusal refusal_message(const attest::Decision& decision, const std::string& reason, bool retry);
Refused refused_by_peer(const Frame& frame, const std::string& peer);

/// A finding of the channel itself, about what all have signed.
attest::Finding unmet(std::string requirement, std::string wanted, std::string found, std::string remedy);
attest::Decision denial(attest::Finding finding);

/// Tells the peer, logs, and throws Refused.
awaitable<void> refuse_and_throw(std::shared_ptr<FramedConnection> connection, attest::Decision decision,
                                 std::string reason, bool retry, std::shared_ptr<base::Log> log);

std::string type_text(MessageType type);

/// The server's half of the handshake: a stranger is refused in it, and the refusal logged.
awaitable<std::shared_ptr<FramedConnection>> accept_tls(tcp::socket socket, const Credentials& own, View dice,
                                                        const Known& known, Deadline deadline,
                                                        std::shared_ptr<base::Log> log);

template <class Message>
awaitable<Message> FramedConnection::expect(MessageType type, Deadline deadline, std::string what) {
  Frame frame;
  co_await with_deadline(receive_raw(frame), deadline, name() + ": " + what);
  if (frame.type != type)
    throw Exception(base::malformed(name(), "got " + type_text(frame.type) + " while waiting for " + what));
  co_return parse<Message>(frame);
}

}  // namespace cloister::protocols::channel

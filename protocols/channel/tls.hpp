#pragma once
// One TLS 1.3 connection over one TCP socket: OpenSSL on the socket itself, woken by Asio. Records are read ahead and
// written behind (many per system call); whole frames are encrypted at once, so that a cancelled write never tears a
// record. One coroutine may read while others write; all on one strand.

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "attest/decision.hpp"
#include "base/crypto.hpp"
#include "protocols/channel/certificate.hpp"
#include "protocols/channel/credentials.hpp"
#include "protocols/channel/refused.hpp"

typedef struct ssl_st SSL;

namespace cloister::protocols::channel {

/// Decides on the key that the peer's certificate proves: what is not met refuses the handshake.
using JudgeKey = std::function<attest::Decision(const base::PublicKey&)>;

class Tls {
 public:
  enum class Role { client, server };

  /// `name`: the peer, for messages. `dice`: value of the DICE extension of this side's certificate, or empty.
  Tls(boost::asio::ip::tcp::socket socket, Role role, const Credentials& own, View dice, JudgeKey judge,
      std::string name);
  ~Tls();
  Tls(const Tls&) = delete;
  Tls& operator=(const Tls&) = delete;

  /// Throws Refused when `judge` said no; untrusted (a proxy's certificate), unsupported (not TLS 1.3, not our
  /// protocol), unavailable (cut). The peer gets a TLS alert, and time to read it.
  boost::asio::awaitable<void> handshake();
  /// Fills `into` from position `have` on and moves `have` along as bytes come; cancelled, it says how much has come.
  /// `idle`: nothing may come for long, so the read buffer is given back while this waits. Throws unavailable when the
  /// peer closed or the connection was cut.
  boost::asio::awaitable<void> read(std::span<std::uint8_t> into, std::size_t& have, bool idle);
  /// Encrypts head and body as one unit behind what others queued; back when the socket took all of it. Cancelled in
  /// between, the rest goes out with the next write. Throws unavailable.
  boost::asio::awaitable<void> write(View head, View body = {});
  /// Says goodbye and reads what is left until the peer has closed too or `at_most` has passed: the peer can then read
  /// what was sent last, which a plain close may destroy. Never throws.
  boost::asio::awaitable<void> linger(std::chrono::milliseconds at_most);
  void close() noexcept;

  const base::PublicKey& peer_key() const { return peer_.key; }
  const Bytes& peer_dice() const { return peer_.dice; }
  /// Of the peer's certificate, which the handshake has verified.
  const base::Sha256& peer_certificate() const { return peer_.digest; }
  const base::PublicKey& own_key() const { return own_.public_key(); }
  const base::PrivateKey& own_private_key() const { return own_.key(); }
  const Bytes& own_certificate() const { return own_certificate_->der; }
  /// RFC 8446 section 7.5 with this connection's exporter secret; the context is empty when it is not given.
  Bytes exporter(std::string_view label, View context, std::size_t length) const;
  /// The suite's hash as OpenSSL names it: "SHA256", "SHA384".
  const char* hash() const;
  std::size_t hash_size() const;
  const std::string& name() const { return name_; }
  std::uint64_t bytes_sent() const { return sent_; }
  std::uint64_t bytes_received() const { return received_; }
  std::uint64_t bytes_unconfirmed() const;  ///< sent, and not acknowledged by the peer's TCP

 private:
  friend struct OpenSsl;  // its callbacks
  std::exception_ptr failure(int result, std::string_view doing);
  Error alert(int number) const;
  Error not_tls() const;
  void encrypt(View bytes);
  void forget_handshake();
  boost::asio::awaitable<void> flush();
  boost::asio::awaitable<void> wait(boost::asio::ip::tcp::socket::wait_type what);
  boost::asio::awaitable<void> goodbye();

  boost::asio::ip::tcp::socket socket_;
  Role role_;
  JudgeKey judge_;
  std::string name_;
  SSL* ssl_ = nullptr;
  Credentials own_;
  std::shared_ptr<const OwnCertificate> own_certificate_;
  PeerCertificate peer_;
  std::optional<attest::Decision> refused_;  // by judge_, in the handshake
  std::optional<Error> bad_certificate_;
  Bytes out_;  // encrypted; the first flushed_ bytes of it are with the socket
  std::size_t flushed_ = 0;
  std::uint64_t queued_ = 0;  // all bytes ever put into out_; sent_ of them are with the socket
  Bytes first_;               // the peer's first bytes, to name what it speaks
  std::string other_version_;  // "cloister/2": of this protocol, and none that this side speaks
  bool eof_ = false, closed_ = false;
  int system_error_ = 0;  // of the last failed recv
  std::uint64_t sent_ = 0, received_ = 0;
  std::uint64_t since_update_ = 0;  // bytes encrypted under the present key
  std::size_t since_yield_ = 0;     // bytes read without letting others run
};

}  // namespace cloister::protocols::channel

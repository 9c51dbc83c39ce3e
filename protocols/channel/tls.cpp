#include "protocols/channel/tls.hpp"

#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/system/system_error.hpp>
#include <cstring>
#include <fmt/format.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/deadline.hpp"

namespace cloister::protocols::channel {

namespace asio = boost::asio;
using asio::awaitable;
using asio::ip::tcp;

namespace {

constexpr unsigned char alpn[] =
    "\x0a"
    "cloister/1";
constexpr View alpn_list{alpn, sizeof alpn - 1};
constexpr std::size_t record_size = 16 << 10;        // RFC 8446 section 5.1
constexpr std::size_t read_ahead = 128 << 10;        // several records per system call
constexpr std::size_t keep_buffer = 1 << 20;         // a larger write buffer is given back once it is empty
constexpr int unsent_at_most = 512 << 10;            // bytes that wait in the system's socket
constexpr std::uint64_t update_after = 64ULL << 30;  // RFC 8446 section 5.5 allows about 380 GiB per AES-GCM key
constexpr std::chrono::milliseconds alert_linger{2000};

void must(bool ok) {
  if (!ok) std::abort();  // setting up OpenSSL with constants fails only without memory
}

}  // namespace

/// What OpenSSL calls back, and the two sets of settings that never change.
struct OpenSsl {
  static Tls& of(BIO* bio) { return *static_cast<Tls*>(BIO_get_data(bio)); }
  static Tls& of(const SSL* ssl) { return *static_cast<Tls*>(SSL_get_app_data(ssl)); }

  static int read(BIO* bio, char* out, int n) {
    Tls& t = of(bio);
    BIO_clear_retry_flags(bio);
    const auto got = ::recv(t.socket_.native_handle(), out, static_cast<std::size_t>(n), MSG_DONTWAIT);
    if (got > 0) {
      t.received_ += static_cast<std::uint64_t>(got);
      const auto room =
          std::min<std::size_t>(8 - std::min<std::size_t>(8, t.first_.size()), static_cast<std::size_t>(got));
      t.first_.insert(t.first_.end(), out, out + room);
      return static_cast<int>(got);
    }
    if (got == 0) t.eof_ = true;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
      BIO_set_retry_read(bio);
    else if (got < 0)
      t.system_error_ = errno;
    return got == 0 ? 0 : -1;
  }
  static int write(BIO* bio, const char* bytes, int n) {
    Tls& t = of(bio);
    BIO_clear_retry_flags(bio);
    const View sealed{reinterpret_cast<const std::uint8_t*>(bytes), static_cast<std::size_t>(n)};
    t.out_.insert(t.out_.end(), sealed.begin(), sealed.end());
    t.queued_ += static_cast<std::uint64_t>(n);
    return n;
  }
  static long control(BIO* bio, int command, long, void*) {
    if (command == BIO_CTRL_EOF) return of(bio).eof_ ? 1 : 0;
    return command == BIO_CTRL_FLUSH ? 1 : 0;
  }
  static int create(BIO* bio) {
    BIO_set_init(bio, 1);
    return 1;
  }
  static BIO_METHOD* method() {
    static BIO_METHOD* const made = [] {
      BIO_METHOD* m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "cloister socket");
      must(m != nullptr);
      BIO_meth_set_read(m, read);
      BIO_meth_set_write(m, write);
      BIO_meth_set_ctrl(m, control);
      BIO_meth_set_create(m, create);
      return m;
    }();
    return made;
  }

  /// Replaces OpenSSL's chain building: one self-made certificate, and its key is known or it is not.
  static int verify(X509_STORE_CTX* store, void*) {
    Tls& t = of(static_cast<SSL*>(X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx())));
    Result<PeerCertificate> peer = read_certificate(X509_STORE_CTX_get0_cert(store), t.name_);
    if (!peer) {
      t.bad_certificate_ = peer.error();
      X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REJECTED);  // the peer gets the alert bad_certificate
      return 0;
    }
    t.peer_ = *peer;
    if (auto decision = t.judge_(peer->key); !decision.allowed()) {
      t.refused_ = std::move(decision);
      X509_STORE_CTX_set_error(store, X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT);  // the alert unknown_ca
      return 0;
    }
    X509_STORE_CTX_set_error(store, X509_V_OK);
    return 1;
  }

  static int select_alpn(SSL* ssl, const unsigned char** out, unsigned char* length, const unsigned char* in,
                         unsigned n, void*) {
    unsigned char* chosen = nullptr;
    if (SSL_select_next_proto(&chosen, length, alpn_list.data(), alpn_list.size(), in, n) != OPENSSL_NPN_NEGOTIATED) {
      of(ssl).other_version_ = other_version({in, n});
      return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
  }

  /// The first version of this protocol in a client's list (RFC 7301 section 3.1; OpenSSL has checked its lengths).
  static std::string other_version(View offered) {
    constexpr std::string_view prefix = "cloister/";
    while (!offered.empty() && offered[0] < offered.size()) {
      const std::string name = base::text(offered.subspan(1, offered[0]));
      const std::string number = name.starts_with(prefix) ? name.substr(prefix.size()) : std::string();
      if (!number.empty() && number.size() <= 4 && number.find_first_not_of("0123456789") == std::string::npos)
        return name;
      offered = offered.subspan(1 + std::size_t{offered[0]});
    }
    return {};
  }

  static SSL_CTX* make_context(Tls::Role role) {
    const bool server = role == Tls::Role::server;
    SSL_CTX* c = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
    must(c != nullptr);
    must(SSL_CTX_set_min_proto_version(c, TLS1_3_VERSION) == 1 &&
         SSL_CTX_set_max_proto_version(c, TLS1_3_VERSION) == 1);
    must(SSL_CTX_set_ciphersuites(c, "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256") ==
         1);
    if (SSL_CTX_set1_groups_list(c, "X25519MLKEM768:X25519:P-256") != 1)  // OpenSSL before 3.5 does not know the first
      must(SSL_CTX_set1_groups_list(c, "X25519:P-256") == 1);
    // No resumption (docs/formats.md): a resumed connection would not prove the keys again.
    SSL_CTX_set_options(c, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
    must(SSL_CTX_set_num_tickets(c, 0) == 1);
    SSL_CTX_set_read_ahead(c, 1);
    SSL_CTX_set_default_read_buffer_len(c, read_ahead);
    SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_max_cert_list(c, static_cast<long>(certificate_cap + 64));
    SSL_CTX_set_verify(c, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
    SSL_CTX_set_cert_verify_callback(c, verify, nullptr);
    if (server) {
      // A client offers all signature algorithms, so that it sees an inspecting proxy's certificate and can name it.
      must(SSL_CTX_set1_client_sigalgs_list(c, "ed25519") == 1);
      SSL_CTX_set_alpn_select_cb(c, select_alpn, nullptr);
    } else {
      must(SSL_CTX_set_alpn_protos(c, alpn_list.data(), alpn_list.size()) == 0);
    }
    ERR_clear_error();
    return c;
  }
  static SSL_CTX* context(Tls::Role role) {
    static SSL_CTX* const client = make_context(Tls::Role::client);
    static SSL_CTX* const server = make_context(Tls::Role::server);
    return role == Tls::Role::server ? server : client;
  }
};

Tls::Tls(tcp::socket socket, Role role, const Credentials& own, View dice, JudgeKey judge, std::string name)
    : socket_(std::move(socket)),
      role_(role),
      judge_(std::move(judge)),
      name_(std::move(name)),
      own_(own),
      own_certificate_(own.certificate(dice)) {
  boost::system::error_code
      ignored;  // options that a socket pair or a dead socket does not take are no reason to fail here
  socket_.set_option(tcp::no_delay(true), ignored);
  socket_.set_option(asio::socket_base::keep_alive(true), ignored);
  // What the system has taken and not yet sent is lost with a connection and slow to give way to what is urgent.
  ::setsockopt(socket_.native_handle(), IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent_at_most, sizeof unsent_at_most);
  socket_.native_non_blocking(true, ignored);
  ssl_ = SSL_new(OpenSsl::context(role));
  must(ssl_ != nullptr && SSL_set_app_data(ssl_, this) == 1);
  BIO* bio = BIO_new(OpenSsl::method());
  must(bio != nullptr);
  BIO_set_data(bio, this);
  SSL_set_bio(ssl_, bio, bio);
  must(SSL_use_certificate(ssl_, own_certificate_->x509.get()) == 1);
  must(SSL_use_PrivateKey(ssl_, own.key().get()) == 1);
  role == Role::server ? SSL_set_accept_state(ssl_) : SSL_set_connect_state(ssl_);
}

std::uint64_t Tls::bytes_unconfirmed() const {
  int queued = 0;
  const int fd = const_cast<tcp::socket&>(socket_).native_handle();
  return closed_ || ::ioctl(fd, SIOCOUTQ, &queued) != 0 ? 0 : static_cast<std::uint64_t>(std::max(queued, 0));
}

Tls::~Tls() {
  close();
  SSL_free(ssl_);
}

awaitable<void> Tls::wait(tcp::socket::wait_type what) {
  boost::system::error_code ec;
  co_await socket_.async_wait(what, asio::redirect_error(asio::use_awaitable, ec));
  if (closed_) throw Exception(base::unavailable(name_, "the connection was closed on this side"));
  if (ec) throw boost::system::system_error(ec);
}

awaitable<void> Tls::handshake() {
  std::exception_ptr failed;
  for (;;) {
    ERR_clear_error();
    const int result = SSL_do_handshake(ssl_);
    const int error = SSL_get_error(ssl_, result);
    if (result != 1 && error != SSL_ERROR_WANT_READ) failed = failure(result, "TLS handshake");
    if (result == 1 || failed) break;
    co_await flush();
    co_await wait(tcp::socket::wait_read);
  }
  if (!failed) {
    const unsigned char* protocol = nullptr;
    unsigned n = 0;
    SSL_get0_alpn_selected(ssl_, &protocol, &n);
    if (!base::equal({protocol, n}, alpn_list.subspan(1)))
      failed = std::make_exception_ptr(Exception(base::unsupported(
          name_, "speaks TLS 1.3 but not the protocol cloister/1: another service listens or calls here")));
  }
  if (!failed) {
    co_await flush();
    forget_handshake();
    co_return;
  }
  co_await linger(alert_linger);  // so that the alert arrives, and not a reset in its place
  std::rethrow_exception(failed);
}

awaitable<void> Tls::read(std::span<std::uint8_t> into, std::size_t& have, bool idle) {
  idle ? SSL_set_mode(ssl_, SSL_MODE_RELEASE_BUFFERS) : SSL_clear_mode(ssl_, SSL_MODE_RELEASE_BUFFERS);
  while (have < into.size()) {
    if (closed_) throw Exception(base::unavailable(name_, "the connection was closed on this side"));
    ERR_clear_error();
    std::size_t n = 0;
    const int result = SSL_read_ex(ssl_, into.data() + have, into.size() - have, &n);
    if (result == 1) {
      have += n;
      // A peer that sends without a pause must not keep this thread from the others.
      if ((since_yield_ += n) > (1 << 20)) {
        since_yield_ = 0;
        co_await asio::post(socket_.get_executor(), asio::use_awaitable);
      }
      continue;
    }
    const int error = SSL_get_error(ssl_, result);
    if (error == SSL_ERROR_ZERO_RETURN) throw Exception(base::unavailable(name_, "the peer closed the connection"));
    if (error != SSL_ERROR_WANT_READ) std::rethrow_exception(failure(result, "reading"));
    if (sent_ < queued_) co_await flush();
    since_yield_ = 0;
    co_await wait(tcp::socket::wait_read);
  }
}

/// What only the handshake needed: connections are many and idle for long.
void Tls::forget_handshake() {
  judge_ = nullptr;
  Bytes().swap(first_);
  if (role_ == Role::server) Bytes().swap(peer_.dice);
}

void Tls::encrypt(View bytes) {
  std::size_t n = 0;
  ERR_clear_error();
  if (SSL_write_ex(ssl_, bytes.data(), bytes.size(), &n) != 1) std::rethrow_exception(failure(0, "writing"));
  since_update_ += n;
}

awaitable<void> Tls::write(View head, View body) {
  if (closed_) throw Exception(base::unavailable(name_, "the connection was closed on this side"));
  co_await flush();  // bounds the buffer: one unit per writer
  if (since_update_ > update_after) {
    since_update_ = 0;
    must(SSL_key_update(ssl_, SSL_KEY_UPDATE_NOT_REQUESTED) == 1);
  }
  // The head shares its record with the start of the body; the rest is encrypted from where it lies.
  const auto shared = body.first(std::min(body.size(), record_size - std::min(record_size, head.size())));
  Bytes first = base::copy(head);
  first.insert(first.end(), shared.begin(), shared.end());
  encrypt(first);
  if (shared.size() < body.size()) encrypt(body.subspan(shared.size()));
  co_await flush();
}

awaitable<void> Tls::flush() {
  const auto until = queued_;
  while (sent_ < until) {
    if (closed_) throw Exception(base::unavailable(name_, "the connection was closed on this side"));
    const auto n =
        ::send(socket_.native_handle(), out_.data() + flushed_, out_.size() - flushed_, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK)
      throw Exception(base::unavailable(name_, std::string("the connection was cut: ") + std::strerror(errno)));
    if (n < 0) {
      co_await wait(tcp::socket::wait_write);
      continue;
    }
    flushed_ += static_cast<std::size_t>(n);
    sent_ += static_cast<std::uint64_t>(n);
    if (flushed_ < out_.size()) continue;
    out_.clear();
    flushed_ = 0;
    if (out_.capacity() > keep_buffer) out_.shrink_to_fit();
  }
}

awaitable<void> Tls::goodbye() {
  if (SSL_is_init_finished(ssl_)) SSL_shutdown(ssl_);
  co_await flush();
  boost::system::error_code ignored;
  socket_.shutdown(tcp::socket::shutdown_send, ignored);
  Array<4096> sink;
  for (;;) {
    const auto n = ::recv(socket_.native_handle(), sink.data(), sink.size(), MSG_DONTWAIT);
    if (n > 0) continue;
    if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) co_return;
    co_await wait(tcp::socket::wait_read);
  }
}

awaitable<void> Tls::linger(std::chrono::milliseconds at_most) {
  if (closed_) co_return;
  try {
    if (!eof_) co_await with_deadline(goodbye(), std::chrono::steady_clock::now() + at_most, name_);
  } catch (const std::exception&) {
    // Too late or cut: there is nobody left to be polite to.
  }
  close();
}

void Tls::close() noexcept {
  if (closed_) return;
  if (!eof_ && SSL_is_init_finished(ssl_)) SSL_shutdown(ssl_);
  if (flushed_ < out_.size())
    (void)::send(socket_.native_handle(), out_.data() + flushed_, out_.size() - flushed_, MSG_DONTWAIT | MSG_NOSIGNAL);
  closed_ = true;
  boost::system::error_code ignored;
  socket_.close(ignored);
}

Bytes Tls::exporter(std::string_view label, View context, std::size_t length) const {
  Bytes out(length);
  must(SSL_export_keying_material(ssl_, out.data(), length, label.data(), label.size(), context.data(), context.size(),
                                  1) == 1);
  return out;
}

std::size_t Tls::hash_size() const {
  return static_cast<std::size_t>(EVP_MD_get_size(SSL_CIPHER_get_handshake_digest(SSL_get_current_cipher(ssl_))));
}

const char* Tls::hash() const {
  return hash_size() == 48 ? "SHA384" : "SHA256";
}

/// An alert says little; what it means between our two ends says more.
Error Tls::alert(int number) const {
  const auto text = fmt::format("(TLS alert {}, {})", number, SSL_alert_desc_string_long(number));
  switch (number) {
    case SSL_AD_UNKNOWN_CA:
      return base::denied(name_,
                          fmt::format("does not know this side's key {} {}: is this party in the charter that the peer "
                                      "follows?",
                                      own_key().text(), text));
    case SSL_AD_PROTOCOL_VERSION:
      return base::unsupported(name_,
                               "wanted TLS 1.3, found a peer or a proxy that speaks only older versions " + text);
    case SSL_AD_NO_APPLICATION_PROTOCOL:
      return base::unsupported(name_, "does not speak the protocol cloister/1 " + text +
                                          ": a Cloister of another protocol version listens there, or another service");
    case SSL_AD_CERTIFICATE_REQUIRED:
    case SSL_AD_BAD_CERTIFICATE:
      return base::denied(name_,
                          "did not take this side's certificate " + text + ": does something between replace it?");
    default:
      return base::unavailable(name_, "ended the TLS connection " + text);
  }
}

Error Tls::not_tls() const {
  if (base::text(first_).starts_with("HTTP/"))
    return base::unsupported(name_, "answers with plain HTTP, not TLS: is the port right, and is a proxy needed?");
  for (const char* method : {"GET ", "POST", "HEAD", "PUT ", "OPTI", "CONN"})
    if (base::text(first_).starts_with(method)) return base::unsupported(name_, "speaks plain HTTP, not TLS 1.3");
  return base::unsupported(name_, "does not speak TLS (first bytes " + base::hex(first_) + ")");
}

std::exception_ptr Tls::failure(int result, std::string_view doing) {
  const int error = SSL_get_error(ssl_, result);
  const unsigned long first = ERR_peek_error();
  const int reason = ERR_GET_REASON(first);
  ERR_clear_error();
  auto give = [](Error e) { return std::make_exception_ptr(Exception(std::move(e))); };
  if (refused_)
    return std::make_exception_ptr(Refused(base::denied(name_, refused_->explain()), *refused_, /*by_peer=*/false));
  if (bad_certificate_) return give(*bad_certificate_);
  if (system_error_ != 0)
    return give(base::unavailable(
        name_, fmt::format("the connection was cut while {}: {}", doing, std::strerror(system_error_))));
  if (eof_ || error == SSL_ERROR_SYSCALL || reason == SSL_R_UNEXPECTED_EOF_WHILE_READING)
    return give(base::unavailable(name_, fmt::format("the peer cut the connection ({})", doing)));
  if (reason > SSL_AD_REASON_OFFSET && reason < SSL_AD_REASON_OFFSET + 256)
    return give(alert(reason - SSL_AD_REASON_OFFSET));
  // RFC 8446 section 5.1: a record starts with its type, 20 to 24, and version 3.x.
  if (!SSL_is_init_finished(ssl_) && first_.size() >= 2 && (first_[0] < 20 || first_[0] > 24 || first_[1] != 3))
    return give(not_tls());
  switch (reason) {
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_WRONG_SSL_VERSION:
      return give(base::unsupported(name_, "wanted TLS 1.3, found a peer that speaks only older versions"));
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
      return give(base::untrusted(name_,
                                  "showed no Ed25519 client certificate: not a party of this charter, or something "
                                  "between opens the TLS connection"));
    case SSL_R_NO_APPLICATION_PROTOCOL:
      if (!other_version_.empty())
        return give(base::unsupported(
            name_,
            fmt::format("wanted the protocol cloister/1, found a peer that speaks {}: use a Cloister that speaks "
                        "cloister/1 on both sides",
                        other_version_)));
      return give(base::unsupported(name_, "speaks TLS 1.3 but not the protocol cloister/1: another kind of client"));
    default:
      break;
  }
  const char* text = ERR_reason_error_string(first);
  return give(base::malformed(name_, fmt::format("{}: {}", doing, text ? text : "TLS failed")));
}

}  // namespace cloister::protocols::channel

#pragma once
// Peers that are not Cloister: blocking OpenSSL or plain sockets in a thread of their own.

#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <functional>
#include <memory>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <string>
#include <thread>

namespace cloister::protocols::channel::tests {

using boost::asio::ip::tcp;

/// Runs `serve` with the one connection that comes to its port.
class Listener {
 public:
  explicit Listener(std::function<void(tcp::socket&)> serve)
      : thread_([this, serve = std::move(serve)] {
          boost::system::error_code ec;
          tcp::socket socket = acceptor_.accept(ec);
          if (!ec) serve(socket);
        }) {}
  ~Listener() {
    // Wakes an accept that nobody came to.
    boost::system::error_code ignored;
    tcp::socket(io_).connect(acceptor_.local_endpoint(), ignored);
    thread_.join();
  }
  Listener(const Listener&) = delete;
  std::uint16_t port() const { return acceptor_.local_endpoint().port(); }

 private:
  boost::asio::io_context io_;
  tcp::acceptor acceptor_{io_, {boost::asio::ip::address_v4::loopback(), 0}};
  std::thread thread_;
};

/// Runs `call` with a connection to `port`.
class Caller {
 public:
  Caller(std::uint16_t port, std::function<void(tcp::socket&)> call)
      : thread_([port, call = std::move(call)] {
          boost::asio::io_context io;
          tcp::socket socket(io);
          socket.connect({boost::asio::ip::address_v4::loopback(), port});
          call(socket);
        }) {}
  ~Caller() { thread_.join(); }
  Caller(const Caller&) = delete;

 private:
  std::thread thread_;
};

/// Reads until the peer closes or cuts.
inline void drain(tcp::socket& socket) {
  boost::system::error_code ec;
  char buffer[4096];
  while (!ec) socket.read_some(boost::asio::buffer(buffer), ec);
}

struct Ssl {
  SSL_CTX* context;
  SSL* ssl;
  Ssl(bool server, tcp::socket& socket)
      : context(SSL_CTX_new(server ? TLS_server_method() : TLS_client_method())), ssl(nullptr) {
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, nullptr);
    socket_ = &socket;
  }
  ~Ssl() {
    SSL_free(ssl);
    SSL_CTX_free(context);
  }
  Ssl(const Ssl&) = delete;
  /// Handshake, then one read, so that late alerts come; the last error's text, or "connected".
  std::string handshake(bool server) {
    ssl = SSL_new(context);
    SSL_set_fd(ssl, socket_->native_handle());
    char c = 0;
    const bool ok = (server ? SSL_accept(ssl) : SSL_connect(ssl)) == 1 && SSL_read(ssl, &c, 1) == 1;
    if (ok) return "connected";
    const char* text = ERR_reason_error_string(ERR_peek_last_error());
    return text ? text : "closed";
  }

 private:
  tcp::socket* socket_;
};

/// A P-256 certificate for "cloister" as an inspecting proxy makes them: signed by its own CA of this name.
inline void use_ca_certificate(SSL_CTX* context, const char* issuer) {
  std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(EVP_EC_gen("P-256"), EVP_PKEY_free),
      ca(EVP_EC_gen("P-256"), EVP_PKEY_free);
  std::unique_ptr<X509, decltype(&X509_free)> c(X509_new(), X509_free);
  X509_set_version(c.get(), 2);
  ASN1_INTEGER_set(X509_get_serialNumber(c.get()), 7);
  X509_gmtime_adj(X509_getm_notBefore(c.get()), -60);
  X509_gmtime_adj(X509_getm_notAfter(c.get()), 3600);
  auto name = [](X509_NAME* n, const char* text) {
    X509_NAME_add_entry_by_txt(n, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>(text), -1, -1, 0);
  };
  name(X509_get_subject_name(c.get()), "cloister");
  name(X509_get_issuer_name(c.get()), issuer);
  X509_set_pubkey(c.get(), key.get());
  X509_sign(c.get(), ca.get(), EVP_sha256());
  SSL_CTX_use_certificate(context, c.get());
  SSL_CTX_use_PrivateKey(context, key.get());
}

}  // namespace cloister::protocols::channel::tests

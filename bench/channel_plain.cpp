#include <functional>
#include <openssl/ssl.h>
#include <thread>
#include <vector>

#include "bench/channel_sides.hpp"
#include "protocols/channel/certificate.hpp"

namespace cloister::bench {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using Work = std::function<void(SSL*)>;

void send(SSL* ssl, std::size_t chunks) {
  Bytes bytes(chunk, 1);
  std::size_t n = 0;
  for (std::size_t i = 0; i < chunks; ++i) must(SSL_write_ex(ssl, bytes.data(), bytes.size(), &n) == 1, "SSL_write");
  must(SSL_read_ex(ssl, bytes.data(), 1, &n) == 1, "the receiver's byte");
}

void receive(SSL* ssl, std::size_t chunks) {
  Bytes bytes(chunk);
  std::size_t n = 0;
  for (std::size_t left = chunks * chunk; left > 0; left -= n)
    must(SSL_read_ex(ssl, bytes.data(), bytes.size(), &n) == 1, "SSL_read");
  must(SSL_write_ex(ssl, bytes.data(), 1, &n) == 1, "SSL_write");
}

SSL_CTX* make(const SSL_METHOD* method) {
  SSL_CTX* c = SSL_CTX_new(method);
  const auto key = base::PrivateKey::generate();
  const Bytes der = protocols::channel::make_certificate(key);
  must(SSL_CTX_use_certificate_ASN1(c, static_cast<int>(der.size()), der.data()) == 1 &&
           SSL_CTX_use_PrivateKey(c, key.get()) == 1,
       "certificate");
  SSL_CTX_set_min_proto_version(c, TLS1_3_VERSION);
  SSL_CTX_set_ciphersuites(c, "TLS_AES_256_GCM_SHA384");
  SSL_CTX_set_num_tickets(c, 0);
  SSL_CTX_set_verify(c, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  SSL_CTX_set_cert_verify_callback(
      c, [](X509_STORE_CTX*, void*) { return 1; }, nullptr);
  return c;
}

class Plain final : public Side {
 public:
  Plain() : client_(make(TLS_client_method())), server_(make(TLS_server_method())) {}
  ~Plain() override {
    SSL_CTX_free(client_);
    SSL_CTX_free(server_);
  }
  Plain(const Plain&) = delete;

  void stream(Way way, std::size_t chunks) override {
    const bool up = way == Way::up;
    std::thread other([&] { accept([&](SSL* ssl) { up ? receive(ssl, chunks) : send(ssl, chunks); }); });
    dial([&](SSL* ssl) { up ? send(ssl, chunks) : receive(ssl, chunks); });
    other.join();
  }

  void connections(std::size_t count, std::size_t at_once) override {
    std::vector<std::thread> threads;
    for (std::size_t t = 0; t < at_once; ++t) {
      const std::size_t mine = count / at_once + (t < count % at_once);
      threads.emplace_back([this, mine] {
        for (std::size_t i = 0; i < mine; ++i) accept([](SSL* ssl) { receive(ssl, 0); });
      });
      threads.emplace_back([this, mine] {
        for (std::size_t i = 0; i < mine; ++i) dial([](SSL* ssl) { send(ssl, 0); });
      });
    }
    for (auto& thread : threads) thread.join();
  }

 private:
  void accept(const Work& work) {
    tcp::socket socket(io_);
    const int fd = ::accept(acceptor_.native_handle(), nullptr, nullptr);
    must(fd >= 0, "accept");
    socket.assign(tcp::v4(), fd);
    end(socket, server_, &SSL_accept, work);
  }
  void dial(const Work& work) {
    tcp::socket socket(io_);
    socket.connect(acceptor_.local_endpoint());
    end(socket, client_, &SSL_connect, work);
  }
  static void end(tcp::socket& socket, SSL_CTX* context, int (*handshake)(SSL*), const Work& work) {
    socket.set_option(tcp::no_delay(true));
    SSL* ssl = SSL_new(context);
    SSL_set_fd(ssl, socket.native_handle());
    must(handshake(ssl) == 1, "plain handshake");
    work(ssl);
    SSL_free(ssl);
  }

  asio::io_context io_;
  tcp::acceptor acceptor_{io_, {asio::ip::address_v4::loopback(), 0}};
  SSL_CTX* client_;
  SSL_CTX* server_;
};

}  // namespace

std::unique_ptr<Side> plain_tls() {
  return std::make_unique<Plain>();
}

}  // namespace cloister::bench

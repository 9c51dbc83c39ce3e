// The attested channel beside plain OpenSSL on the same loopback in the same run: throughput of one stream, and
// connections a second.
//
//   cloister-bench-channel [MiB per stream] [connections]
//
// One JSON object on stdout. Both ends run on this machine, each in a thread of its own. Rounds alternate, and the best
// of five counts: the others waited for somebody else. GB/s counts payload bytes by 10^9.

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <cstdlib>
#include <fmt/format.h>
#include <functional>
#include <openssl/ssl.h>
#include <thread>

#include "base/encoding.hpp"
#include "protocols/channel/certificate.hpp"
#include "protocols/channel/channel.hpp"

namespace {

using namespace cloister;
using namespace cloister::protocols;
using namespace cloister::protocols::channel;
namespace asio = boost::asio;

constexpr std::size_t chunk = 1 << 20;

Deadline later() {
  return std::chrono::steady_clock::now() + std::chrono::minutes(5);
}

double seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void must(bool ok, const char* what) {
  if (ok) return;
  fmt::print(stderr, "{} failed\n", what);
  std::exit(1);
}

// --- Plain OpenSSL: blocking, both sides with self-made Ed25519 certificates, no protocol above
// -------------------------

class Plain {
 public:
  Plain() : client_(make(TLS_client_method())), server_(make(TLS_server_method())) {}
  ~Plain() {
    SSL_CTX_free(client_);
    SSL_CTX_free(server_);
  }
  Plain(const Plain&) = delete;

  void stream(std::size_t chunks) {
    meet(
        [&](SSL* ssl) {
          Bytes bytes(chunk, 1);
          std::size_t n = 0;
          for (std::size_t i = 0; i < chunks; ++i)
            must(SSL_write_ex(ssl, bytes.data(), bytes.size(), &n) == 1, "SSL_write");
          must(SSL_read_ex(ssl, bytes.data(), 1, &n) == 1, "the receiver's byte");
        },
        [&](SSL* ssl) {
          Bytes bytes(chunk);
          std::size_t n = 0;
          for (std::size_t left = chunks * chunk; left > 0; left -= n)
            must(SSL_read_ex(ssl, bytes.data(), bytes.size(), &n) == 1, "SSL_read");
          must(SSL_write_ex(ssl, bytes.data(), 1, &n) == 1, "SSL_write");
        });
  }
  /// A mutual handshake and one byte each way, so that both sides know that both are done.
  void connections(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) stream(0);
  }

 private:
  SSL_CTX* make(const SSL_METHOD* method) {
    SSL_CTX* c = SSL_CTX_new(method);
    const auto key = base::PrivateKey::generate();
    const Bytes der = make_certificate(key);
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
  void meet(const std::function<void(SSL*)>& client, const std::function<void(SSL*)>& server) {
    std::thread other([&] {
      tcp::socket socket = acceptor_.accept();
      end(socket, server_, &SSL_accept, server);
    });
    tcp::socket socket(io_);
    socket.connect(acceptor_.local_endpoint());
    end(socket, client_, &SSL_connect, client);
    other.join();
  }
  static void end(tcp::socket& socket, SSL_CTX* context, int (*handshake)(SSL*),
                  const std::function<void(SSL*)>& work) {
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

// --- The attested channel, with evidence that costs nothing to make or verify
// -------------------------------------------

Result<attest::Claims> verify(View bytes, Time) {
  auto evidence = attest::Evidence::parse(bytes);
  if (!evidence) return evidence.error();
  attest::Claims claims;
  claims.kind = "bench";
  claims.report_data = base::array<64>(evidence->body);
  claims.platform = Bytes(32, 2);
  return claims;
}

attest::Decision yes() {
  attest::Decision d;
  d.add({true, "bench", "anything", "", "", ""});
  return d;
}

class Attested {
 public:
  Attested()
      : party_(base::PrivateKey::generate()),
        enclave_(base::PrivateKey::generate()),
        record_(base::copy(enclave_.public_key().bytes)) {
    expected_.check_grant = [](View grant, View) -> Result<Bytes> { return base::copy(grant); };
    expected_.tls_key = [](View record) -> Result<base::PublicKey> { return base::PublicKey{base::array<32>(record)}; };
    expected_.judge = [](const attest::Claims&) { return yes(); };
    expected_.verify = verify;
  }

  void stream(std::size_t chunks) {
    meet(
        [chunks](ConnectionPtr c) -> awaitable<void> {
          const Bytes bytes(chunk, 1);
          for (std::size_t i = 0; i < chunks; ++i) co_await c->send_data(bytes);
          co_await c->receive();
        },
        [chunks](ConnectionPtr c) -> awaitable<void> {
          Frame frame;
          for (std::size_t left = chunks * chunk; left > 0; left -= frame.payload.size()) co_await c->receive(frame);
          co_await c->send(messages::READY, messages::Ready());
        });
  }
  void connections(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) stream(0);
  }

 private:
  using Work = std::function<awaitable<void>(ConnectionPtr)>;
  EnclaveIdentity identity() const {
    EnclaveIdentity i{.tls = enclave_,
                      .charter = {},
                      .record = record_,
                      .grant =
                          [] {
                            attest::Claims c;
                            c.kind = "bench";
                            c.platform = Bytes(32, 2);
                            return base::copy(base::view(c.platform_text()));
                          },
                      .attester = [](const Array<64>& report_data) -> Result<Bytes> {
                        return attest::Evidence{"bench", base::copy(report_data)}.serialize();
                      },
                      .dice_evidence = {},
                      .known = [](const base::PublicKey&) { return std::optional<std::string>("party"); },
                      .launcher_owner = "",
                      .wants_evidence = [](const std::string&) { return false; },
                      .judge_peer = [](const std::string&, const attest::Claims*) { return yes(); }};
    i.verify = verify;
    return i;
  }
  void meet(Work client, Work server) {
    std::thread other([&] {
      run(server_io_, [&]() -> awaitable<void> {
        auto socket = co_await acceptor_.async_accept(asio::use_awaitable);
        auto c = co_await accept_enclave(std::move(socket), identity(), later(), nullptr);
        co_await server(c);
      }());
    });
    run(client_io_, [&]() -> awaitable<void> {
      const Endpoint to{"127.0.0.1", acceptor_.local_endpoint().port(), {}};
      auto c = co_await connect_enclave(to, party_, expected_, std::nullopt, later(), nullptr);
      co_await client(c);
    }());
    other.join();
  }
  static void run(asio::io_context& io, awaitable<void> work) {
    asio::co_spawn(io, std::move(work), [](std::exception_ptr e) {
      if (e) std::rethrow_exception(e);
    });
    io.restart();
    io.run();
  }
  asio::io_context server_io_{1}, client_io_{1};
  tcp::acceptor acceptor_{server_io_, {asio::ip::address_v4::loopback(), 0}};
  base::PrivateKey party_, enclave_;
  Bytes record_;
  EnclaveExpectation expected_;
};

}  // namespace

int main(int argc, char** argv) {
  const std::size_t chunks = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1024;
  const std::size_t count = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 200;
  if (chunks == 0 || count == 0) return fmt::print(stderr, "wanted MiB and connections above 0\n"), 2;
  Plain plain;
  Attested attested;
  double plain_stream = 1e30, attested_stream = 1e30, plain_connect = 1e30, attested_connect = 1e30;
  for (int i = 0; i < 5; ++i) {
    plain_stream = std::min(plain_stream, seconds([&] { plain.stream(chunks); }));
    attested_stream = std::min(attested_stream, seconds([&] { attested.stream(chunks); }));
    plain_connect = std::min(plain_connect, seconds([&] { plain.connections(count); }));
    attested_connect = std::min(attested_connect, seconds([&] { attested.connections(count); }));
  }
  const double gigabytes = static_cast<double>(chunks * chunk) * 1e-9, n = static_cast<double>(count);
  fmt::print(R"({{"mib":{},"connections":{},"plain_tls_gb_s":{:.3f},"attested_gb_s":{:.3f},"stream_ratio":{:.3f},)"
             R"("mutual_tls_per_s":{:.0f},"attested_per_s":{:.0f},"connection_ratio":{:.3f}}})"
             "\n",
             chunks, count, gigabytes / plain_stream, gigabytes / attested_stream, plain_stream / attested_stream,
             n / plain_connect, n / attested_connect, plain_connect / attested_connect);
}

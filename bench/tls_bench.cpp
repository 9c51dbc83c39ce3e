// cloister-bench-tls DOWN UP [TIMES]: what the others are measured by. Plain OpenSSL, one TLS 1.3 stream over loopback
// between two processes: DOWN bytes from the server to the client, then UP bytes back, in writes of 1 MiB. No protocol
// above it, nothing is looked at or stored. The suite is the one that Cloister's channel agrees on.
//
// One JSON object on stdout: the seconds of each of TIMES (default 1) and their median.

#include <algorithm>
#include <arpa/inet.h>
#include <chrono>
#include <cstdlib>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "base/bytes.hpp"
#include "protocols/channel/certificate.hpp"

namespace {

using namespace cloister;
constexpr std::size_t piece = 1 << 20;

void must(bool ok, const char* what) {
  if (ok) return;
  fmt::print(stderr, "cloister-bench-tls: {} failed\n", what);
  std::_Exit(1);
}

SSL* secure(int fd, bool server) {
  const int on = 1;
  must(::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0, "TCP_NODELAY");
  SSL_CTX* c = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
  const auto key = base::PrivateKey::generate();
  const Bytes der = protocols::channel::make_certificate(key);
  must(SSL_CTX_use_certificate_ASN1(c, static_cast<int>(der.size()), der.data()) == 1 &&
           SSL_CTX_use_PrivateKey(c, key.get()) == 1,
       "certificate");
  SSL_CTX_set_min_proto_version(c, TLS1_3_VERSION);
  SSL_CTX_set_ciphersuites(c, "TLS_AES_256_GCM_SHA384");
  SSL_CTX_set_num_tickets(c, 0);
  SSL* ssl = SSL_new(c);
  SSL_CTX_free(c);  // `ssl` keeps it
  SSL_set_fd(ssl, fd);
  must((server ? SSL_accept(ssl) : SSL_connect(ssl)) == 1, "handshake");
  return ssl;
}

void send(SSL* ssl, std::uint64_t bytes) {
  const Bytes block(piece, 1);
  for (std::size_t n = 0; bytes > 0; bytes -= n)
    must(SSL_write_ex(ssl, block.data(), std::min<std::uint64_t>(bytes, piece), &n) == 1, "SSL_write");
}

void receive(SSL* ssl, std::uint64_t bytes) {
  Bytes block(piece);
  for (std::size_t n = 0; bytes > 0; bytes -= n)
    must(SSL_read_ex(ssl, block.data(), std::min<std::uint64_t>(bytes, piece), &n) == 1, "SSL_read");
}

double seconds_of(SSL* ssl, std::uint64_t down, std::uint64_t up) {
  const auto start = std::chrono::steady_clock::now();
  receive(ssl, down);
  send(ssl, up);
  receive(ssl, 1);  // the server has it all
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

int listen_on_loopback(sockaddr_in& at) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  at = {};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof at;
  must(::bind(fd, reinterpret_cast<sockaddr*>(&at), sizeof at) == 0 && ::listen(fd, 1) == 0 &&
           ::getsockname(fd, reinterpret_cast<sockaddr*>(&at), &size) == 0,
       "listening");
  return fd;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return fmt::print(stderr, "cloister-bench-tls DOWN UP [TIMES]\n"), 2;
  const std::uint64_t down = std::strtoull(argv[1], nullptr, 10), up = std::strtoull(argv[2], nullptr, 10);
  const unsigned long times = argc > 3 ? std::strtoul(argv[3], nullptr, 10) : 1;
  if (times == 0) return fmt::print(stderr, "wanted TIMES above 0\n"), 2;
  sockaddr_in at{};
  const int listening = listen_on_loopback(at);
  const pid_t server = ::fork();
  must(server >= 0, "fork");
  if (server == 0) {
    SSL* ssl = secure(::accept(listening, nullptr, nullptr), true);
    for (unsigned long i = 0; i < times; ++i) {
      send(ssl, down);
      receive(ssl, up);
      send(ssl, 1);
    }
    std::_Exit(0);
  }
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  must(::connect(fd, reinterpret_cast<sockaddr*>(&at), sizeof at) == 0, "connect");
  SSL* ssl = secure(fd, false);
  std::vector<double> seconds;
  for (unsigned long i = 0; i < times; ++i) seconds.push_back(seconds_of(ssl, down, up));
  int status = 0;
  ::waitpid(server, &status, 0);
  std::vector<double> sorted = seconds;
  std::sort(sorted.begin(), sorted.end());
  const double median = sorted[sorted.size() / 2];
  fmt::print(R"({{"down_bytes":{},"up_bytes":{},"seconds":[{:.4f}],"median_seconds":{:.4f},"gb_s":{:.3f}}})"
             "\n",
             down, up, fmt::join(seconds, ","), median, static_cast<double>(down + up) * 1e-9 / median);
}

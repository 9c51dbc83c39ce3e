#include "protocols/channel/proxy.hpp"

#include <boost/asio/buffer.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/write.hpp>
#include <charconv>
#include <fmt/format.h>

namespace cloister::protocols::channel {

namespace asio = boost::asio;
using asio::awaitable;
using asio::ip::tcp;

namespace {

constexpr std::size_t answer_cap = 16 << 10;

std::string printable(std::string_view s, std::size_t at_most) {
  std::string out(s.substr(0, at_most));
  for (char& c : out)
    if (c < 0x20 || c > 0x7e) c = '?';
  return out;
}

awaitable<tcp::socket> connect(std::string host, std::string port, std::string where) {
  auto executor = co_await asio::this_coro::executor;
  tcp::socket socket(executor);
  boost::system::error_code ec;
  // A literal address needs no resolver, which would start a thread.
  if (auto address = asio::ip::make_address(host, ec); !ec) {
    std::uint16_t number = 0;
    std::from_chars(port.data(), port.data() + port.size(), number);
    co_await socket.async_connect({address, number}, asio::redirect_error(asio::use_awaitable, ec));
  } else {
    tcp::resolver resolver(executor);
    auto found = co_await resolver.async_resolve(host, port, asio::redirect_error(asio::use_awaitable, ec));
    if (ec)
      throw Exception(
          base::unavailable(std::move(where), fmt::format("the name {} does not resolve: {}", host, ec.message())));
    co_await asio::async_connect(socket, found, asio::redirect_error(asio::use_awaitable, ec));
  }
  if (ec == asio::error::operation_aborted) throw boost::system::system_error(ec);
  if (ec)
    throw Exception(
        base::unavailable(std::move(where), fmt::format("nobody answers at {}:{}: {}", host, port, ec.message())));
  co_return socket;
}

/// The proxy's answer up to its empty line, not a byte more: what follows belongs to TLS.
awaitable<std::string> read_head(tcp::socket& socket, const std::string& where) {
  std::string head;
  boost::system::error_code ec;
  while (!head.ends_with("\r\n\r\n")) {
    char c = 0;
    if (co_await socket.async_read_some(asio::buffer(&c, 1), asio::redirect_error(asio::use_awaitable, ec)) != 1 ||
        ec) {
      if (ec == asio::error::operation_aborted) throw boost::system::system_error(ec);
      throw Exception(base::unavailable(where, fmt::format("the proxy hung up in the middle of its answer ({})",
                                                           head.empty() ? "nothing came" : printable(head, 60))));
    }
    head.push_back(c);
    if (head.size() > answer_cap) throw Exception(base::malformed(where, "the proxy's answer is longer than 16 KiB"));
    if (head.size() == 5 && head != "HTTP/")
      throw Exception(base::malformed(where, fmt::format("what answers is no HTTP proxy: \"{}\"", printable(head, 5))));
  }
  co_return head;
}

awaitable<void> tunnel(tcp::socket& socket, const Endpoint& to, const std::string& where) {
  const auto authority = to.host.find(':') == std::string::npos ? fmt::format("{}:{}", to.host, to.port)
                                                                : fmt::format("[{}]:{}", to.host, to.port);
  const auto request = fmt::format("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n", authority);
  boost::system::error_code ec;
  co_await asio::async_write(socket, asio::buffer(request), asio::redirect_error(asio::use_awaitable, ec));
  if (ec == asio::error::operation_aborted) throw boost::system::system_error(ec);
  if (ec) throw Exception(base::unavailable(where, "the proxy hung up: " + ec.message()));
  const std::string head = co_await read_head(socket, where);
  if (auto ok = judge_connect_answer(head, to); !ok) throw Exception(ok.error());
}

}  // namespace

std::string Endpoint::text() const {
  return fmt::format("{}:{}", host, port);
}

Result<void> judge_connect_answer(std::string_view head, const Endpoint& to) {
  const std::string where = fmt::format("{} through the proxy {}", to.text(), to.proxy);
  const std::string_view line = head.substr(0, head.find("\r\n"));
  int status = 0;
  // RFC 9112 section 4: HTTP-version SP status-code SP [reason]
  if (!line.starts_with("HTTP/1.") || line.size() < 12 || line[8] != ' ' ||
      std::from_chars(line.data() + 9, line.data() + 12, status).ptr != line.data() + 12)
    return base::malformed(where, fmt::format("what answers is no HTTP proxy: \"{}\"", printable(line, 60)));
  if (status >= 200 && status < 300) return {};
  const std::string said = printable(line, 80);
  switch (status) {
    case 407:
      return base::unavailable(
          where, fmt::format("the proxy wants a login ({}), and Cloister sends none: ask for an exemption for {}", said,
                             to.text()));
    case 403:
      return base::unavailable(
          where, fmt::format("the proxy forbids CONNECT to {} ({}): ask for it to be allowed, port included", to.text(),
                             said));
    case 502:
    case 503:
    case 504:
      return base::unavailable(where, fmt::format("the proxy cannot reach {} ({})", to.text(), said));
    default:
      return base::unavailable(where, fmt::format("the proxy answers \"{}\" to CONNECT, wanted 200", said));
  }
}

awaitable<tcp::socket> dial(Endpoint to, Deadline deadline) {
  if (to.proxy.empty())
    co_return co_await with_deadline(connect(to.host, std::to_string(to.port), to.text()), deadline,
                                     "connecting to " + to.text());
  const std::string where = fmt::format("{} through the proxy {}", to.text(), to.proxy);
  const auto colon = to.proxy.rfind(':');
  if (colon == std::string::npos || colon == 0 || colon + 1 == to.proxy.size())
    throw Exception(
        base::malformed(where, fmt::format("wanted a proxy as host:port, found \"{}\"", printable(to.proxy, 80))));
  std::string proxy_host = to.proxy.substr(0, colon);
  if (proxy_host.front() == '[' && proxy_host.back() == ']')
    proxy_host = proxy_host.substr(1, proxy_host.size() - 2);  // [::1]:3128
  auto socket = co_await with_deadline(connect(std::move(proxy_host), to.proxy.substr(colon + 1), where), deadline,
                                       "connecting to the proxy " + to.proxy);
  co_await with_deadline(tunnel(socket, to, where), deadline, where + ": CONNECT");
  co_return socket;
}

}  // namespace cloister::protocols::channel

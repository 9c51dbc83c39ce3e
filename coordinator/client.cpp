#include "coordinator/client.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>

#include "base/deadline.hpp"
#include "coordinator/peers.hpp"
#include "protocols/channel/refused.hpp"

namespace cloister::coordinator {

using std::chrono::steady_clock;

namespace {

awaitable<channel::ConnectionPtr> dial(const Remote& remote, std::chrono::seconds patience, channel::Deadline until) {
  const channel::Endpoint to{remote.host, remote.port, remote.proxy};
  for (;;) {
    try {
      co_return co_await channel::connect_pinned(to, remote.key, remote.server, steady_clock::now() + patience);
    } catch (const Exception& e) {
      if (e.error().kind != Error::Kind::unavailable || steady_clock::now() >= until) throw;
    }
    boost::asio::steady_timer again(co_await boost::asio::this_coro::executor, std::chrono::seconds(1));
    co_await again.async_wait(boost::asio::use_awaitable);
  }
}

}  // namespace

void ask(const Remote& remote, messages::MessageType type, const google::protobuf::MessageLite& request,
         const std::function<bool(const channel::Frame&)>& on, std::chrono::seconds patience,
         std::chrono::seconds dial_for) {
  const std::string who = "coordinator " + remote.host + ":" + std::to_string(remote.port);
  boost::asio::io_context io;
  std::exception_ptr failure;
  auto conversation = [&]() -> awaitable<void> {
    const auto connection = co_await dial(remote, patience, steady_clock::now() + dial_for);
    co_await with_deadline(connection->send(type, request), steady_clock::now() + patience, who + ": the request");
    for (;;) {
      const auto frame =
          co_await with_deadline(connection->receive(), steady_clock::now() + patience, who + ": its answer");
      if (!on(frame)) break;
    }
    connection->close();
  };
  boost::asio::co_spawn(io, conversation(), [&](std::exception_ptr e) { failure = e; });
  io.run();
  if (!failure) return;
  try {
    std::rethrow_exception(failure);
  } catch (const channel::Refused& refused) {
    if (!refused.by_peer() || !refused.decision().findings.empty()) throw;
    Error error = refused.error();
    error.kind = Error::Kind::unsupported;  // it cannot, rather than may not: no policy said no
    throw Exception(error);
  }
}

}  // namespace cloister::coordinator

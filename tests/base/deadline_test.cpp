// Waits with deadlines: which of the two ends came first, and what the caller is told.

#include "base/deadline.hpp"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/system/system_error.hpp>
#include <gmock/gmock.h>
#include <optional>

namespace cloister::base {
namespace {

namespace asio = boost::asio;
using asio::awaitable;
using asio::ip::tcp;
using namespace std::chrono_literals;

Deadline in(std::chrono::milliseconds d) {
  return std::chrono::steady_clock::now() + d;
}

awaitable<int> seven() {
  co_return 7;
}

awaitable<void> never() {
  asio::steady_timer timer(co_await asio::this_coro::executor, std::chrono::hours(1));
  co_await timer.async_wait(asio::use_awaitable);
}

template <class T>
awaitable<std::string> outcome(awaitable<T> op) {
  try {
    co_await std::move(op);
    co_return "done";
  } catch (const Exception& e) {
    co_return e.what();
  } catch (const boost::system::system_error& e) {
    co_return "system: " + e.code().message();
  }
}

std::string run(awaitable<std::string> op) {
  asio::io_context io;
  std::string out = "never finished";
  asio::co_spawn(io, std::move(op), [&](std::exception_ptr e, std::string s) {
    if (e) std::rethrow_exception(e);
    out = std::move(s);
  });
  io.run();
  return out;
}

TEST(Deadline, AnAnswerInTimeIsGivenAsItIs) {
  asio::io_context io;
  int got = 0;
  asio::co_spawn(io, with_deadline(seven(), in(1h), "seven"), [&](std::exception_ptr e, int v) {
    ASSERT_FALSE(e);
    got = v;
  });
  io.run();
  EXPECT_EQ(got, 7);
}

TEST(Deadline, TooLateNamesTheWaitAndItsLength) {
  // Up to 20 ms: what is left of them when the wait begins.
  EXPECT_THAT(run(outcome(with_deadline(never(), in(20ms), "round 7: offer"))),
              testing::MatchesRegex("round 7: offer: no answer within [0-9]+ms"));
}

TEST(Deadline, ADeadlineThatHasPassedIsTooLateAtOnce) {
  EXPECT_EQ(run(outcome(with_deadline(never(), in(-1h), "offer"))), "offer: no answer within 0ms");
}

awaitable<void> fails() {
  throw Exception(malformed("frame", "bad"));
  co_return;
}

TEST(Deadline, TheOperationsOwnErrorComesAtOnce) {
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(run(outcome(with_deadline(fails(), in(1h), "offer"))), "frame: bad");
  EXPECT_LT(std::chrono::steady_clock::now() - start, 10s);
}

TEST(Deadline, APeerThatResetsIsNotASlowTimeout) {
  asio::io_context io;
  tcp::acceptor acceptor(io, {asio::ip::address_v4::loopback(), 0});
  tcp::socket client(io);
  client.connect(acceptor.local_endpoint());
  std::optional<tcp::socket> server(acceptor.accept());
  server->set_option(asio::socket_base::linger(true, 0));
  std::string got;
  auto read = [&]() -> awaitable<void> {
    char c = 0;
    co_await client.async_read_some(asio::buffer(&c, 1), asio::use_awaitable);
  };
  const auto start = std::chrono::steady_clock::now();
  asio::co_spawn(io, outcome(with_deadline(read(), in(1h), "offer")),
                 [&](std::exception_ptr, std::string s) { got = std::move(s); });
  asio::post(io, [&] { server->close(); });
  io.run();
  EXPECT_EQ(got, "system: Connection reset by peer");
  EXPECT_LT(std::chrono::steady_clock::now() - start, 10s);
}

TEST(Deadline, CancelledIsToldFromTooLate) {
  asio::io_context io;
  asio::cancellation_signal cancel;
  std::exception_ptr failure;
  asio::co_spawn(io, with_deadline(never(), in(1h), "offer"),
                 asio::bind_cancellation_slot(cancel.slot(), [&](std::exception_ptr e) { failure = e; }));
  asio::post(io, [&] { cancel.emit(asio::cancellation_type::terminal); });
  io.run();
  ASSERT_TRUE(failure);
  try {
    std::rethrow_exception(failure);
  } catch (const boost::system::system_error& e) {
    EXPECT_EQ(e.code(), asio::error::operation_aborted);
  } catch (const std::exception& e) {
    ADD_FAILURE() << "cancelled, and told: " << e.what();
  }
}

TEST(Deadline, NothingOfTheOperationOutlivesTheWait) {
  struct Flag {
    bool& gone;
    ~Flag() { gone = true; }
  };
  bool gone = false;
  auto op = [](bool& g) -> awaitable<void> {
    Flag flag{g};
    co_await never();
  };
  asio::io_context io;
  bool gone_at_end = false;
  auto caller = [&]() -> awaitable<void> {
    co_await outcome(with_deadline(op(gone), in(5ms), "offer"));
    gone_at_end = gone;
  };
  asio::co_spawn(io, caller(), [](std::exception_ptr e) { ASSERT_FALSE(e); });
  io.run();
  EXPECT_TRUE(gone_at_end);
}

}  // namespace
}  // namespace cloister::base

#include "participant/link.hpp"

#include <algorithm>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/multiple_exceptions.hpp>
#include <fmt/format.h>

namespace cloister::participant {
namespace {

namespace asio = boost::asio;
using protocols::channel::Connection;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

}  // namespace

milliseconds with_jitter(milliseconds pause) {
  const auto half = std::max<std::uint64_t>(static_cast<std::uint64_t>(pause.count()) / 2, 1);
  const auto random = base::random_array<8>();
  std::uint64_t n = 0;
  for (const std::uint8_t b : random) n = n << 8 | b;
  return milliseconds(static_cast<std::int64_t>(half + n % half));
}

Link::Link(asio::any_io_executor executor, LinkOptions options, Inbox& inbox, std::shared_ptr<base::Log> log)
    : options_(std::move(options)),
      inbox_(inbox),
      log_(std::move(log)),
      timer_(executor),
      pulse_(executor),
      next_pause_(options_.first_pause) {}

asio::awaitable<void> Link::run() {
  while (!stopped_) {
    bool refused = false;
    std::string reason;
    try {
      co_await serve();
    } catch (const protocols::channel::Refused& e) {
      refused = !e.retry();
      reason = e.what();
      // Our own refusals are logged by the channel; what the enclave refuses of us belongs into this log too.
      if (e.by_peer() && refused) attest::log_refusals(*log_, e.decision(), "this node, by the aggregator");
    } catch (const Exception& e) {
      reason = e.what();
      refused = e.error().kind == Error::Kind::denied || e.error().kind == Error::Kind::untrusted;
    } catch (const std::exception& e) {
      reason = e.what();
    }
    if (connection_) connection_->close();  // whoever still sends on it stops now
    connection_.reset();
    if (stopped_) break;
    report(reason, refused);
    co_await inbox_.room();
    const auto wait = with_jitter(refused ? options_.refused_pause : next_pause_);
    co_await pause(wait);
    next_pause_ = std::min(next_pause_ * 2, options_.longest_pause);
  }
}

// A person reads this for days: the same reason is said once.
void Link::report(std::string reason, bool refused) {
  if (reason != last_reason_)
    log_->event(refused ? "refused" : "waiting",
                (refused ? "refused, will try again: " : "no connection, will try again: ") + reason,
                {{"reason", reason}});
  last_reason_ = reason;
  inbox_.push(Closed{std::move(reason), refused});
}

asio::awaitable<void> Link::serve() {
  const auto deadline = steady_clock::now() + options_.deadline;
  connection_ = co_await protocols::channel::connect_enclave(options_.to, options_.tls, options_.expected,
                                                             options_.attester, deadline, log_);
  if (stopped_) co_return;  // asked to while it dialled; the connection closes with its last owner
  renew_at_ = steady_clock::now() + options_.renew;
  next_pause_ = options_.first_pause;
  last_reason_.clear();
  inbox_.push(Opened{connection_});
  using namespace asio::experimental::awaitable_operators;
  try {
    co_await (read(*connection_) && feel_pulse(*connection_));  // neither returns; what one throws ends the other
  } catch (const asio::multiple_exceptions& e) {
    std::rethrow_exception(e.first_exception());
  }
}

asio::awaitable<void> Link::read(Connection& connection) {
  for (;;) {
    inbox_full_ = true;
    co_await inbox_.room();
    inbox_full_ = false;
    protocols::channel::Frame frame;
    bool due = false;
    if (idle_) {
      try {
        frame = co_await with_deadline(connection.receive(), renew_at_, "renewal");
      } catch (const Exception& e) {
        if (e.error().where != "renewal") throw;
        due = true;
      }
    } else {
      frame = co_await connection.receive();
    }
    // Evidence is no older than the policy says when a new round begins; a round that has begun is not interrupted.
    if (frame.type == protocols::messages::PONG) continue;
    if (due || (frame.type == protocols::messages::OFFER && steady_clock::now() >= renew_at_))
      co_await renew(connection);
    if (!due) inbox_.push(Received{std::move(frame)});
  }
}

// Bytes that came, and bytes that went and were confirmed, are a sign of life. After half a deadline without any the
// enclave is asked for one; another half later the link is dead.
asio::awaitable<void> Link::feel_pulse(Connection& connection) {
  const auto moved = [&] {
    return connection.bytes_received() + connection.bytes_sent() - connection.bytes_unconfirmed();
  };
  std::uint64_t before = moved();
  bool asked = false;
  for (;;) {
    pulse_.expires_after(options_.deadline / 2);
    co_await pulse_.async_wait(asio::use_awaitable);
    if (const bool alive = inbox_full_ || moved() != before; !alive && asked)
      throw Exception(base::unavailable("aggregator", fmt::format("the link is dead: nothing has moved on it for {}",
                                                                  base::text(options_.deadline))));
    else
      asked = !alive;
    if (asked) {
      // It may have to wait behind an update that the link does not take: that is silence too.
      const protocols::messages::Ping ping;
      co_await with_deadline(connection.send(protocols::messages::PING, ping),
                             steady_clock::now() + options_.deadline / 2, "the aggregator taking a question");
    }
    before = moved();
  }
}

asio::awaitable<void> Link::renew(Connection& connection) {
  co_await protocols::channel::attest_again(connection, options_.expected, steady_clock::now() + options_.deadline);
  renew_at_ = steady_clock::now() + options_.renew;
  log_->event("attested_again", "the aggregator proved itself again", {});
}

asio::awaitable<void> Link::pause(milliseconds length) {
  timer_.expires_after(length);
  boost::system::error_code ignored;
  co_await timer_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
}

void Link::stop() noexcept {
  stopped_ = true;
  try {
    timer_.cancel();
  } catch (const boost::system::system_error&) {
  }
  if (connection_) connection_->close();
}

}  // namespace cloister::participant

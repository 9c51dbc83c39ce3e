#pragma once
// Everything that happens to a node, in one queue and so in one order: connections, frames, the trainer's answers,
// deadlines, the operator. One coroutine takes from it; whoever fills it with frames waits while it is full.

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <deque>
#include <string>
#include <variant>

#include "participant/trainer_client.hpp"
#include "protocols/channel/channel.hpp"

namespace cloister::participant {

/// The enclave was allowed and allowed us.
struct Opened {
  protocols::channel::ConnectionPtr connection;
};
/// The connection of the last Opened is gone, or a dial failed. `refused`: somebody's policy said no.
struct Closed {
  std::string reason;
  bool refused = false;
};
struct Received {
  protocols::channel::Frame frame;
};
struct TaskDone {
  std::uint64_t task = 0;  ///< the node's own count: an answer to a task that was stopped is ignored
  std::uint32_t round = 0;
  TaskAnswer answer;
};
struct TaskFailed {
  std::uint64_t task = 0;
  std::uint32_t round = 0;
  std::string reason;
};
struct DeadlineCame {
  std::string name;
  std::uint64_t setting = 0;  ///< which setting of that name
};
/// A file appeared or went in a folder where the command line leaves this node its word: a withdrawal, a succession.
struct FilesChanged {};
struct StopAsked {
  std::string reason;
};

using Happening =
    std::variant<Opened, Closed, Received, TaskDone, TaskFailed, DeadlineCame, FilesChanged, StopAsked>;

/// Lives on one single-threaded executor.
class Inbox {
 public:
  explicit Inbox(boost::asio::any_io_executor executor)
      : filled_(executor, boost::asio::steady_timer::time_point::max()),
        emptied_(executor, boost::asio::steady_timer::time_point::max()) {}

  void push(Happening happening) {
    queue_.push_back(std::move(happening));
    filled_.cancel();
  }
  boost::asio::awaitable<Happening> next() {
    while (queue_.empty()) co_await woken(filled_);
    Happening out = std::move(queue_.front());
    queue_.pop_front();
    emptied_.cancel();
    co_return out;
  }
  /// Until fewer than `capacity` wait.
  boost::asio::awaitable<void> room() {
    while (queue_.size() >= capacity) co_await woken(emptied_);
  }

  static constexpr std::size_t capacity = 16;  ///< data frames are up to 1 MiB

 private:
  static boost::asio::awaitable<void> woken(boost::asio::steady_timer& timer) {
    boost::system::error_code ignored;
    co_await timer.async_wait(boost::asio::redirect_error(boost::asio::use_awaitable, ignored));
  }
  std::deque<Happening> queue_;
  boost::asio::steady_timer filled_, emptied_;
};

}  // namespace cloister::participant

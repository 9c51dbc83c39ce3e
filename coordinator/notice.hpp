#pragma once
// "Something changed": wakes every coroutine that waits for it. One thread (io_context) only.

#include <algorithm>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <cstdint>
#include <vector>

namespace cloister::coordinator {

class Notice {
 public:
  std::uint64_t version() const { return version_; }

  void raise() {
    ++version_;
    for (auto* timer : waiting_) timer->cancel();
  }

  /// Returns true once the version is another than `seen`, at once when it is already; false at `deadline`. Must
  /// outlive the wait.
  boost::asio::awaitable<bool> after(std::uint64_t seen, std::chrono::steady_clock::time_point deadline) {
    boost::asio::steady_timer timer(co_await boost::asio::this_coro::executor, deadline);
    const Waiting here(*this, timer);
    boost::system::error_code
        ignored;  // cancelled: by raise(), or with the coroutine, which then throws at its next wait
    while (version_ == seen && std::chrono::steady_clock::now() < deadline)
      co_await timer.async_wait(boost::asio::redirect_error(boost::asio::use_awaitable, ignored));
    co_return version_ != seen;
  }

 private:
  struct Waiting {
    Waiting(Notice& notice, boost::asio::steady_timer& timer) : notice_(notice), timer_(&timer) {
      notice_.waiting_.push_back(timer_);
    }
    ~Waiting() { std::erase(notice_.waiting_, timer_); }
    Waiting(const Waiting&) = delete;
    Notice& notice_;
    boost::asio::steady_timer* timer_;
  };
  std::uint64_t version_ = 0;
  std::vector<boost::asio::steady_timer*> waiting_;
};

}  // namespace cloister::coordinator

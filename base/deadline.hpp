#pragma once
// Every wait has a deadline and a name. Header-only; include it where coroutines do I/O, not in headers of values.
//
// Boost 1.81's `op() || timer` waits for the first *success*, so that a reset peer looks like a slow timeout. Here the
// first completion of either ends the wait, whatever it is.

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/experimental/parallel_group.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <exception>
#include <optional>
#include <string>
#include <type_traits>

#include "base/time.hpp"

namespace cloister::base {

using Deadline = std::chrono::steady_clock::time_point;

/// The error of a wait that took too long: unavailable, `what`, "no answer within 5s".
inline Exception too_late(std::string what, std::chrono::steady_clock::duration waited) {
  const auto ms = std::max(std::chrono::milliseconds(0), std::chrono::round<std::chrono::milliseconds>(waited));
  return Exception(unavailable(std::move(what), "no answer within " + text(ms)));
}

/// A result that Asio can leave empty when there is an exception in its place.
template <class T>
boost::asio::awaitable<std::optional<T>> boxed(boost::asio::awaitable<T> op) {
  co_return std::optional<T>(co_await std::move(op));
}

/// Awaits `op` until `deadline`; the loser is cancelled (terminal) and awaited, so nothing outlives the call.
/// `what` names the wait for people: "round 7: offer from the aggregator".
/// Throws the operation's own error as it is and at once, also operation_aborted when the caller itself was cancelled;
/// Exception{unavailable, what, "no answer within …"} when the deadline came first. `T` is void or
/// default-constructible.
template <class T>
boost::asio::awaitable<T> with_deadline(boost::asio::awaitable<T> op, Deadline deadline, std::string what) {
  if constexpr (!std::is_void_v<T> && !std::is_default_constructible_v<T>) {
    auto box = co_await with_deadline(boxed(std::move(op)), deadline, std::move(what));
    co_return std::move(*box);
  } else {
    namespace asio = boost::asio;
    namespace group = boost::asio::experimental;
    const auto start = std::chrono::steady_clock::now();
    auto executor = co_await asio::this_coro::executor;
    asio::steady_timer timer(executor, deadline);
    auto both = group::make_parallel_group(asio::co_spawn(executor, std::move(op), asio::deferred),
                                           timer.async_wait(asio::deferred));
    if constexpr (std::is_void_v<T>) {
      auto [order, failure, waited] = co_await both.async_wait(group::wait_for_one(), asio::use_awaitable);
      // The timer first and without error is "too late"; the timer first with operation_aborted is "we were cancelled".
      if (order[0] == 1 && !waited) throw too_late(std::move(what), deadline - start);
      if (failure) std::rethrow_exception(failure);
    } else {
      auto [order, failure, value, waited] = co_await both.async_wait(group::wait_for_one(), asio::use_awaitable);
      if (order[0] == 1 && !waited) throw too_late(std::move(what), deadline - start);
      if (failure) std::rethrow_exception(failure);
      co_return std::move(value);
    }
  }
}

}  // namespace cloister::base

namespace cloister {
using base::Deadline;
using base::with_deadline;
}  // namespace cloister

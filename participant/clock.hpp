#pragma once
// This machine's wall clock, held against the time that has really passed. Deadlines never ask it (they are steady);
// validity does: of charters, policies and grants. A wall clock can be put forward and back while a run is under way,
// by mistake or by somebody's hand on the network's time.

#include <chrono>
#include <functional>

#include "base/time.hpp"

namespace cloister::participant {

/// Time since the machine started, also while it slept; nobody can set it.
std::chrono::nanoseconds time_passed();

class Clock {
 public:
  explicit Clock(std::function<Time()> wall = base::now,
                 std::function<std::chrono::nanoseconds()> passed = time_passed);

  /// For judging: the wall clock, and never before what it said once plus the time that has passed since. So a clock
  /// that is put back makes nothing valid that was over, and one that is put forward makes everything that is over by
  /// it refused until it is right again.
  Time now() const;
  /// For records that judge later: the same without a jump forward, so that a clock that was wrong for a while leaves
  /// no trace.
  Time recorded() const;
  /// How far the wall clock is from what has passed (positive: ahead), 0 within a minute.
  std::chrono::seconds jump() const;

  static constexpr std::chrono::seconds tolerated{60};  ///< what an ordinary correction may be

 private:
  Time expected() const;
  std::function<Time()> wall_;
  std::function<std::chrono::nanoseconds()> passed_;
  mutable Time at_;  ///< what the wall clock said at `passed_at_`; moved on by small corrections forward only
  mutable std::chrono::nanoseconds passed_at_;
};

}  // namespace cloister::participant

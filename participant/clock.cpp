#include "participant/clock.hpp"

#include <algorithm>
#include <time.h>

namespace cloister::participant {

std::chrono::nanoseconds time_passed() {
  timespec t{};
  ::clock_gettime(CLOCK_BOOTTIME, &t);
  return std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec);
}

Clock::Clock(std::function<Time()> wall, std::function<std::chrono::nanoseconds()> passed)
    : wall_(std::move(wall)), passed_(std::move(passed)), at_(wall_()), passed_at_(passed_()) {}

Time Clock::expected() const {
  const std::chrono::nanoseconds passed = passed_();
  const Time expected = at_ + std::chrono::floor<std::chrono::seconds>(passed - passed_at_);
  const Time wall = wall_();
  if (wall <= expected || wall - expected > tolerated) return expected;
  at_ = wall;
  passed_at_ = passed;
  return wall;
}

Time Clock::now() const {
  return std::max(wall_(), expected());
}

Time Clock::recorded() const {
  return expected();
}

std::chrono::seconds Clock::jump() const {
  const std::chrono::seconds off = wall_() - expected();
  return std::chrono::abs(off) > tolerated ? off : std::chrono::seconds(0);
}

}  // namespace cloister::participant

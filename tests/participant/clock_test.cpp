// A wall clock that is set while a node runs.
#include "participant/clock.hpp"

#include <gtest/gtest.h>

namespace cloister::participant {
namespace {

using namespace std::chrono_literals;

struct ClockTest : ::testing::Test {
  const Time start = Time{} + 500'000h;
  Time wall = start;
  std::chrono::nanoseconds passed = 7h;
  Clock clock{[this] { return wall; }, [this] { return passed; }};

  void pass(std::chrono::seconds time) {
    wall += time;
    passed += time;
  }
};

TEST_F(ClockTest, SaysTheWallClocksTime) {
  pass(3h);
  EXPECT_EQ(clock.now(), start + 3h);
  EXPECT_EQ(clock.recorded(), start + 3h);
  EXPECT_EQ(clock.jump(), 0s);
}

TEST_F(ClockTest, ThatIsPutBackGoesOnFromWhereItWas) {
  pass(1h);
  wall -= 5h;
  EXPECT_EQ(clock.now(), start + 1h);
  pass(30min);
  EXPECT_EQ(clock.now(), start + 90min);
  EXPECT_EQ(clock.recorded(), start + 90min);
  EXPECT_EQ(clock.jump(), -5h);
  wall += 5h;
  EXPECT_EQ(clock.now(), start + 90min);
  EXPECT_EQ(clock.jump(), 0s);
}

TEST_F(ClockTest, ThatIsPutForwardIsBelievedOnlyWhileItIs) {
  wall += 24h * 400;
  EXPECT_EQ(clock.now(), start + 24h * 400);
  EXPECT_EQ(clock.recorded(), start) << "leaves no trace";
  EXPECT_EQ(clock.jump(), 24h * 400);
  wall = start;
  EXPECT_EQ(clock.now(), start);
  EXPECT_EQ(clock.jump(), 0s);
}

TEST_F(ClockTest, SmallCorrectionsAreFollowedForwardAndWaitedForBackward) {
  wall += 40s;
  EXPECT_EQ(clock.now(), start + 40s);
  EXPECT_EQ(clock.recorded(), start + 40s);
  wall -= 40s;
  EXPECT_EQ(clock.now(), start + 40s) << "never back";
  EXPECT_EQ(clock.jump(), 0s);
  pass(40s);
  EXPECT_EQ(clock.now(), start + 80s);
}

TEST_F(ClockTest, ManySmallStepsBackAreOneLargeOne) {
  for (int i = 0; i < 100; ++i) {
    wall -= 50s;
    (void)clock.now();
  }
  EXPECT_EQ(clock.now(), start);
  EXPECT_EQ(clock.jump(), -5000s);
}

TEST(TimePassed, GoesOn) {
  const auto before = time_passed();
  EXPECT_GT(before.count(), 0);
  EXPECT_GE(time_passed(), before);
}

}  // namespace
}  // namespace cloister::participant

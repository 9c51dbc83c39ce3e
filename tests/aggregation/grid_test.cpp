#include "aggregation/grid.hpp"

#include <cmath>

#include "tests/aggregation/support.hpp"

namespace cloister::aggregation {
namespace {

using ::testing::HasSubstr;
using testing::train;

Grid grid(std::uint64_t participants, std::uint64_t weight, double bound, std::uint64_t elements = 1000) {
  return Grid::make(*train(elements, bound), {.contributors_at_most = participants, .weight_at_most = weight}).value();
}

TEST(Grid, AThousandParticipantsOfWeightFiveThousandHave36FractionBits) {
  EXPECT_EQ(grid(1'000, 5'000, 16).tensors[0].fraction_bits, 36);
  EXPECT_NEAR(grid(1'000, 5'000, 16).tensors[0].rounding_error(), 7.3e-12, 1e-13);
}

TEST(Grid, AMillionParticipantsHave26FractionBitsAndAreToldWhatThatMeans) {
  EXPECT_EQ(grid(1'000'000, 5'000, 16).tensors[0].fraction_bits, 26);
  EXPECT_THAT(grid(1'000'000, 5'000, 16).explain(), HasSubstr("about the rounding of float32"));
  EXPECT_THAT(grid(1'000, 5'000, 16).explain(), HasSubstr("off by at most 7.3e-12"));
}

TEST(Grid, NeverHasMoreThan40FractionBits) {
  EXPECT_EQ(grid(4, 1, 1).tensors[0].fraction_bits, 40);
}

TEST(Grid, TheWorstSumOfTheBoundsStaysInTheRingAndOneMoreBitWouldNot) {
  __extension__ typedef unsigned __int128 Wide;
  for (const std::uint64_t n : {3ull, 1'000ull, 77'777ull})
    for (const double bound : {0.3, 16.0, 1000.5}) {
      const TensorGrid g = grid(n, 5'000, bound).tensors[0];
      const Wide worst = Wide{n} * 5'000 * g.magnitude, ring = Wide{1} << 63;
      EXPECT_TRUE(worst < ring);
      if (g.fraction_bits < 40) {
        EXPECT_TRUE(Wide{n} * 5'000 * static_cast<std::uint64_t>(std::ceil(std::ldexp(bound, g.fraction_bits + 1))) >=
                    ring);
      }
    }
}

TEST(Grid, TheNoiseTailTakesItsShareOfTheRing) {
  const Bounds without{.contributors_at_most = 1, .weight_at_most = 1};
  Bounds with = without;
  with.noise_tail = (std::uint64_t{1} << 63) - 1000;
  EXPECT_EQ(fraction_bits(1, 1, without).value(), 40);
  EXPECT_EQ(fraction_bits(1, 1, with).value(), 9);  // 2^9 < 1000 <= 2^10
}

TEST(Grid, ANormOverManyCoordinatesStaysIn128Bits) {
  // One participant, |x| <= 2^20: the ring alone would allow f = 40; 2^30 squares of 2^(20+f) below 2^127 allow 28.
  EXPECT_EQ(fraction_bits(0x1p20, 1, {}).value(), 40);
  EXPECT_EQ(fraction_bits(0x1p20, std::uint64_t{1} << 30, {}).value(), 28);
}

TEST(Grid, BoundsThatNoRingHoldsAreRefusedWithTheirNumbers) {
  const auto refused = Grid::make(*train(10, 1e12), {.contributors_at_most = 1'000'000, .weight_at_most = 5'000});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, Error::Kind::unsupported);
  EXPECT_THAT(refused.error().text(),
              HasSubstr("tensor w: 1000000 contributors of weight up to 5000 with values up to"));
  EXPECT_THAT(refused.error().text(), HasSubstr("lower the weight or the value bound"));
}

TEST(Grid, IntegersAreSummedAsTheyAre) {
  const Grid g = Grid::make(*testing::mixed(), {.contributors_at_most = 10}).value();
  EXPECT_EQ(g.tensors[1].fraction_bits, 0);
  EXPECT_EQ(g.tensors[1].magnitude, 1000u);
}

TEST(Grid, ATrainFormatRefusesABoundThatIsNone) {
  const Schema schema = train(4)->schema;
  for (const double bound : {0.0, -1.0, std::nan(""), double{INFINITY}})
    EXPECT_THAT(train_format(schema, bound).error().text(), HasSubstr("value_bound: wanted a finite number above 0"));
}

}  // namespace
}  // namespace cloister::aggregation

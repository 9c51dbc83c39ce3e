// Every kernel set that this machine can run, bit for bit against the reference, odd lengths too.

#include "aggregation/kernels/kernels.hpp"

#include <cmath>
#include <limits>

#include "tests/aggregation/support.hpp"

namespace cloister::aggregation {
namespace {

class EveryKernel : public ::testing::TestWithParam<Kernels> {
 protected:
  const Kernels reference = runnable_kernels().front();
  std::mt19937_64 random{20261201};
};

const std::size_t lengths[] = {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 1000, 1023};

TEST_P(EveryKernel, AccumulatesWhatTheReferenceAccumulates) {
  for (const std::size_t n : lengths)
    for (const int f : {0, 1, 26, 36, 40})
      for (const std::uint64_t weight : {1ull, 7ull, 5'000ull, 0x1'0000'0001ull, 0x7fff'ffff'ffffull}) {
        const auto values = testing::random_values(random, n);
        std::vector<std::uint64_t> one(n), two(n);
        for (std::size_t i = 0; i < n; ++i) one[i] = two[i] = random();
        reference.accumulate(one, values, f, weight);
        GetParam().accumulate(two, values, f, weight);
        ASSERT_EQ(one, two) << "length " << n << ", f " << f << ", weight " << weight;
      }
}

TEST_P(EveryKernel, RoundsTiesToEvenAndSmallNumbersToZero) {
  const std::vector<float> values{0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, 1e-30f, -1e-30f, 0x1p-149f, -0.0f, 3.0f};
  std::vector<std::uint64_t> sum(values.size());
  GetParam().accumulate(sum, values, 0, 1);
  const std::vector<std::int64_t> wanted{0, 2, 2, 0, -2, -2, 0, 0, 0, 0, 3};
  for (std::size_t i = 0; i < wanted.size(); ++i) EXPECT_EQ(static_cast<std::int64_t>(sum[i]), wanted[i]) << i;
}

TEST_P(EveryKernel, AgreesBeyondTheRangeOfTheFastWay) {
  // |v| around 2^51, where the addition trick ends, and up to the contract's 2^62.
  std::vector<float> values;
  for (const float v : {0x1p10f, 0x1.000002p11f, 0x1.fffffep10f, 0x1p11f, 0x1p21f, 0x1.fffffep21f}) {
    values.push_back(v);
    values.push_back(-v);
    values.push_back(1.25f);
  }
  std::vector<std::uint64_t> one(values.size()), two(values.size());
  reference.accumulate(one, values, 40, 3);
  GetParam().accumulate(two, values, 40, 3);
  EXPECT_EQ(one, two);
  EXPECT_EQ(one[0], std::uint64_t{3} << 50);
}

TEST_P(EveryKernel, FindsTheFirstValueOutsideWhereverItStands) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  for (const std::size_t n : lengths) {
    auto values = testing::random_values(random, n, 1);
    EXPECT_EQ(GetParam().first_outside(values, -1, 1), n);
    for (std::size_t at = 0; at < std::min<std::size_t>(n, 40); ++at)
      for (const float bad : {nan, -nan, infinity, -infinity, std::nextafter(1.0f, 2.0f), -1.5f}) {
        auto broken = values;
        broken[at] = bad;
        broken[n - 1] = bad;
        ASSERT_EQ(GetParam().first_outside(broken, -1, 1), at) << "length " << n << ", value " << bad;
      }
  }
}

TEST_P(EveryKernel, TheEndsOfTheRangeAreInside) {
  const std::vector<float> values(9, 1.0f), zeros(9, -0.0f);
  EXPECT_EQ(GetParam().first_outside(values, 0, 1), 9u);
  EXPECT_EQ(GetParam().first_outside(zeros, 0, 1), 9u);
}

TEST_P(EveryKernel, AddsInTheRing) {
  for (const std::size_t n : lengths) {
    std::vector<std::uint64_t> one(n), other(n);
    for (std::size_t i = 0; i < n; ++i) one[i] = random(), other[i] = random();
    auto two = one;
    reference.add(one, other);
    GetParam().add(two, other);
    ASSERT_EQ(one, two);
  }
}

INSTANTIATE_TEST_SUITE_P(ThisMachine, EveryKernel, ::testing::ValuesIn(runnable_kernels()), [](const auto& kernels) {
  std::string name(kernels.param.name);
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

TEST(Kernels, TheReferenceIsAlwaysThereAndFirst) {
  EXPECT_EQ(runnable_kernels().front().name, "cpu-reference");
}

}  // namespace
}  // namespace cloister::aggregation

#include "participant/data/split.hpp"

#include <gtest/gtest.h>

#include "base/crypto.hpp"
#include "base/encoding.hpp"

namespace cloister::participant::data {
namespace {

TEST(Split, EveryRecordIsInOneHalfAndAThirdOfThemTests) {
  const Split s = split_records(3'000, 7);
  EXPECT_EQ(s.train.size() + s.test.size(), 3'000u);
  EXPECT_NEAR(static_cast<double>(s.test.size()), 1'000, 80);
  for (const std::size_t row : s.test) EXPECT_TRUE(is_test_record(7, row));
}

TEST(Split, IsTheDigestAsANumberModuloThree) {
  for (std::uint64_t row = 0; row < 50; ++row) {
    const auto digest = base::sha256(base::Writer().raw(base::view("cloister split 1")).u64(3).u64(row).bytes());
    unsigned remainder = 0;  // long division, byte by byte
    for (const std::uint8_t b : digest) remainder = (remainder * 256 + b) % 3;
    EXPECT_EQ(is_test_record(3, row), remainder == 0) << row;
  }
}

TEST(Split, AnotherSettingIsAnotherSplit) {
  EXPECT_NE(split_records(100, 0).test, split_records(100, 1).test);
}

TEST(Split, IsTheSameOnEveryMachine) {
  // Of this format for good: a change here would move records between training and testing.
  const Split s = split_records(12, 0);
  EXPECT_EQ(s.test, (std::vector<std::size_t>{8, 10}));
}

}  // namespace
}  // namespace cloister::participant::data

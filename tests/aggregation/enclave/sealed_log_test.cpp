#include "aggregation/enclave/sealed_log.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cloister::enclave {
namespace {

using testing::HasSubstr;

Bytes record(std::size_t size, std::uint8_t seed) {
  Bytes out(size);
  for (std::size_t i = 0; i < size; ++i) out[i] = static_cast<std::uint8_t>(i * 13 + seed + i / 253);
  return out;
}

TEST(SealedLog, GivesBackEveryRecordWholeAndInPieces) {
  SealedLog log;
  const std::size_t p = SealedLog::piece;
  const std::vector<std::size_t> sizes = {1, p - 1, p, p + 1, 3 * p, 0, 5, 2 * p + 7};
  for (std::size_t i = 0; i < sizes.size(); ++i) log.append(record(sizes[i], static_cast<std::uint8_t>(i)));
  ASSERT_EQ(log.size(), sizes.size());
  for (std::size_t i = sizes.size(); i-- > 0;) {
    const Bytes wanted = record(sizes[i], static_cast<std::uint8_t>(i));
    EXPECT_EQ(log.length(i), sizes[i]);
    const auto whole = log.at(i);
    ASSERT_TRUE(whole.has_value()) << whole.error().text();
    EXPECT_EQ(*whole, wanted) << "record " << i;
    Bytes joined;
    while (joined.size() < sizes[i]) {
      const auto part = log.piece_at(i, joined.size());
      ASSERT_TRUE(part.has_value()) << part.error().text();
      ASSERT_FALSE(part->empty());
      ASSERT_LE(part->size(), p);
      joined.insert(joined.end(), part->begin(), part->end());
    }
    EXPECT_EQ(joined, wanted) << "record " << i;
  }
}

TEST(SealedLog, HasNoRecordAfterTheLastAndNoByteAfterItsEnd) {
  SealedLog log;
  log.append(record(10, 1));
  EXPECT_THAT(log.at(1).error().text(), HasSubstr("there is no record 1"));
  EXPECT_THAT(log.piece_at(0, 10).error().text(), HasSubstr("record 0 has no byte 10"));
}

}  // namespace
}  // namespace cloister::enclave

#include "aggregation/memory.hpp"

#include <fstream>
#include <gtest/gtest.h>
#include <string>
#include <unistd.h>

namespace cloister::aggregation {
namespace {

constexpr std::size_t piece = Pages::piece;

/// Bytes of this process that stand in memory.
std::size_t resident() {
  std::size_t total = 0, pages = 0;
  std::ifstream("/proc/self/statm") >> total >> pages;
  return pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

void fill(Memory& memory, std::uint8_t value) {
  for (std::size_t at = 0; at < memory.size(); at += 4096) {
    memory.reach(at + 1);
    memory.data()[at] = value;
  }
}

TEST(Memory, TakesThePagesThatOthersGaveBackWithWhatIsInThem) {
  const auto pages = std::make_shared<Pages>();
  {
    Memory first(4 * piece, pages);
    fill(first, 7);
  }
  Memory second(piece, pages);
  second.reach(1);
  EXPECT_EQ(second.data()[4096], 7);  // which is why nobody reads what was not written
}

TEST(Memory, ThatHeldOneOwnersValuesGivesBackZeros) {
  const auto pages = std::make_shared<Pages>();
  {
    Memory update(4 * piece, pages, /*erased=*/true);
    fill(update, 7);
    update.give_back(2 * piece);
  }
  Memory next(4 * piece, pages);
  next.reach(next.size());
  for (std::size_t at = 0; at < next.size(); at += 4096) ASSERT_EQ(next.data()[at], 0) << at;
}

TEST(Memory, GrowsByWhatAnotherGivesBackWithoutMoreThanAPieceOfBoth) {
  constexpr std::size_t size = 64 * piece;
  const auto pages = std::make_shared<Pages>();
  Memory from(size, pages);
  fill(from, 1);
  const std::size_t before = resident();
  Memory to(size, pages);
  std::size_t most = 0;
  for (std::size_t at = 0; at < size; at += 4096) {
    ASSERT_EQ(from.data()[at], 1);
    to.reach(at + 1);
    to.data()[at] = 2;
    from.give_back(at + 1);
    if (at % piece == 0) most = std::max(most, resident());
  }
  EXPECT_LT(most, before + 4 * piece);
  for (std::size_t at = 0; at < size; at += 4096) ASSERT_EQ(to.data()[at], 2);
}

TEST(Memory, OfAnySizeIsWholeAndIndependent) {
  const auto pages = std::make_shared<Pages>();
  for (const std::size_t size : {std::size_t{1}, piece - 1, piece, piece + 1, 3 * piece + 5}) {
    Memory a(size, pages), b(size, pages);
    a.reach(size);
    b.reach(size);
    std::fill_n(a.data(), size, std::uint8_t{1});
    std::fill_n(b.data(), size, std::uint8_t{2});
    EXPECT_EQ(a.data()[size - 1], 1);
    const Memory moved = std::move(a);
    EXPECT_EQ(moved.data()[0], 1);
    EXPECT_EQ(b.data()[0], 2);
  }
}

TEST(Memory, IsTheOperatingSystemsAgainAfterARelease) {
  const auto pages = std::make_shared<Pages>();
  const std::size_t before = resident();
  {
    Memory memory(64 * piece, pages);
    fill(memory, 1);
  }
  EXPECT_GT(resident(), before + 32 * piece);
  pages->release();
  EXPECT_LT(resident(), before + 8 * piece);
}

}  // namespace
}  // namespace cloister::aggregation

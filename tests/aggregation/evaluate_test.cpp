#include "aggregation/evaluate.hpp"

#include "tests/aggregation/support.hpp"

namespace cloister::aggregation {
namespace {

using testing::Format;
using ::testing::HasSubstr;
using testing::stage;

struct Scored {
  std::vector<float> scores;
  std::vector<std::uint8_t> positive;
};

Evaluation of(std::uint32_t bins, const std::vector<Scored>& sites, std::uint64_t at_least,
              std::uint64_t minimum_count) {
  const Format format = std::make_shared<const UpdateFormat>(evaluate_format(bins).value());
  Sum sum = Sum::make(format, {.contributors_at_most = sites.size()}).value();
  for (const Scored& s : sites)
    sum.add(stage(format, evaluate_update(bins, s.scores, s.positive, minimum_count)).value(), 1).value();
  return Evaluation::from(std::move(sum).report().value(), at_least);
}

TEST(Auc, IsTheShareOfPairsInOrderWithTiesCountedHalf) {
  std::mt19937_64 random(6);
  for (int repeat = 0; repeat < 20; ++repeat) {
    const std::size_t bins = 2 + random() % 30;
    std::vector<std::uint64_t> p(bins), n(bins);
    std::vector<std::pair<std::size_t, bool>> records;
    for (int i = 0; i < 100; ++i) {
      const std::size_t bin = random() % bins;
      const bool positive = random() % 3 == 0;
      ++(positive ? p : n)[bin];
      records.emplace_back(bin, positive);
    }
    double in_order = 0, pairs = 0;
    for (const auto& [a, a_positive] : records)
      for (const auto& [b, b_positive] : records)
        if (a_positive && !b_positive) ++pairs, in_order += a > b ? 1 : a == b ? 0.5 : 0;
    ASSERT_DOUBLE_EQ(auc(p, n).value(), in_order / pairs);
  }
}

TEST(Auc, IsUndefinedWithoutBothClasses) {
  const std::vector<std::uint64_t> some{1, 2}, none{0, 0};
  EXPECT_EQ(auc(some, none), std::nullopt);
  EXPECT_EQ(auc(none, some), std::nullopt);
  EXPECT_EQ(auc(none, none), std::nullopt);
}

TEST(Auc, IsOneForAPerfectScoreAndHalfForAConstant) {
  EXPECT_EQ(auc(std::vector<std::uint64_t>{0, 3}, std::vector<std::uint64_t>{4, 0}), 1);
  EXPECT_EQ(auc(std::vector<std::uint64_t>{3, 0}, std::vector<std::uint64_t>{4, 0}), 0.5);
}

TEST(Evaluation, AddsTheHistogramsOfAllSites) {
  const Evaluation e = of(4, {{{0.0f, 0.3f, 1.0f}, {0, 0, 1}}, {{0.25f, 0.6f}, {1, 1}}}, 2, 1);
  EXPECT_FALSE(e.suppressed);
  EXPECT_THAT(e.positives, ::testing::ElementsAre(0, 1, 1, 1));
  EXPECT_THAT(e.negatives, ::testing::ElementsAre(1, 1, 0, 0));
  EXPECT_DOUBLE_EQ(*e.auc(), 5.5 / 6);
}

TEST(Evaluation, ASiteBelowTheMinimumCountSendsZeros) {
  EXPECT_EQ(evaluate_update(4, std::vector<float>{0.5f, 0.6f}, std::vector<std::uint8_t>{1, 0}, 3), Bytes(8 * 9));
}

TEST(Evaluation, OfTooFewContributorsIsSuppressed) {
  const Evaluation e = of(4, {{{0.1f, 0.9f}, {0, 1}}, {{0.5f}, {1}}}, 2, 2);
  EXPECT_TRUE(e.suppressed);
  EXPECT_EQ(e.json(), R"({"at_least":2,"suppressed":true,"contributors":0,"positives":[],"negatives":[],"auc":null})");
}

TEST(Evaluation, ParsedAfterSerialisedIsTheSame) {
  const Evaluation e = of(5, {{{0.1f, 0.9f}, {0, 1}}}, 1, 1);
  const Bytes bytes = e.serialize();
  EXPECT_EQ(Evaluation::parse(bytes).value(), e);
  for (std::size_t n = 0; n < bytes.size(); ++n) EXPECT_FALSE(Evaluation::parse(View(bytes).first(n))) << n;
}

TEST(Evaluation, RefusesANumberOfBinsThatMakesNoHistogram) {
  EXPECT_EQ(evaluate_format(1).error().text(), "evaluate.bins: wanted 2 to 65536, found 1");
  EXPECT_FALSE(evaluate_format(100'000));
}

}  // namespace
}  // namespace cloister::aggregation

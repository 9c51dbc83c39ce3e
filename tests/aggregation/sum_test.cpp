// The exact sum against __int128 arithmetic, and its promise of the same bits.

#include "aggregation/sum.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/aggregation/support.hpp"

namespace cloister::aggregation {
namespace {

using testing::bytes_of;
using testing::concatenate;
using testing::Format;
using ::testing::HasSubstr;
using testing::mixed;
using testing::stage;
using testing::train;
__extension__ typedef __int128 Wide;

struct Contribution {
  std::vector<float> values;
  std::uint64_t weight;
};

std::vector<Contribution> contributions(std::uint64_t seed, std::size_t participants, std::size_t n) {
  std::mt19937_64 random(seed);
  std::vector<Contribution> out;
  for (std::size_t i = 0; i < participants; ++i)
    out.push_back({testing::random_values(random, n), random() % 5'000 + 1});
  return out;
}

Bounds bounds(std::size_t participants) {
  return {.contributors_at_least = 1, .contributors_at_most = participants, .weight_at_most = 5'000};
}

Sum add_all(const Format& format, const std::vector<Contribution>& all, unsigned threads = 1, std::size_t chunk = 0,
            Kernels kernels = fastest_kernels()) {
  Sum sum = Sum::make(format, bounds(all.size()), kernels).value();
  for (const Contribution& c : all)
    sum.add(stage(format, bytes_of(c.values), chunk, kernels).value(), c.weight, threads).value();
  return sum;
}

TEST(Sum, IsTheExactSumOfTheRoundedValues) {
  const auto all = contributions(1, 50, 1001);
  const Format format = train(1001);
  Sum sum = add_all(format, all);
  const int f = sum.grid().tensors[0].fraction_bits;
  const Report report = std::move(sum).report().value();
  Wide weight = 0;
  for (const Contribution& c : all) weight += c.weight;
  EXPECT_EQ(report.weight(), static_cast<std::uint64_t>(weight));
  for (std::size_t i = 0; i < 1000; ++i) {
    Wide exact = 0;
    for (const Contribution& c : all)
      exact += static_cast<Wide>(c.weight) * std::llrintl(std::ldexp(static_cast<long double>(c.values[i]), f));
    ASSERT_EQ(Wide{report.integers(0)[i]}, exact) << "element " << i;
  }
}

TEST(Sum, ItsMeanIsWithinTheGridOfTheTrueMean) {
  const auto all = contributions(2, 100, 1001);
  const Report report = add_all(train(1001), all).report().value();
  const double error = report.grid().tensors[0].rounding_error();
  const auto mean = report.mean(0);
  for (std::size_t i = 0; i < mean.size(); ++i) {
    long double total = 0, weight = 0;
    for (const Contribution& c : all) {
      total += static_cast<long double>(c.weight) * c.values[i];
      weight += c.weight;
    }
    ASSERT_NEAR(mean[i], static_cast<double>(total / weight), error + 1e-15);
  }
}

TEST(Sum, HasTheSameBitsForEveryOrderChunkSizeThreadCountAndKernel) {
  const std::uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  const std::size_t n = 150'001;  // enough for two threads to share it
  auto all = contributions(seed, 4, n);
  const Format format = train(n);
  const auto digest = add_all(format, all, 1, 0, runnable_kernels().front()).digest();
  std::mt19937_64 random(seed);
  for (const unsigned threads : {1u, 2u, 5u})
    for (const std::size_t chunk : {std::size_t{0}, std::size_t{4099}, std::size_t{1} << 20})
      for (const Kernels& kernels : runnable_kernels()) {
        std::shuffle(all.begin(), all.end(), random);
        ASSERT_EQ(add_all(format, all, threads, chunk, kernels).digest(), digest)
            << threads << " threads, chunks of " << chunk << ", " << kernels.name;
      }
}

TEST(Sum, MergedPartsAreTheWholeWhereverItIsCut) {
  const auto all = contributions(3, 7, 333);
  const Format format = train(333);
  const auto whole = add_all(format, all).digest();
  for (std::size_t cut = 0; cut <= all.size(); ++cut) {
    Sum left = Sum::make(format, bounds(7)).value(), right = Sum::make(format, bounds(7)).value();
    for (std::size_t i = 0; i < all.size(); ++i)
      (i < cut ? left : right).add(stage(format, bytes_of(all[i].values)).value(), all[i].weight).value();
    left.merge(std::move(right)).value();
    EXPECT_EQ(left.digest(), whole);
    EXPECT_EQ(left.contributors(), 7u);
  }
}

TEST(Sum, WhateverIsRefusedLeavesItBitForBitAsItWas) {
  const Format format = train(1000);
  Sum sum = Sum::make(format, bounds(3)).value();
  std::mt19937_64 random(4);
  const auto update = [&] { return testing::random_values(random, 1000); };
  sum.add(stage(format, bytes_of(update())).value(), 10).value();
  const auto before = sum.digest();
  for (const float bad : {NAN, INFINITY, -INFINITY, 16.01f}) {
    auto values = update();
    values[999] = bad;  // the last element: everything before it was fine
    EXPECT_FALSE(stage(format, bytes_of(values)));
  }
  EXPECT_FALSE(stage(format, View(bytes_of(update())).first(3'999)));
  EXPECT_FALSE(stage(format, bytes_of(testing::random_values(random, 1001))));
  const auto good = [&] { return stage(format, bytes_of(update())).value(); };
  EXPECT_EQ(sum.add(good(), 0).error().text(), "update.weight: wanted 1 to 5000, found 0");
  EXPECT_EQ(sum.add(good(), 5'001).error().text(), "update.weight: wanted 1 to 5000, found 5001");
  EXPECT_THAT(sum.add(stage(train(1000, 32), bytes_of(update())).value(), 1).error().text(),
              HasSubstr("update.format"));
  EXPECT_EQ(sum.digest(), before);
  EXPECT_EQ(sum.contributors(), 1u);
  EXPECT_EQ(sum.weight(), 10u);
}

// What waits outside of memory is checked once and read again when it is added.
Result<CompleteUpdate> stage_outside(const Format& format, const Bytes& bytes, std::size_t chunk, std::size_t lost_at) {
  StagedUpdate slot(format);
  slot.keep_nothing();
  for (std::size_t at = 0; at < bytes.size(); at += chunk)
    if (auto ok = slot.feed(View(bytes).subspan(at, std::min(chunk, bytes.size() - at))); !ok) return ok.error();
  return std::move(slot).complete(base::sha256(bytes),
                                  [bytes, chunk, lost_at, at = std::size_t{0}]() mutable -> Result<Bytes> {
                                    if (at >= lost_at) return base::untrusted("file", "it was changed");
                                    const std::size_t from = std::exchange(at, at + chunk);
                                    return base::copy(View(bytes).subspan(from, std::min(chunk, bytes.size() - from)));
                                  });
}

TEST(Sum, IsTheSameWhereverItsUpdatesWaited) {
  constexpr std::size_t n = 1'500'000;  // several pieces of pages
  const auto all = contributions(6, 3, n);
  const Format format = train(n);
  const auto digest = add_all(format, all).digest();
  for (std::size_t outside = 0; outside < 8; ++outside) {
    const auto pages = std::make_shared<Pages>();
    Sum sum = Sum::make(format, bounds(3), fastest_kernels(), pages).value();
    for (std::size_t i = 0; i < all.size(); ++i) {
      const Bytes bytes = bytes_of(all[i].values);
      auto update = outside >> i & 1 ? stage_outside(format, bytes, 65'537, bytes.size()) : stage(format, bytes);
      sum.add(std::move(*update), all[i].weight).value();
    }
    ASSERT_EQ(sum.digest(), digest) << "waited outside: " << outside;
  }
}

TEST(Sum, ConsumedGivesTheIntegersOfItsReport) {
  constexpr std::size_t n = 700'001;
  for (const std::size_t participants : {1, 2, 3}) {
    const auto all = contributions(7, participants, n);
    const Format format = train(n);
    const Report report = add_all(format, all).report().value();
    SumFacts facts;
    std::vector<std::vector<std::int64_t>> integers(2);
    std::move(add_all(format, all))
        .consume([&](const SumFacts& f) { facts = f; },
                 [&](std::size_t tensor, std::uint64_t from, std::span<const std::int64_t> run) -> Result<void> {
                   EXPECT_EQ(from, integers[tensor].size());
                   integers[tensor].insert(integers[tensor].end(), run.begin(), run.end());
                   return {};
                 })
        .value();
    EXPECT_EQ(facts.weight, report.weight());
    EXPECT_EQ(facts.contributors, participants);
    for (const std::size_t t : {0, 1}) ASSERT_TRUE(std::ranges::equal(integers[t], report.integers(t)));
  }
}

TEST(Sum, ThatLostAnUpdateHalfWayReportsNothing) {
  const auto all = contributions(8, 2, 300'000);
  const Format format = train(300'000);
  Sum sum = Sum::make(format, bounds(3)).value();
  sum.add(stage(format, bytes_of(all[0].values)).value(), 1).value();
  auto lost = stage_outside(format, bytes_of(all[1].values), 65'536, 500'000).value();
  EXPECT_THAT(sum.add(std::move(lost), 1).error().text(), HasSubstr("it was changed"));
  EXPECT_THAT(sum.add(stage(format, bytes_of(all[1].values)).value(), 1).error().text(), HasSubstr("half-way"));
  EXPECT_THAT(std::move(sum).report().error().text(), HasSubstr("half-way"));
}

TEST(Sum, TakesNoMoreContributorsThanItsBoundsAllow) {
  const Format format = train(4);
  Sum sum = Sum::make(format, bounds(1)).value(), other = Sum::make(format, bounds(1)).value();
  const auto update = [&] { return stage(format, bytes_of<float>({1, 2, 3, 4})).value(); };
  sum.add(update(), 1).value();
  other.add(update(), 1).value();
  const auto before = sum.digest();
  EXPECT_EQ(sum.add(update(), 1).error().text(), "round.contributors: wanted at most 1, found one more");
  EXPECT_EQ(sum.merge(std::move(other)).error().text(), "round.contributors: wanted at most 1, found 2");
  EXPECT_EQ(sum.digest(), before);
}

TEST(Sum, DoesNotMergeWithASumOnAnotherGrid) {
  const Format format = train(4);
  Sum sum = Sum::make(format, bounds(2)).value();
  EXPECT_THAT(sum.merge(Sum::make(format, bounds(2'000)).value()).error().text(), HasSubstr("sum.grid"));
  EXPECT_THAT(sum.merge(Sum::make(train(5), bounds(2)).value()).error().text(), HasSubstr("sum.format"));
}

TEST(Sum, ReportsNothingOfTooFewContributors) {
  const Format format = train(4);
  Sum sum = Sum::make(format, {.contributors_at_least = 2, .contributors_at_most = 3, .weight_at_most = 9}).value();
  sum.add(stage(format, bytes_of<float>({1, 2, 3, 4})).value(), 9).value();
  EXPECT_FALSE(sum.can_report());
  EXPECT_EQ(std::move(sum).report().error().text(), "round.contributors: wanted at least 2, found 1");
}

TEST(Sum, SumsIntegersAndDoublesBesideFloats) {
  const Format format = mixed();
  Sum sum = Sum::make(format, {.contributors_at_most = 2}).value();
  const Bytes one =
      concatenate(bytes_of<float>({1, -1, 0.5}), bytes_of<std::int64_t>({1000, 0}), bytes_of<double>({-1e6, 0.1}));
  const Bytes two =
      concatenate(bytes_of<float>({1, 1, 0.25}), bytes_of<std::int64_t>({1, 2}), bytes_of<double>({5, 0.2}));
  sum.add(stage(format, one, 5).value(), 1).value();
  sum.add(stage(format, two, 9).value(), 1).value();
  const Report report = std::move(sum).report().value();
  EXPECT_THAT(report.totals(0), ::testing::ElementsAre(2, 0, 0.75));
  EXPECT_THAT(report.integers(1), ::testing::ElementsAre(1001, 2));
  EXPECT_THAT(report.totals(2), ::testing::ElementsAre(-999'995, ::testing::DoubleNear(0.3, 1e-10)));
  EXPECT_THAT(report.mean(2), ::testing::ElementsAre(-499'997.5, ::testing::DoubleNear(0.15, 1e-10)));
}

TEST(Sum, TheWorstThatItsBoundsAllowDoesNotWrap) {
  const Format format = train(2, 16);
  Sum sum = Sum::make(format, {.contributors_at_most = 1'000, .weight_at_most = 5'000}).value();
  for (int i = 0; i < 1'000; ++i) sum.add(stage(format, bytes_of<float>({16, -16})).value(), 5'000).value();
  const Report report = std::move(sum).report().value();
  EXPECT_EQ(report.mean(0)[0], 16);
  EXPECT_EQ(report.mean(1)[0], -16);
}

}  // namespace
}  // namespace cloister::aggregation

#include "aggregation/statistics.hpp"

#include <cmath>

#include "tests/aggregation/support.hpp"

namespace cloister::aggregation {
namespace {

using testing::Format;
using ::testing::HasSubstr;
using testing::stage;

StatisticsPlan plan(std::vector<std::string> kinds = {"mean", "variance", "frequency"}) {
  return StatisticsPlan::make({{"age", Column::Kind::number, {}}, {"cp", Column::Kind::category, {"1", "2", "3"}}},
                              kinds)
      .value();
}

SiteColumn numbers(const std::vector<double>& values) {
  SiteColumn out;
  for (const double v : values) ++out.count, out.sum += v, out.square_sum += v * v;
  return out;
}
SiteColumn categories(std::vector<std::uint64_t> counts) {
  SiteColumn out;
  out.counts = std::move(counts);
  return out;
}

Statistics of(const StatisticsPlan& p, const std::vector<std::vector<SiteColumn>>& sites, std::uint64_t at_least,
              std::uint64_t minimum_count) {
  const Format format = std::make_shared<const UpdateFormat>(statistics_format(p));
  Sum sum = Sum::make(format, {.contributors_at_most = sites.size()}).value();
  for (const auto& site : sites) sum.add(stage(format, statistics_update(p, site, minimum_count)).value(), 1).value();
  return Statistics::from(p, std::move(sum).report().value(), at_least);
}

TEST(Statistics, AreThoseOfThePooledRecords) {
  const Statistics s =
      of(plan(), {{numbers({63, 67.5}), categories({1, 0, 4})}, {numbers({41, 50, 55}), categories({3, 2, 2})}}, 1, 1);
  const ColumnStatistic& age = *s.find("age");
  const double mean = (63 + 67.5 + 41 + 50 + 55) / 5;
  double variance = 0;
  for (const double v : {63.0, 67.5, 41.0, 50.0, 55.0}) variance += (v - mean) * (v - mean) / 5;
  EXPECT_FALSE(age.suppressed);
  EXPECT_EQ(age.count, 5u);
  EXPECT_EQ(age.contributors, 2u);
  EXPECT_NEAR(*age.mean, mean, 1e-9);
  EXPECT_NEAR(*age.variance, variance, 1e-5);  // squares lie on a coarser grid
  const ColumnStatistic& cp = *s.find("cp");
  EXPECT_EQ(cp.count, 12u);
  EXPECT_EQ(cp.cells[0].count, 4u);
  EXPECT_DOUBLE_EQ(cp.cells[2].frequency, 0.5);
}

TEST(Statistics, ASiteBelowTheMinimumCountSendsZerosAndSaysAbsent) {
  const Bytes bytes = statistics_update(plan(), {numbers({1, 2, 3, 4}), categories({4, 5, 9})}, 5);
  Bytes wanted(8 * 4);                         // age: contributors, count, sum, square sum
  for (const int v : {1, 0, 1, 1, 0, 5, 9}) {  // cp: contributors, cells, counts
    wanted.push_back(static_cast<std::uint8_t>(v));
    wanted.insert(wanted.end(), 7, 0);
  }
  EXPECT_EQ(bytes, wanted);
}

TEST(Statistics, AMinimumCountOfZeroStillSendsNothingOfNobody) {
  const Statistics s = of(plan(), {{numbers({}), categories({0, 0, 0})}, {numbers({3}), categories({0, 1, 0})}}, 1, 0);
  EXPECT_EQ(s.find("age")->contributors, 1u);
  EXPECT_TRUE(s.find("cp")->cells[0].suppressed);
}

TEST(Statistics, OfTooFewContributorsAreSuppressed) {
  // age at two sites of three with five records or more, at_least three: no trace of it is left.
  const Statistics s = of(plan(),
                          {{numbers({1, 2, 3, 4, 5}), categories({9, 9, 0})},
                           {numbers({1, 2, 3, 4, 5}), categories({9, 9, 9})},
                           {numbers({1, 2, 3, 4}), categories({9, 1, 9})}},
                          3, 5);
  EXPECT_EQ(*s.find("age"), (ColumnStatistic{.name = "age", .kind = Column::Kind::number}));
  EXPECT_EQ(s.json(), R"({"at_least":3,"columns":[{"name":"age","kind":"number","suppressed":true},)"
                      R"({"name":"cp","kind":"category","suppressed":false,"contributors":3,"count":27,"categories":[)"
                      R"({"category":"1","suppressed":false,"contributors":3,"count":27,"frequency":1},)"
                      R"({"category":"2","suppressed":true},{"category":"3","suppressed":true}]}]})");
}

TEST(Statistics, ASuppressedCellIsNotInTheColumnsCount) {
  const Statistics s = of(plan(), {{numbers({}), categories({8, 8, 0})}, {numbers({}), categories({8, 0, 0})}}, 2, 5);
  EXPECT_EQ(s.find("cp")->count, 16u);  // not 24: the difference would be the suppressed cell
}

TEST(Statistics, OnlyTheKindsThatWereAskedForAreThere) {
  const StatisticsPlan p = plan({"mean"});
  const Statistics s = of(p, {{numbers({1, 2}), categories({1, 1, 1})}}, 1, 1);
  EXPECT_EQ(s.columns.size(), 1u);
  EXPECT_EQ(s.columns[0].mean, 1.5);
  EXPECT_EQ(s.columns[0].variance, std::nullopt);
  EXPECT_EQ(statistics_format(p).schema.tensors().size(), 3u);
}

TEST(Statistics, ParsedAfterSerialisedAreTheSame) {
  const Statistics s = of(plan(), {{numbers({63, 67.5}), categories({1, 0, 4})}}, 1, 1);
  const Bytes bytes = s.serialize();
  EXPECT_EQ(Statistics::parse(bytes).value(), s);
  EXPECT_EQ(s.digest(), base::sha256(bytes));
  for (std::size_t n = 0; n < bytes.size(); ++n) EXPECT_FALSE(Statistics::parse(View(bytes).first(n))) << n;
  EXPECT_THAT(Statistics::parse(testing::concatenate(bytes, Bytes{0})).error().text(), HasSubstr("left over"));
}

TEST(Statistics, APlanRefusesUnknownKindsAndEmptyQuestions) {
  const std::vector<Column> age{{"age", Column::Kind::number, {}}};
  EXPECT_EQ(StatisticsPlan::make(age, {"median"}).error().text(),
            "statistics.kinds: wanted mean, variance or frequency, found \"median\"");
  EXPECT_THAT(StatisticsPlan::make(age, {"frequency"}).error().text(),
              HasSubstr("asks for no statistic of any column"));
  EXPECT_THAT(StatisticsPlan::make({{"cp", Column::Kind::category, {}}}, {"frequency"}).error().text(),
              HasSubstr("columns.cp: a category column wants at least one category"));
}

TEST(Statistics, ASiteThatClaimsToBeTwoIsRefused) {
  const Format format = std::make_shared<const UpdateFormat>(statistics_format(plan()));
  Bytes bytes = statistics_update(plan(), {numbers({1}), categories({1, 1, 1})}, 1);
  bytes[0] = 2;
  EXPECT_EQ(stage(format, bytes).error().text(),
            "update: tensor \"age.contributors\", element 0: wanted a value from 0 to 1, found one outside");
}

}  // namespace
}  // namespace cloister::aggregation

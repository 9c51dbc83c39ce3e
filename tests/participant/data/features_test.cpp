#include "participant/data/features.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cloister::participant::data {
namespace {

using aggregation::ColumnStatistic;
using aggregation::Statistics;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Kind = aggregation::Column::Kind;

attest::Manifest heart() {
  attest::Manifest m;
  m.architecture = "logistic-regression";
  m.columns = {{"age", "number", {}, {"?"}}, {"cp", "category", {"1", "2"}, {"?"}}};
  m.label_column = "num";
  m.label_positive = {"1"};
  m.statistics_kinds = {"mean", "variance", "frequency"};
  return m;
}

Statistics statistics() {
  Statistics s;
  s.columns.push_back({.name = "age", .suppressed = false, .contributors = 3, .count = 9, .mean = 50, .variance = 100});
  s.columns.push_back({.name = "cp", .kind = Kind::category, .suppressed = false, .contributors = 3, .count = 9});
  return s;
}

std::vector<float> features_of(const attest::Manifest& m, const std::optional<Statistics>& s, std::string_view csv) {
  const Table table = read_table(csv, Declaration::of(m), "f").value();
  std::vector<std::size_t> rows(table.records());
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = i;
  return Features::make(m, s).value().of(table, rows).values;
}

TEST(Features, HaveANameEachInTheManifestsOrder) {
  EXPECT_THAT(feature_names(heart()), ElementsAre("age", "age missing", "cp = 1", "cp = 2", "cp missing"));
}

TEST(Features, ANumberIsStandardisedAndACategoryIsOneHot) {
  EXPECT_THAT(features_of(heart(), statistics(), "65,2,0\n40,1,1\n"), ElementsAre(1.5f, 0, 0, 1, 0, -1, 0, 1, 0, 0));
}

TEST(Features, AMissingNumberIsTheMeanAndAFlagAMissingCategoryAFlagAlone) {
  EXPECT_THAT(features_of(heart(), statistics(), "?,?,0\n"), ElementsAre(0, 1, 0, 0, 1));
}

TEST(Features, ASuppressedColumnIsZerosAndItsPlaceStays) {
  Statistics s = statistics();
  s.columns[0] = {.name = "age"};
  EXPECT_THAT(features_of(heart(), s, "65,2,0\n?,1,0\n"), ElementsAre(0, 0, 0, 1, 0, 0, 0, 1, 0, 0));
  EXPECT_THAT(Features::make(heart(), s).value().without(), ElementsAre("age"));
}

TEST(Features, AConstantColumnIsCentredOnly) {
  Statistics s = statistics();
  s.columns[0].variance = 0;
  EXPECT_THAT(features_of(heart(), s, "50,1,0\n53,1,0\n"), ElementsAre(0, 0, 1, 0, 0, 3, 0, 1, 0, 0));
}

TEST(Features, WithoutAStatisticsTaskNumbersGoInAsTheyAre) {
  attest::Manifest m = heart();
  m.statistics_kinds.clear();
  EXPECT_THAT(features_of(m, std::nullopt, "65,2,0\n"), ElementsAre(65, 0, 0, 1, 0));
}

TEST(Features, AreRefusedBeforeTheStatisticsThatTheManifestWants) {
  EXPECT_THAT(Features::make(heart(), std::nullopt).error().text(), HasSubstr("no statistics are in force yet"));
}

TEST(Features, StatisticsOfAnotherKindAreRefused) {
  Statistics s = statistics();
  s.columns[0].kind = Kind::category;
  EXPECT_THAT(Features::make(heart(), s).error().text(), HasSubstr("statistics.age: has another kind"));
}

TEST(Features, AnImageIsItsPixelsAlone) {
  attest::Manifest m;
  m.architecture = "cnn";
  for (const char* name : {"p0", "p1", "p2", "p3"}) m.columns.push_back({name, "number", {}, {"?"}});
  m.label_column = "digit";
  m.label_positive = {"1"};
  EXPECT_THAT(features_of(m, std::nullopt, "1,2,?,4,0\n"), ElementsAre(1, 2, 0, 4));
  m.columns[0] = {"p0", "category", {"1"}, {}};
  EXPECT_THAT(Features::make(m, std::nullopt).error().text(),
              HasSubstr("data.columns.p0: the columns of an image are numbers"));
}

}  // namespace
}  // namespace cloister::participant::data

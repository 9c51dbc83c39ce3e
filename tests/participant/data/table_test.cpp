#include "participant/data/table.hpp"

#include <cmath>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cloister::participant::data {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsNan;
using ::testing::Not;

Declaration heart() {
  return {{{"age", "number", {}, {"?"}},
           {"chol", "number", {}, {"?", "0"}},
           {"cp", "category", {"1", "2", "typical"}, {"?"}}},
          "num",
          {"1", "2"}};
}

std::string why(std::string_view csv) {
  const auto table = read_table(csv, heart(), "ward.csv");
  return table ? "accepted" : table.error().text();
}

TEST(Table, WithoutAHeaderTheColumnsAreTheManifestsAndThenTheLabel) {
  const Table t = read_table("63,233,1,0\n67.5,286,typical,2\n", heart(), "f").value();
  EXPECT_THAT(t.columns[0], ElementsAre(63, 67.5));
  EXPECT_THAT(t.columns[2], ElementsAre(0, 2));
  EXPECT_THAT(t.labels, ElementsAre(0, 1));
}

TEST(Table, WithAHeaderTheColumnsAreFoundByNameAndOthersPassedOver) {
  const Table t = read_table("num,ward,cp,age,chol\n1,north,2,63,233\n", heart(), "f").value();
  EXPECT_THAT(t.columns[0], ElementsAre(63));
  EXPECT_THAT(t.columns[2], ElementsAre(1));
  EXPECT_THAT(t.labels, ElementsAre(1));
  EXPECT_TRUE(t.lacking.empty());
}

TEST(Table, AColumnThatAHospitalLacksIsMissingInEveryRecord) {
  const Table t = read_table("age,cp,num\n63,1,0\n64,2,1\n", heart(), "f").value();
  EXPECT_THAT(t.columns[1], ElementsAre(IsNan(), IsNan()));
  EXPECT_THAT(t.lacking, ElementsAre("chol"));
}

TEST(Table, CellsCompareAsNumbersWhereBothAreNumbers) {
  const Table t = read_table("63.0,0.0,2.0,2.0\n?,+5,1,0.0\n,?,?,3\n", heart(), "f").value();
  EXPECT_THAT(t.columns[0], ElementsAre(63, IsNan(), IsNan()));
  EXPECT_THAT(t.columns[1], ElementsAre(IsNan(), 5, IsNan()));
  EXPECT_THAT(t.columns[2], ElementsAre(1, 0, IsNan()));
  EXPECT_THAT(t.labels, ElementsAre(1, 0, 0));
}

TEST(Table, EveryMistakeIsNamedByLineAndColumnAndNeverQuoted) {
  const std::string text = why("63,233,1,0\nsecret,233,1,0\n63,233,9876,0\n63,233,1,\n63,233,1\n");
  EXPECT_EQ(text,
            "ward.csv:2: age: wanted a number or a marker of a missing value\n"
            "ward.csv:3: cp: wanted one of the 3 declared categories or a marker of a missing value\n"
            "ward.csv:4: num: the record has no label\n"
            "ward.csv:5: wanted 4 cells, found 3");
}

TEST(Table, AFileFullOfMistakesNamesTenOfThem) {
  std::string csv = "1,2,1,0\n";
  for (int i = 0; i < 100; ++i) csv += "x,2,1,0\n";
  const std::string text = why(csv);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 9);
}

TEST(Table, ALabelThatIsNoNumberWhereYesIsOneIsNoAnswer) {
  EXPECT_EQ(why("63,233,1,?\n"), "ward.csv:1: num: the record has no label");
}

TEST(Table, NumbersThatAreNoneAreRefused) {
  for (const char* cell : {"1e999", "nan", "inf", "0x10", "12 kg", "1.2.3"})
    EXPECT_THAT(why(std::string(cell) + ",233,1,0\n"), HasSubstr("ward.csv:1: age: wanted a number")) << cell;
}

TEST(Table, AHeaderWithoutTheLabelOrWithAColumnTwiceIsRefused) {
  EXPECT_EQ(why("age,cp\n63,1\n"), "ward.csv:1: num: the header lacks the label's column");
  EXPECT_EQ(why("age,age,num\n63,1,0\n"), "ward.csv:1: age: the header has this column twice");
}

TEST(Table, AFileWithoutRecordsIsRefused) {
  EXPECT_EQ(why(""), "ward.csv: has no records");
  EXPECT_EQ(why("age,num\n"), "ward.csv: has a header and no records");
}

TEST(Table, CountsWhatTheStatisticsTaskWants) {
  const Declaration d = heart();
  const Table t = read_table("63,0,1,0\n67,286,2,2\n?,100,2,1\n1,1,1,1\n", d, "f").value();
  const auto counted = count(t, d, {0, 1, 2});
  EXPECT_EQ(counted[0].count, 2u);
  EXPECT_EQ(counted[0].sum, 130);
  EXPECT_EQ(counted[0].square_sum, 63 * 63 + 67 * 67);
  EXPECT_EQ(counted[1].count, 2u);
  EXPECT_THAT(counted[2].counts, ElementsAre(1, 2, 0));
}

}  // namespace
}  // namespace cloister::participant::data

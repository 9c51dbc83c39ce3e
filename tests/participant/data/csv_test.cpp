#include "participant/data/csv.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cloister::participant::data {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

std::vector<CsvRecord> parsed(std::string_view text) {
  return parse_csv(text, "f.csv").value();
}

TEST(Csv, CellsAreSeparatedByCommasAndRecordsByLineEnds) {
  const auto records = parsed("a,b\r\n1, 2 \n,\n");
  ASSERT_EQ(records.size(), 3u);
  EXPECT_THAT(records[0].cells, ElementsAre("a", "b"));
  EXPECT_THAT(records[1].cells, ElementsAre("1", "2"));
  EXPECT_THAT(records[2].cells, ElementsAre("", ""));
}

TEST(Csv, TheLastLineNeedsNoEnd) {
  EXPECT_THAT(parsed("1,2\n3,4").at(1).cells, ElementsAre("3", "4"));
}

TEST(Csv, BlankLinesAndAByteOrderMarkArePassedOver) {
  const auto records = parsed(
      "\xef\xbb\xbf"
      "a,b\n\n  \r\n1,2\n\n");
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].cells[0], "a");
  EXPECT_EQ(records[1].line, 4u);
}

TEST(Csv, AQuotedCellHoldsCommasQuotesAndLineEnds) {
  const auto records = parsed("\"a,b\",\"say \"\"x\"\"\",\"two\nlines\" \nnext,1,2\n");
  EXPECT_THAT(records[0].cells, ElementsAre("a,b", "say \"x\"", "two\nlines"));
  EXPECT_EQ(records[1].line, 3u);
}

TEST(Csv, BrokenQuotesAreRefusedWithTheLineAndWithoutTheCell) {
  const auto open = parse_csv("1,2\n\"secret,3\n", "f.csv").error().text();
  EXPECT_EQ(open, "f.csv:2: a quoted cell does not end");
  const auto after = parse_csv("1,2\n\"secret\"x,3\n", "f.csv").error().text();
  EXPECT_EQ(after, "f.csv:2: there is text between a closing quote and the next comma");
}

TEST(Csv, NothingGivesNoRecords) {
  EXPECT_TRUE(parsed("").empty());
}

}  // namespace
}  // namespace cloister::participant::data

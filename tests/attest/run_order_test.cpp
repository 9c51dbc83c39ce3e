// A run order: who may submit, who orders, and inside which bounds.

#include "attest/run_order.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/encoding.hpp"
#include "tests/support/study.hpp"

namespace cloister {
namespace {

using attest::RunOrder;
using testing::HasSubstr;
using tests::Study;

const Study& good() {
  static const Study study;
  return study;
}

std::string refusal(const RunOrder& o, std::optional<std::uint32_t> before = {}) {
  const auto d = attest::judge_order(o, good().charter, before);
  return d.refusals().size() == 1 ? d.refusals()[0].text() : d.explain() + " (wanted one refusal)";
}

// Signs again after a change, so that only the change is refused.
RunOrder resigned(RunOrder o) {
  o.submit(good().submitter);
  o.number(o.run, *good().keys("acme").order);
  return o;
}

TEST(RunOrder, ParsingAfterSerializingIsTheIdentity) {
  const RunOrder o = good().run_order({{"rounds", 7}, {"learning_rate", 0.1}}, 3);
  const RunOrder again = RunOrder::parse(o.serialize()).value();
  EXPECT_EQ(again.serialize(), o.serialize());
  EXPECT_EQ(again.settings, o.settings);
  EXPECT_EQ(again.run, 3u);
  const RunOrder submission = RunOrder::parse_submission(o.submission()).value();
  EXPECT_EQ(submission.submission(), o.submission());
  EXPECT_EQ(submission.run, 0u);
}

TEST(RunOrder, OneFlippedBitDenies) {
  const Bytes bytes = good().run_order({{"rounds", 7}}).serialize();
  for (std::size_t bit = 0; bit < 8 * bytes.size(); bit += 3) {
    Bytes bad = bytes;
    bad[bit / 8] ^= static_cast<std::uint8_t>(1 << bit % 8);
    const auto o = RunOrder::parse(bad);
    EXPECT_FALSE(o && attest::judge_order(*o, good().charter).allowed()) << bit;
  }
}

TEST(RunOrder, OfAnotherCharterIsRefused) {
  RunOrder o = good().run_order();
  o.charter[0] ^= 1;
  EXPECT_THAT(refusal(resigned(o)),
              HasSubstr("denied by charter: charter: wanted " + base::digest_text(good().charter.digest)));
}

TEST(RunOrder, OnlyANamedSubmitterWithItsKeySubmits) {
  RunOrder o = good().run_order();
  o.submitter = "mallory";
  EXPECT_THAT(refusal(resigned(o)),
              HasSubstr("denied by acme (model): submitters: wanted a submitter that it names, found mallory"));
  o = good().run_order();
  o.submit(base::PrivateKey::generate());
  o.number(1, *good().keys("acme").order);
  EXPECT_THAT(refusal(o), HasSubstr("denied by acme (model): submitters.alice.key: wanted a signature by ed25519:"));
}

TEST(RunOrder, OnlyTheOrderKeyOrders) {
  RunOrder o = good().run_order();
  o.number(1, *good().keys("cloudco").grant);
  EXPECT_THAT(refusal(o), HasSubstr("denied by charter: order: wanted a signature by ed25519:"));
}

TEST(RunOrder, ARunNumberOutsideTheChartersRunsIsRefused) {
  EXPECT_THAT(refusal(good().run_order({}, 11)),
              HasSubstr("denied by charter: runs.at_most: wanted a run from 1 to 10, found run 11"));
  EXPECT_THAT(refusal(good().run_order({}, 0)), HasSubstr("found run 0"));
}

TEST(RunOrder, AQuotaThatIsSpentIsRefused) {
  EXPECT_TRUE(attest::judge_order(good().run_order(), good().charter, 4).allowed());
  EXPECT_THAT(refusal(good().run_order(), 5),
              HasSubstr("denied by acme (model): submitters.alice.runs_at_most: wanted at most 5, found 6"));
}

TEST(RunOrder, SettingsOutsideTheirRangesAreRefused) {
  EXPECT_THAT(refusal(good().run_order({{"rounds", 21}})),
              HasSubstr("denied by charter: settings: wanted settings inside the manifest's ranges, found rounds: "
                        "wanted an integer from 1 to 20, found 21"));
}

TEST(RunOrder, SettingsThatAreNotSortedOrStandTwiceDoNotParse) {
  const auto submission = [](const char* first, const char* second) {
    return base::Writer()
        .field("cloister submission 1")
        .raw(Bytes(32))
        .field("alice")
        .u32(2)
        .field(first)
        .u64(0)
        .field(second)
        .u64(0)
        .raw(Bytes(16))
        .field("")
        .bytes();
  };
  EXPECT_TRUE(RunOrder::parse_submission(submission("a", "b")));
  for (const char* second : {"a", "A"})
    EXPECT_THAT(RunOrder::parse_submission(submission("a", second)).error().text(),
                HasSubstr("must be sorted by name, no two alike"));
}

TEST(RunOrder, OfAnUnknownVersionIsRefusedByName) {
  const Bytes other = base::Writer().field("cloister run order 2").bytes();
  EXPECT_EQ(RunOrder::parse(other).error().text(),
            "run order: wanted \"cloister run order 1\", found \"cloister run order 2\"");
}

}  // namespace
}  // namespace cloister

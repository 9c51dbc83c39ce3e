// Every requirement of every policy, met and broken, with its reason. The table is complete or the last test fails:
// what judge() and check() can say is the union of what they say of these studies, so a requirement without a row is
// found.

#include "tests/attest/requirements.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <set>

namespace cloister {
namespace {

using attest::Claims;
using attest::Decision;
using attest::Finding;
using testing::HasSubstr;
using tests::attested_by;
using tests::decide;
using tests::owner_of;
using tests::requirements;
using tests::Row;
using tests::Study;
using tests::StudyOptions;

class EveryRequirement : public testing::TestWithParam<std::size_t> {};

TEST_P(EveryRequirement, IsMetByTheGoodStudyAndBrokenByOneEditWithItsReason) {
  const Row& row = requirements()[GetParam()];
  Study good({.attested_participants = attested_by(row)});
  const bool stays_broken = row.requirement == "participants";  // asked of the wrong policy: nothing makes it right
  if (!stays_broken) {
    EXPECT_TRUE(decide(row, good, false).allowed()) << decide(row, good, false).explain();
  }

  Study study({.edits = row.edits, .attested_participants = attested_by(row)});
  const Decision d = decide(row, study, true);
  EXPECT_FALSE(d.allowed());
  bool said = false;
  for (const Finding& f : d.refusals())
    if (f.owner == owner_of(row, study) && f.requirement == row.requirement &&
        f.wanted.find(row.wanted) != std::string::npos && f.found.find(row.found) != std::string::npos) {
      said = true;
      EXPECT_FALSE(f.remedy.empty());
      EXPECT_NE(f.wanted, f.found);
    }
  EXPECT_TRUE(said) << row.owner << " " << row.requirement << ": wanted …" << row.wanted << "…, found …" << row.found
                    << "…, but:\n"
                    << d.explain();
}

INSTANTIATE_TEST_SUITE_P(Table, EveryRequirement, testing::Range<std::size_t>(0, requirements().size()),
                         [](const auto& p) {
                           std::string name = requirements()[p.param].owner + "_" +
                                              requirements()[p.param].requirement + "_" + std::to_string(p.param);
                           for (char& c : name)
                             if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
                           return name;
                         });

// Whatever judge() and check() evaluate, in any of the ways they are asked, stands in the table.
TEST(Requirements, NoneIsWithoutARowInTheTable) {
  std::set<std::string> covered, evaluated;
  for (const Row& row : requirements())
    covered.insert((row.finding_owner == "charter" ? "charter " : "") + row.requirement);
  for (const bool attested : {false, true}) {
    for (const Row& row : requirements()) {
      if (attested_by(row) != attested) continue;
      Study study({.edits = row.edits, .attested_participants = attested_by(row)});
      for (const Finding& f : decide(row, study, true).findings)
        evaluated.insert((f.owner == "charter" ? "charter " : "") + f.requirement);
    }
  }
  std::set<std::string> missing;
  std::set_difference(evaluated.begin(), evaluated.end(), covered.begin(), covered.end(),
                      std::inserter(missing, missing.end()));
  EXPECT_THAT(missing, testing::IsEmpty());
}

TEST(Requirements, WhoHasNoEvidenceIsNobodysAggregator) {
  const Study study;
  const Decision d = attest::judge(nullptr, {.charter = study.charter, .at = study.at}, study.policy("usz"));
  ASSERT_EQ(d.refusals().size(), 1u);
  EXPECT_EQ(
      d.refusals()[0].text(),
      "denied by usz (data): aggregator.tee: wanted simulated, found no evidence; ask the aggregator for evidence");
}

TEST(Requirements, ANamedMeasurementCountsOnlyByTheSignerThatThePolicyNames) {
  const auto named = [](const Study& s, const std::string& signer) {
    const std::string hex = base::hex(s.charter.manifest.aggregator_measurement);
    std::string text = s.policies[3].second;
    text.replace(text.find("[\"" + hex + "\"]"), hex.size() + 4,
                 "[{ name = \"cloister-aggregator 1.2\", signed_by = \"" + signer + "\" }]");
    auto policies = s.policies;
    policies[3].second = text;
    return s.found(s.manifest, policies);
  };
  const Study study;
  const attest::Charter good = named(study, study.reference_signer.public_key().text());
  EXPECT_TRUE(attest::check(good, study.at).allowed()) << attest::check(good, study.at).explain();
  const Claims claims = study.claims();
  EXPECT_TRUE(attest::judge(&claims, {.charter = good, .at = study.at}, *good.policy("usz")).allowed());

  const attest::Charter foreign = named(study, base::PrivateKey::generate().public_key().text());
  const Decision d = attest::judge(&claims, {.charter = foreign, .at = study.at}, *foreign.policy("usz"));
  ASSERT_EQ(d.refusals().size(), 1u);
  EXPECT_EQ(d.refusals()[0].requirement, "aggregator.measurement");
  EXPECT_THAT(d.refusals()[0].wanted, HasSubstr("the charter has no such reference value"));
}

TEST(Requirements, APeersWordsStayOnTheirLine) {
  const Finding f{false, "usz (data)", "aggregator.tee", "simulated", "tdx\ndenied by nobody\x1b[2J", "x"};
  EXPECT_EQ(f.text(), "denied by usz (data): aggregator.tee: wanted simulated, found tdx?denied by nobody?[2J; x");
  EXPECT_THAT(f.json(), HasSubstr("tdx\\ndenied by nobody\\u001b[2J"));
}

TEST(Requirements, NothingEvaluatedIsADenial) {
  EXPECT_FALSE(Decision{}.allowed());
  EXPECT_EQ(Decision{}.explain(), "denied: no requirement was evaluated");
}

TEST(Requirements, ACharterThatOutlivesAPolicyIsFoundBeforeAnythingStarts) {
  const StudyOptions plain;
  const Study study({.edits = {{"usz", "until = " + base::text(plain.at + std::chrono::days(365)),
                                "until = " + base::text(plain.at + std::chrono::days(29))}},
                     .at = plain.at});
  const Decision d = attest::check(study.charter, study.at);
  ASSERT_EQ(d.refusals().size(), 1u);
  EXPECT_EQ(d.refusals()[0].requirement, "valid.until");
  EXPECT_EQ(d.refusals()[0].found, "one that ends at " + base::text(plain.at + std::chrono::days(30)));
}

TEST(Requirements, AnyoneIsWrittenOut) {
  const Study study(
      {.edits = {{"usz", "among = [\"charite\", \"usz\", \"ccf\", \"va\"]", "among = [\"anyone\"]"},
                 {"cloudco", "connect = [\"charite\", \"usz\", \"ccf\", \"va\"]", "connect = [\"anyone\"]"}}});
  EXPECT_TRUE(attest::check(study.charter, study.at).allowed()) << attest::check(study.charter, study.at).explain();
  const Study nobody({.edits = {{"usz", "among = [\"charite\", \"usz\", \"ccf\", \"va\"]", "among = []"}}});
  EXPECT_EQ(attest::check(nobody.charter, nobody.at).refusals().at(0).found, "charite, usz, ccf, va");
}

}  // namespace
}  // namespace cloister

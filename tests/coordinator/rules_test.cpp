#include "coordinator/rules.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/study.hpp"

namespace cloister::coordinator {
namespace {

using testing::HasSubstr;

struct Rules : testing::Test {
  tests::Study study{};
  Usage usage{};
  Submission submission{study.run_order(), "alice"};
  Time at = study.at;

  attest::Decision judge() const { return judge_submission(submission, study.charter, usage, at); }
  void sign() { submission.order.submit(study.submitter); }
  void expect_refused(const std::string& requirement, const std::string& found) const {
    const auto decision = judge();
    EXPECT_FALSE(decision.allowed());
    for (const auto& refusal : decision.refusals())
      if (refusal.requirement == requirement) {
        EXPECT_THAT(refusal.found, HasSubstr(found));
        EXPECT_FALSE(refusal.wanted.empty());
        EXPECT_FALSE(refusal.remedy.empty());
        return;
      }
    FAIL() << "no refusal by " << requirement << ":\n" << decision.explain();
  }
};

TEST_F(Rules, AKnownSubmitterWithinItsQuotaIsAllowed) {
  EXPECT_TRUE(judge().allowed()) << judge().explain();
}

TEST_F(Rules, AStrangerIsRefusedByName) {
  submission.order.submitter = submission.connected_as = "mallory";
  sign();
  expect_refused("submitters", "mallory");
}

TEST_F(Rules, ASignatureOfAnotherKeyIsRefused) {
  submission.order.submit(base::PrivateKey::generate());
  expect_refused("submitters.alice.key", "does not verify");
}

TEST_F(Rules, AChangedSubmissionNoLongerCarriesItsSignature) {
  submission.order.note = "changed on the way";
  expect_refused("submitters.alice.key", "does not verify");
}

TEST_F(Rules, ASubmissionOverAnotherSubmittersConnectionIsRefused) {
  submission.connected_as = "bob";
  expect_refused("submitters.bob", "a submission by alice");
}

TEST_F(Rules, ASpentQuotaIsRefused) {
  usage.runs_of_submitter = study.policy("acme").model()->submitters.front().runs_at_most;
  expect_refused("submitters.alice.runs_at_most", std::to_string(usage.runs_of_submitter + 1));
}

TEST_F(Rules, ARunBeyondTheChartersNumberIsRefused) {
  usage.next_run = study.charter.manifest.runs;
  EXPECT_TRUE(judge().allowed()) << judge().explain();
  usage.next_run += 1;
  expect_refused("runs.at_most", "run " + std::to_string(usage.next_run));
}

TEST_F(Rules, ASettingOutsideItsRangeIsRefused) {
  submission.order.settings["rounds"] = 1e6;
  sign();
  expect_refused("settings", "rounds");
}

TEST_F(Rules, AnUnknownSettingIsRefused) {
  submission.order.settings["roundz"] = 2;
  sign();
  expect_refused("settings", "roundz");
}

TEST_F(Rules, AnotherChartersSubmissionIsRefused) {
  submission.order.charter = {};
  sign();
  expect_refused("charter", base::digest_text({}));
}

TEST_F(Rules, ACharterThatIsOverTakesNoRuns) {
  at = study.charter.not_after;
  expect_refused("not_after", base::text(at));
}

TEST_F(Rules, AModelOwnersPolicyThatIsOverTakesNoRuns) {
  at = study.policy("acme").valid_until + std::chrono::hours(1);
  expect_refused("valid.until", base::text(at));
}

TEST_F(Rules, ASubmitterCancelsItsOwnRunsOnly) {
  coordinator::Run run;
  run.id = {study.charter.digest, 4};
  run.submitter = "alice";
  EXPECT_TRUE(judge_cancel(run, "alice", study.charter).allowed());
  const auto decision = judge_cancel(run, "bob", study.charter);
  EXPECT_FALSE(decision.allowed());
  EXPECT_THAT(decision.explain(), HasSubstr("the submitter of run 4, alice"));
}

}  // namespace
}  // namespace cloister::coordinator

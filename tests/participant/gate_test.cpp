#include "participant/gate.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/study.hpp"

namespace cloister::participant {
namespace {

using protocols::round::OfferedTask;
using ::testing::HasSubstr;

struct GateTest : ::testing::Test {
  tests::Study study{tests::StudyOptions{}};
  attest::Claims claims = study.claims();
  LedgerState ledger;
  std::string owner = "charite";
  GateInputs inputs{.charter = study.charter,
                    .owner = owner,
                    .at = study.at,
                    .claims = &claims,
                    .host_data = claims.host_data,
                    .ledger = ledger,
                    .trainer = study.charter.manifest.trainer,
                    .train_records = 200};
  OfferedTask offered;

  void SetUp() override {
    offered.order = study.run_order();
    offered.settings = *attest::complete_settings(study.charter.manifest, {});
    offered.round = 2;
    offered.task = "train";
    offered.train_round = 1;
    offered.cohort = study.charter.manifest.data_count();
  }

  void charge(std::uint64_t run, std::uint32_t round, const std::string& task) {
    const RoundId id{study.charter.digest, run, round};
    ledger.rounds[id].charge = Charge{id, study.charter.manifest.study, task, {}};
  }
  std::string refusal() const { return judge_task(offered, inputs).explain(); }
};

TEST_F(GateTest, AllowsWhatCharterPolicyAndLedgerAllow) {
  const attest::Decision d = judge_task(offered, inputs);
  EXPECT_TRUE(d.allowed()) << d.explain();
  offered.task = "statistics";
  EXPECT_TRUE(judge_task(offered, inputs).allowed()) << refusal();
  offered.task = "evaluate";
  EXPECT_TRUE(judge_task(offered, inputs).allowed()) << refusal();
}

TEST_F(GateTest, RefusesACharterOutsideItsPeriod) {
  inputs.at = study.charter.not_after;
  EXPECT_THAT(refusal(), HasSubstr("not_after"));
}

TEST_F(GateTest, RefusesAChangedRunOrder) {
  offered.order.run = 2;
  EXPECT_THAT(refusal(), HasSubstr("order: wanted a signature by"));
}

TEST_F(GateTest, RefusesAnOrderOfAStranger) {
  const tests::Study other{tests::StudyOptions{}};
  offered.order = other.run_order();
  EXPECT_FALSE(judge_task(offered, inputs).allowed());
}

TEST_F(GateTest, RefusesAnAggregatorWithoutEvidence) {
  inputs.claims = nullptr;
  EXPECT_THAT(refusal(), HasSubstr("charite (data): aggregator.tee"));
}

TEST_F(GateTest, RefusesAnotherMeasurementThanThePolicyLists) {
  claims.measurement[0] ^= 1;
  EXPECT_THAT(refusal(), HasSubstr("charite (data): aggregator.measurement"));
}

TEST_F(GateTest, RefusesTheInstanceOfAnotherLaunch) {
  (*inputs.host_data)[0] ^= 1;
  EXPECT_THAT(refusal(), HasSubstr("host_data"));
}

TEST_F(GateTest, RefusesATrainTaskBeyondTheLedgersRounds) {
  for (std::uint32_t n = 3; n < 53; ++n) charge(1, n, "train");
  EXPECT_THAT(refusal(),
              HasSubstr("charite (data): study.rounds.at_most: wanted at most 50, found train task 51 of this run"));
}

TEST_F(GateTest, RefusesARunBeyondTheLedgersRuns) {
  for (std::uint64_t run = 100; run < 120; ++run) charge(run, 1, "train");
  EXPECT_THAT(refusal(),
              HasSubstr("charite (data): study.runs.at_most: wanted at most 20, found run 21 of this study"));
}

TEST_F(GateTest, RefusesASecondStatisticsTaskBeyondThePolicy) {
  offered.task = "statistics";
  const auto at_most = study.policy(owner).data()->statistics->at_most;
  for (std::uint32_t n = 10; n < 10 + at_most; ++n) charge(1, n, "statistics");
  EXPECT_THAT(refusal(), HasSubstr("charite (data): tasks.statistics.at_most"));
}

TEST_F(GateTest, ARefundedChargeLeavesRoom) {
  for (std::uint32_t n = 3; n < 53; ++n) charge(1, n, "train");
  ledger.rounds.begin()->second.refunded = true;
  EXPECT_THAT(refusal(), ::testing::Not(HasSubstr("study.rounds.at_most")));
}

TEST_F(GateTest, RefusesMoreRecordsThanTheBoundWithoutNamingThem) {
  inputs.train_records = 123456;
  EXPECT_THAT(refusal(), HasSubstr("data.records.at_most"));
  EXPECT_THAT(refusal(), ::testing::Not(HasSubstr("123456")));
}

TEST_F(GateTest, RefusesToTrainWithoutRecords) {
  inputs.train_records = 0;
  EXPECT_THAT(refusal(), HasSubstr("data.records.at_most"));
}

TEST_F(GateTest, RefusesAnotherTrainerForEveryTask) {
  inputs.trainer[0] ^= 1;
  for (const char* task : {"statistics", "train", "evaluate"}) {
    offered.task = task;
    EXPECT_THAT(refusal(), HasSubstr("training.trainer: wanted " + base::digest_text(study.charter.manifest.trainer)))
        << task;
  }
}

TEST_F(GateTest, RefusesACohortBelowThePolicysMinimum) {
  offered.cohort = 2;
  EXPECT_THAT(refusal(),
              HasSubstr("charite (data): study.participants.at_least: wanted at least 3, found a cohort of 2"));
}

TEST_F(GateTest, RefusesWhileAWithdrawalIsInForce) {
  inputs.withdrawn = true;
  EXPECT_THAT(refusal(), HasSubstr("charite (data): withdrawal: wanted none in force, found in force"));
}

TEST_F(GateTest, RefusesNewRunsOfASucceededCharterButFinishesARunningOne) {
  ledger.successors[study.charter.digest] = {};
  EXPECT_THAT(refusal(), HasSubstr("order new runs under the successor"));
  ledger.runs[{study.charter.digest, 1}].receipt_key = base::PublicKey{};
  EXPECT_TRUE(judge_task(offered, inputs).allowed()) << refusal();
}

TEST_F(GateTest, RefusesSettingsOutsideTheManifestsRanges) {
  offered.settings["rounds"] = 21;
  EXPECT_THAT(refusal(), HasSubstr("settings"));
}

TEST_F(GateTest, RefusesATaskThatTheManifestDoesNotHave) {
  offered.task = "export";
  EXPECT_THAT(refusal(), HasSubstr("tasks: wanted a task of the manifest, found export"));
}

TEST_F(GateTest, RefusesForAnOwnerThatIsNotInTheCharter) {
  owner = "mallory";
  EXPECT_THAT(refusal(), HasSubstr("wanted a data owner of the charter, found mallory"));
}

}  // namespace
}  // namespace cloister::participant

#include "coordinator/follower.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.hpp"
#include "protocols/launch/documents.hpp"
#include "tests/coordinator/script.hpp"
#include "tests/coordinator/support.hpp"

namespace cloister::coordinator {
namespace {

using testing::HasSubstr;
using Lie = tests::ScriptedEnclave::Lie;

struct Following : testing::Test {
  tests::Temporary folder;
  attest::simulated::Platform platform{base::PrivateKey::generate(), {}};
  tests::Study study{tests::quick_study(platform)};
  tests::ScriptedEnclave enclave{study, platform};
  std::unique_ptr<Store> store = Store::open(folder / "database");
  RunId id{study.charter.digest, 1};
  attest::RunOrder order;
  int changes = 0;
  std::vector<std::string> statuses;
  std::unique_ptr<Follower> follower;

  Following() {
    store->add_study(study.charter, study.at);
    attest::RunOrder wanted = study.run_order({{"rounds", 2}});
    order = attest::RunOrder::parse(tests::submit(*store, study, wanted)->order).value();
    store->start(id, enclave.record, true, "{}", study.at);
    follow();
  }
  void follow() {
    follower = std::make_unique<Follower>(
        study.charter, *store, *store->run(id), [this] { ++changes; },
        [this](std::string json) { statuses.push_back(std::move(json)); });
  }
  /// Feeds the frames until one is refused or ends the run.
  Result<std::optional<End>> tell(const std::vector<tests::Frame>& frames) {
    for (const auto& frame : frames) {
      auto result = follower->on(frame, study.at);
      if (!result || *result) return result;
    }
    return std::optional<End>();
  }
  void expect_refused(Lie lie, const std::string& text) {
    const auto result = tell(enclave.whole_run(order, lie));
    ASSERT_FALSE(result) << "nothing was refused";
    EXPECT_THAT(result.error().text(), HasSubstr(text));
  }
};

TEST_F(Following, AWholeRunIsCheckedStoredAndDone) {
  const auto end = tell(enclave.whole_run(order));
  ASSERT_TRUE(end) << end.error().text();
  ASSERT_TRUE(*end);
  EXPECT_EQ((*end)->state, RunState::done);
  EXPECT_EQ(store->receipts(id).size(), 5u);  // statistics, train, evaluate, train, evaluate
  EXPECT_EQ(store->run(id)->round, 5u);
  EXPECT_EQ(store->run(id)->evidence, enclave.evidence);
  const auto model = store->result(id, "model", 0);
  ASSERT_TRUE(model);
  EXPECT_EQ(base::read_file(store->model_path(model->digest), 1000).value(), tests::ScriptedEnclave::final_model());
  EXPECT_THAT(store->events(id).back().json, HasSubstr("\"kind\":\"model\""));
  const auto verified = verify_run(study.charter, enclave.record, enclave.evidence, store->receipts(id), study.at);
  ASSERT_TRUE(verified) << verified.error().text();
  EXPECT_EQ(verified->receipts.size(), 5u);
}

TEST_F(Following, ThePublishedAucIsInTheEvent) {
  tell(enclave.whole_run(order)).value();
  std::string published;
  for (const Event& event : store->events(id))
    if (event.json.find("\"auc\"") != std::string::npos) published = event.json;
  EXPECT_THAT(published, HasSubstr("\"kind\":\"evaluate\""));
  EXPECT_THAT(published, HasSubstr("\"auc\":0.9583333333333334"));  // (12 - 0.5) of 12 pairs
}

TEST_F(Following, WhatIsToldAgainAfterARestartChangesNothing) {
  auto frames = enclave.whole_run(order);
  frames.resize(3);
  tell(frames).value();
  const std::size_t events = store->events(id).size();
  follow();
  tell(frames).value();
  EXPECT_EQ(store->events(id).size(), events);
  EXPECT_EQ(tell(enclave.whole_run(order)).value()->state, RunState::done);
}

TEST_F(Following, AModelThatWasCutOffComesAgain) {
  auto frames = enclave.whole_run(order);
  const auto whole = frames;
  frames.resize(frames.size() - 2);  // without the model's bytes and the end
  tell(frames).value();
  follower->cut();
  EXPECT_EQ(tell(whole).value()->state, RunState::done);
  EXPECT_TRUE(store->result(id, "model", 0));
}

TEST_F(Following, AReceiptOfAnotherKeyIsRefused) {
  expect_refused(Lie::foreign_receipt_key, "the signature is not by receipt key");
}
TEST_F(Following, AReceiptThatTooFewWitnessesSignedIsRefused) {
  expect_refused(Lie::too_few_witnesses, "wanted acknowledgements of 3 of the 4 witnesses, found 2");
}
TEST_F(Following, AWithheldReceiptIsNoticed) {
  expect_refused(Lie::skipped_round, "round: wanted 2, found 3");
}
TEST_F(Following, AResultThatItsReceiptDoesNotNameIsRefused) {
  expect_refused(Lie::other_result, "as the receipt says");
}
TEST_F(Following, AReceiptOfAnotherOrderIsRefused) {
  expect_refused(Lie::other_order, "wanted the order that was given");
}
TEST_F(Following, AReceiptOfOtherEvidenceIsRefused) {
  expect_refused(Lie::other_evidence, "this run's instance evidence");
}
TEST_F(Following, DoneBeforeTheLastRoundIsNotBelieved) {
  expect_refused(Lie::early_done, "wanted 5 committed rounds before \"done\"; found 2");
}

TEST_F(Following, DoneWithoutTheModelIsNotBelieved) {
  auto frames = enclave.whole_run(order);
  frames.erase(frames.end() - 4, frames.end() - 1);
  EXPECT_THAT(tell(frames).error().text(), HasSubstr("it has not come"));
}

TEST_F(Following, AnotherReceiptForACommittedRoundIsAFork) {
  auto frames = enclave.whole_run(order);
  frames.resize(1);
  tell(frames).value();
  tests::ScriptedEnclave twin = enclave;  // same keys, another answer: nobody of the hospitals contributed the same
  messages::ReceiptRecord other;
  auto receipt = protocols::round::SignedReceipt::parse(store->receipts(id).front().receipt)->receipt;
  receipt.members.set(receipt.members.size() - 1, protocols::round::MemberState::late);
  other.set_receipt(base::text(protocols::round::SignedReceipt::sign(receipt, twin.receipt_key).serialize()));
  EXPECT_THAT(tell({tests::frame(messages::RECEIPT_RECORD, other)}).error().text(),
              HasSubstr("one of the two is a fork"));
}

TEST_F(Following, EvidenceOfAnotherRecordIsRefused) {
  tests::ScriptedEnclave other(study, platform);
  enclave.evidence = other.evidence;
  const auto result = tell(enclave.whole_run(order));
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().text(), HasSubstr("aggregator.report_data"));
}

TEST_F(Following, EvidenceFromAPlatformThatNobodyListsIsRefused) {
  const attest::simulated::Platform unlisted(base::PrivateKey::generate(), {});
  tests::ScriptedEnclave elsewhere(study, unlisted);
  elsewhere.receipt_key = enclave.receipt_key;
  elsewhere.record = enclave.record;
  elsewhere.evidence = elsewhere.attest(protocols::launch::instance_report_data(enclave.record));
  const auto result = tell(elsewhere.whole_run(order));
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().text(), HasSubstr("aggregator.platforms"));
}

TEST_F(Following, AStatusIsLiveAndNotStored) {
  tell({tests::frame(messages::RUN_STATUS, tests::ScriptedEnclave::status(1, 1, "collecting"))}).value();
  ASSERT_EQ(statuses.size(), 1u);
  EXPECT_THAT(statuses[0], HasSubstr("\"state\":\"collecting\""));
  EXPECT_EQ(changes, 0);
}

TEST_F(Following, AMessageOfAnotherRunIsRefused) {
  EXPECT_THAT(
      tell({tests::frame(messages::RUN_STATUS, tests::ScriptedEnclave::status(2, 1, "collecting"))}).error().text(),
      HasSubstr("wanted run 1; found run 2"));
}

TEST_F(Following, AFailedRunKeepsItsReason) {
  messages::RunEnd end;
  end.set_run(1);
  end.set_outcome("failed");
  end.set_reason("round 2: 2 contributors, charite wants 3");
  const auto ended = tell({tests::frame(messages::RUN_END, end)}).value();
  EXPECT_EQ(ended->state, RunState::failed);
  EXPECT_EQ(ended->reason, "round 2: 2 contributors, charite wants 3");
}

TEST_F(Following, DataThatNobodyAnnouncedIsRefused) {
  EXPECT_THAT(tell({{messages::DATA, {1, 2}}}).error().text(), HasSubstr("no transfer was announced"));
}

}  // namespace
}  // namespace cloister::coordinator

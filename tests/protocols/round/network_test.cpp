// Whole runs over a network that loses, repeats, reorders and cuts, with participants that crash at every step.

#include "tests/protocols/round/network.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cloister::tests {
namespace {

const Study& study() {
  static const Study one(small_study());
  return one;
}

bool done(const Network& n) {
  return n.finish && n.finish->outcome == round::Outcome::done;
}

TEST(RoundNetwork, ARunPublishesWhatThePoliciesSayAndEverybodyHoldsTheSameChain) {
  Network n(study(), {{"rounds", 2}}, 1);
  n.run();
  n.expect_sound();
  ASSERT_TRUE(done(n)) << (n.finish ? n.finish->reason : "no end");
  ASSERT_EQ(n.records.size(), 5U);  // statistics, train, evaluate, train, evaluate
  std::vector<std::string> results;
  for (const auto& r : n.results) results.push_back(r.kind() + " of round " + std::to_string(r.round()));
  EXPECT_EQ(results, (std::vector<std::string>{"evaluate of round 3", "model of round 4", "evaluate of round 5"}));
  for (const auto& [owner, node] : n.nodes()) {
    ASSERT_TRUE(node.ended) << owner;
    EXPECT_EQ(node.ended->outcome, round::Outcome::done) << node.ended->reason;
    EXPECT_EQ(node.ended->final_model, base::sha256(n.values.at(4)));
    ASSERT_EQ(node.disk.kept.size(), 5U);
    EXPECT_EQ(node.published.size(), 3U);  // statistics and two evaluations
    EXPECT_EQ(node.disk.charges.size(), 5U);
    EXPECT_TRUE(node.refused.empty());
    EXPECT_TRUE(node.disconnects.empty());
    auto kept = round::verify_chain(node.disk.kept, *n.charter, n.receipt_key.public_key(), n.evidence);
    EXPECT_TRUE(kept.has_value());
  }
}

TEST(RoundNetwork, TheResultIsTheSameForEveryOrderOfArrival) {
  std::set<Bytes> models;
  std::set<std::vector<std::string>> orders;
  for (std::uint64_t seed = 0; seed < 12; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Network n(study(), one_train_round(), seed);
    n.run();
    n.expect_sound();
    ASSERT_TRUE(done(n));
    models.insert(n.values.at(2));
    orders.insert(n.added.at(2));
  }
  EXPECT_EQ(models.size(), 1U);
  EXPECT_GT(orders.size(), 1U) << "the seeds made no difference: this test shows nothing";
}

class EveryMessage : public ::testing::TestWithParam<WireFault::Kind> {};

TEST_P(EveryMessage, OfALinkMayFailAndTheRunStillEndsSoundly) {
  for (std::uint64_t seed : {3U, 4U}) {
    Network whole(study(), one_train_round(), seed);
    whole.run();
    ASSERT_TRUE(done(whole));
    for (std::size_t at = 0; at < whole.node("usz").messages; ++at) {
      SCOPED_TRACE("seed " + std::to_string(seed) + ", message " + std::to_string(at));
      Network n(study(), one_train_round(), seed);
      n.fault = {GetParam(), "usz", at};
      n.run();
      n.expect_sound();
      ASSERT_TRUE(n.finish);
      // One fault costs at most one of four contributors, or one of four witnesses.
      EXPECT_TRUE(done(n)) << n.finish->reason;
      for (const auto& [owner, node] : n.nodes()) EXPECT_TRUE(node.ended) << owner << " never learnt how it ended";
      if (HasFailure()) return;
    }
  }
}

std::string fault_name(const ::testing::TestParamInfo<WireFault::Kind>& fault) {
  constexpr const char* names[] = {"None", "Dropped", "Repeated", "Reordered", "Cut"};
  return names[static_cast<std::size_t>(fault.param)];
}

INSTANTIATE_TEST_SUITE_P(Wire, EveryMessage,
                         ::testing::Values(WireFault::Kind::drop, WireFault::Kind::repeat, WireFault::Kind::reorder,
                                           WireFault::Kind::cut),
                         fault_name);

TEST(RoundNetwork, AParticipantThatCrashesBeforeOrAfterAnyStepComesBackFromItsDisk) {
  Network whole(study(), one_train_round(), 5);
  whole.run();
  const std::size_t steps = whole.node("usz").steps;
  ASSERT_GT(steps, 30U);
  for (std::size_t at = 0; at < steps; ++at)
    for (bool after : {false, true}) {
      SCOPED_TRACE("seed 5, usz, step " + std::to_string(at) + (after ? ", after" : ", before"));
      Network n(study(), one_train_round(), 5);
      n.crash = Crash{"usz", at, after};
      n.run();
      n.expect_sound();
      ASSERT_TRUE(n.finish);
      EXPECT_TRUE(done(n)) << n.finish->reason;
      // A crash costs nobody its contribution: the same update is sent on, and the model is the one without a crash.
      EXPECT_EQ(n.values.at(2), whole.values.at(2));
      if (HasFailure()) return;
    }
}

TEST(RoundNetwork, ManyFaultsAtOnceNeverMakeAnUnsoundRun) {
  std::size_t finished = 0;
  for (std::uint64_t seed = 100; seed < 160; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Network n(study(), one_train_round(), seed);
    n.fault_rate = 0.1;
    n.fault_count = 12;
    n.crash = Crash{"ccf", static_cast<std::size_t>(seed % 40), seed % 2 == 0};
    n.run();
    n.expect_sound();
    ASSERT_TRUE(n.finish);
    if (done(n))
      ++finished;
    else
      EXPECT_NE(n.finish->reason, "");
    if (HasFailure()) return;
  }
  EXPECT_GT(finished, 10U);
}

TEST(RoundNetwork, AHospitalThatNeverComesIsNamedAsAbsentAndTheOthersGoOn) {
  Network n(study(), one_train_round(), 7);
  n.node("va").down = true;
  n.run();
  n.expect_sound();
  ASSERT_TRUE(done(n));
  for (const auto& r : n.records) {
    const auto receipt = round::SignedReceipt::parse(r.receipt).value().receipt;
    EXPECT_EQ(receipt.members[3].state, round::MemberState::absent);
    EXPECT_EQ(receipt.members[3].reason, "not connected while the round was open");
    EXPECT_EQ(receipt.contributors(), 3U);
  }
}

TEST(RoundNetwork, ARunBelowTheLargestAtLeastFailsAndNamesWhoseRequirementAndWhoIsMissing) {
  Network n(study(), one_train_round(), 7);
  n.node("va").down = true;
  n.node("ccf").gate = [](const round::OfferedTask& t) {
    attest::Decision d;
    d.add({t.task != "train", "ccf (data)", "study.rounds.at_most", "at most 0", "1", "found a new charter"});
    return d;
  };
  n.run();
  n.expect_sound();
  ASSERT_TRUE(n.finish);
  EXPECT_EQ(n.finish->outcome, round::Outcome::failed);
  EXPECT_THAT(n.finish->reason, ::testing::HasSubstr("study.participants.at_least: wanted 3 contributors, found 2"));
  EXPECT_THAT(
      n.finish->reason,
      ::testing::HasSubstr("ccf declined: denied by ccf (data): study.rounds.at_most: wanted at most 0, found 1"));
  EXPECT_THAT(n.finish->reason, ::testing::HasSubstr("va absent: not connected while the round was open"));
  EXPECT_TRUE(n.results.empty());
  EXPECT_EQ(n.node("usz").ended->outcome, round::Outcome::failed);
  EXPECT_EQ(n.node("usz").ended->reason, n.finish->reason);
}

TEST(RoundNetwork, ATrainerThatFailsIsADeclineWithItsReason) {
  Network n(study(), one_train_round(), 7);
  n.node("usz").task_fails = "the child ran out of memory";
  n.run();
  n.expect_sound();
  ASSERT_TRUE(done(n));
  const auto receipt = round::SignedReceipt::parse(n.records[1].receipt).value().receipt;
  EXPECT_EQ(receipt.members[1].state, round::MemberState::declined);
  EXPECT_THAT(receipt.members[1].reason, ::testing::HasSubstr("the child ran out of memory"));
}

TEST(RoundNetwork, AQuorumClosesTheRoundBeforeTheLastAndNamesItLate) {
  Network n(study(), {{"rounds", 1}, {"quorum", 3}}, 9);
  n.run();
  n.expect_sound();
  ASSERT_TRUE(done(n));
  for (const auto& [number, owners] : n.added) EXPECT_EQ(owners.size(), 3U) << "round " << number;
}

TEST(RoundNetwork, WithoutTheQuorumOfWitnessesTheRunFailsByItsDeadlineAndNothingIsPublished) {
  Network n(study(), one_train_round(), 11);
  // Two of four hospitals can train but never sign: their receipts' signatures get lost.
  n.at_delivery = [&](const std::string& owner, const round::Message& m) {
    if ((owner == "usz" || owner == "va") && std::holds_alternative<messages::Acknowledge>(m))
      const_cast<messages::Acknowledge&>(std::get<messages::Acknowledge>(m)).set_acknowledgement("");
  };
  n.run();
  ASSERT_TRUE(n.finish);
  EXPECT_EQ(n.finish->outcome, round::Outcome::failed);
  EXPECT_THAT(n.finish->reason,
              ::testing::HasSubstr("round 1: wanted acknowledgements of 3 of 4 witnesses within 1m, found 2"));
  EXPECT_TRUE(n.records.empty());
  EXPECT_TRUE(n.results.empty());
  for (const auto& [owner, node] : n.nodes()) EXPECT_TRUE(node.published.empty());
}

}  // namespace
}  // namespace cloister::tests

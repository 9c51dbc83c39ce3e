// Participants that cheat, against the real aggregator: each fault has its name, its refusal has its reason, and the
// sum stays as it was.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/protocols/round/network.hpp"

namespace cloister::tests {
namespace {

using base::Sha256;
using ::testing::HasSubstr;

const Study& study() {
  static const Study one(small_study());
  return one;
}

template <class Step>
std::vector<Step> all(const round::AggregatorSteps& steps) {
  std::vector<Step> out;
  for (const auto& s : steps)
    if (const auto* one = std::get_if<Step>(&s)) out.push_back(*one);
  return out;
}

template <class M>
std::vector<M> sent(const round::AggregatorSteps& steps, const std::string& owner) {
  std::vector<M> out;
  for (const auto& s : all<round::SendTo>(steps))
    if (const auto* m = std::get_if<M>(s.message.get()); m != nullptr && s.owner == owner) out.push_back(*m);
  return out;
}

/// An update as an honest participant announces it; a fault changes one thing of it.
messages::Update honest(const Bytes& bytes, std::uint32_t number = 1, const std::string& task = "statistics") {
  messages::Update u;
  u.set_run(1);
  u.set_round(number);
  u.set_digest(base::text(base::sha256(bytes)));
  u.set_length(32);
  u.set_weight(1);
  u.set_schema(base::text(small_shapes().at(task).schema));
  return u;
}

/// The aggregator in round 1 (statistics, weight 1) or, with `skip`, in round 1 of a study without statistics (train).
class CheatingParticipant : public ::testing::Test {
 protected:
  explicit CheatingParticipant(const Study& s = study()) : owned(s) { begin({}); }

  void begin(attest::Settings settings) {
    network.emplace(owned, settings.empty() ? one_train_round() : settings, 1);
    machine.emplace(round::Aggregator::create(network->aggregator_setup()).value());
    machine->start();
    for (const std::string& owner : owned.options.data_owners) {
      machine->connected(owner);
      on(owner, messages::ParticipantHello());
      messages::Accept a;
      a.set_round(1);
      on(owner, a);
    }
  }

  round::AggregatorSteps on(const std::string& owner, round::Message m) { return machine->on(owner, m); }

  round::AggregatorSteps upload(const std::string& owner, const Bytes& what, std::uint32_t number = 1,
                                const std::string& task = "statistics") {
    on(owner, honest(what, number, task));
    machine->slot_open(owner, number, 0);
    messages::Transfer t;
    t.set_what("update");
    t.set_digest(base::text(base::sha256(what)));
    t.set_length(32);
    on(owner, t);
    return machine->staged(owner, number, base::sha256(what));
  }

  /// Refused before a byte is accepted: no slot, nothing added, the member named, the reason told to peer and log.
  void expect_refused(const round::AggregatorSteps& steps, const std::string& reason) {
    EXPECT_TRUE(all<round::OpenSlot>(steps).empty());
    EXPECT_TRUE(all<round::Add>(steps).empty());
    const auto refused = sent<messages::UpdateRefused>(steps, "usz");
    ASSERT_EQ(refused.size(), 1U);
    EXPECT_THAT(refused[0].reason(), HasSubstr(reason));
    EXPECT_GE(refused[0].findings_size(), 1);
    const auto logged = all<round::LogRefusal>(steps);
    ASSERT_EQ(logged.size(), 1U);
    EXPECT_THAT(logged[0].decision.explain(), HasSubstr(reason));
  }

  std::string state_of(std::size_t member) { return machine->status().members(static_cast<int>(member)).state(); }

  const Study& owned;
  std::optional<Network> network;
  std::optional<round::Aggregator> machine;
  const Bytes bytes = Bytes(32, 5);
};

TEST_F(CheatingParticipant, OfAnotherRun) {
  auto u = honest(bytes);
  u.set_run(2);
  expect_refused(on("usz", u), "update.run: wanted 1, found 2");
  EXPECT_EQ(state_of(1), "refused");
}

TEST_F(CheatingParticipant, OfAnotherRound) {
  auto u = honest(bytes);
  u.set_round(2);
  expect_refused(on("usz", u), "update.round: wanted 1, found 2");
}

TEST_F(CheatingParticipant, WithAnotherSchema) {
  auto u = honest(bytes);
  u.set_schema(base::text(small_shapes().at("train").schema));
  expect_refused(on("usz", u), "update.schema: wanted sha256:");
  EXPECT_EQ(state_of(1), "refused");
}

TEST_F(CheatingParticipant, OfAnotherLength) {
  auto u = honest(bytes);
  u.set_length(1ULL << 60);
  expect_refused(on("usz", u), "update.length: wanted 32, found 1152921504606846976");
}

TEST_F(CheatingParticipant, WithoutADigest) {
  auto u = honest(bytes);
  u.set_digest("short");
  expect_refused(on("usz", u), "update.digest: wanted 32 bytes, found 5 bytes");
}

TEST_F(CheatingParticipant, OverTheWeightOfATaskThatDoesNotTrain) {
  auto u = honest(bytes);
  u.set_weight(2);
  expect_refused(on("usz", u), "weight of a task that does not train: wanted 1 to 1, found more");
}

TEST_F(CheatingParticipant, WithWeightZero) {
  auto u = honest(bytes);
  u.set_weight(0);
  expect_refused(on("usz", u), "wanted 1 to 1, found 0");
}

const Study& training_study(const char* records) {
  static std::map<std::string, Study> made;
  const auto at = made.find(records);
  if (at != made.end()) return at->second;
  return made
      .emplace(
          records,
          Study(small_study(
              {{"manifest", "[statistics]\nkinds = [\"mean\", \"variance\", \"frequency\"]\nminimum_count = 10\n", ""},
               {"manifest", "statistics = \"cohort\"", "statistics = \"never\""},
               {"usz", "records = { at_most = 500 }", records}})))
      .first->second;
}

class OverTheRecordsOfItsPolicy : public CheatingParticipant {
 protected:
  OverTheRecordsOfItsPolicy() : CheatingParticipant(training_study("records = { at_most = 400 }")) {}
};

TEST_F(OverTheRecordsOfItsPolicy, IsRefusedInThatPolicysName) {
  auto u = honest(bytes, 1, "train");
  u.set_weight(401);
  // The weight counts records: the refusal says the bound, not the number.
  expect_refused(on("usz", u), "denied by usz (data): data.records.at_most: wanted 1 to 400, found more");
  EXPECT_EQ(state_of(1), "refused");
  u.set_weight(400);
  EXPECT_EQ(all<round::OpenSlot>(on("ccf", u)).size(), 1U) << "ccf's own policy allows 500";
}

class OverTheWeightOfTheManifest : public CheatingParticipant {
 protected:
  OverTheWeightOfTheManifest() : CheatingParticipant(training_study("records = { at_most = 4000 }")) {}
};

TEST_F(OverTheWeightOfTheManifest, IsRefusedInTheChartersName) {
  auto u = honest(bytes, 1, "train");
  u.set_weight(1001);
  expect_refused(on("usz", u), "denied by charter: aggregation.weight_at_most: wanted 1 to 1000, found more");
}

TEST_F(CheatingParticipant, TwiceWithTheSameUpdateCountsOnce) {
  EXPECT_EQ(all<round::Add>(upload("usz", bytes)).size(), 1U);
  const auto again = on("usz", honest(bytes));
  EXPECT_TRUE(all<round::OpenSlot>(again).empty());
  EXPECT_TRUE(all<round::Add>(again).empty());
  EXPECT_EQ(sent<messages::UpdateStored>(again, "usz").size(), 1U);
  EXPECT_TRUE(all<round::Add>(machine->staged("usz", 1, base::sha256(bytes))).empty());
}

TEST_F(CheatingParticipant, TwiceWithAnotherUpdateKeepsTheFirst) {
  upload("usz", bytes);
  expect_refused(on("usz", honest(Bytes(32, 6))), "one update per round: wanted sha256:");
  EXPECT_EQ(state_of(1), "stored") << "the first one counts";
}

TEST_F(CheatingParticipant, WithAnotherUpdateWhileTheFirstIsUnderWay) {
  on("usz", honest(bytes));
  expect_refused(on("usz", honest(Bytes(32, 6))), "one update per round: wanted sha256:");
  EXPECT_EQ(state_of(1), "uploading");
}

TEST_F(CheatingParticipant, WithOtherBytesThanAnnounced) {
  on("usz", honest(bytes));
  machine->slot_open("usz", 1, 0);
  const auto steps = machine->staged("usz", 1, base::sha256(Bytes(32, 6)));
  expect_refused(steps, "update.digest: wanted sha256:");
  EXPECT_EQ(all<round::DropSlot>(steps).size(), 1U);
  EXPECT_EQ(state_of(1), "refused");
}

TEST_F(CheatingParticipant, WithANumberOutOfRange) {
  on("usz", honest(bytes));
  machine->slot_open("usz", 1, 0);
  const auto steps = machine->stage_refused(
      "usz", 1, {true, "charter", "aggregation.value_bound", "below 16", "NaN", "train with a smaller rate"});
  expect_refused(steps, "denied by charter: aggregation.value_bound: wanted below 16, found NaN");
  EXPECT_EQ(all<round::DropSlot>(steps).size(), 1U);
  // Nothing of it can be sent again in this round.
  expect_refused(on("usz", honest(Bytes(32, 7))), "one update per round");
}

TEST_F(CheatingParticipant, TooLate) {
  for (const char* owner : {"charite", "ccf", "va"}) upload(owner, bytes);
  on("usz", honest(bytes));
  const auto closed = machine->deadline("round");
  EXPECT_EQ(all<round::DropSlot>(closed).size(), 1U);
  ASSERT_EQ(all<round::Reduce>(closed).size(), 1U);
  EXPECT_EQ(all<round::Reduce>(closed)[0].contributors, (std::vector<std::string>{"charite", "ccf", "va"}));
  expect_refused(on("usz", honest(bytes)), "update in time: wanted before round 1 closed, found late");
  EXPECT_TRUE(machine->staged("usz", 1, base::sha256(bytes)).empty())
      << "bytes that were staged while it closed are not added";
  EXPECT_EQ(state_of(1), "late");
}

TEST_F(CheatingParticipant, CutOffInTheMiddle) {
  on("usz", honest(bytes));
  machine->slot_open("usz", 1, 0);
  machine->disconnected("usz");
  for (const char* owner : {"charite", "ccf", "va"}) upload(owner, bytes);
  EXPECT_EQ(state_of(1), "uploading") << "it may come back while the round is open";
  const auto closed = machine->deadline("round");
  EXPECT_EQ(all<round::DropSlot>(closed).size(), 1U);
  EXPECT_EQ(state_of(1), "late");
}

TEST_F(CheatingParticipant, ComesBackAndIsAskedForTheMissingBytesOnly) {
  on("usz", honest(bytes));
  machine->slot_open("usz", 1, 0);
  machine->disconnected("usz");
  machine->connected("usz");
  EXPECT_EQ(sent<messages::Offer>(on("usz", messages::ParticipantHello()), "usz").size(), 1U);
  EXPECT_EQ(all<round::OpenSlot>(on("usz", honest(bytes))).size(), 1U);
  const auto resumed = sent<messages::Resume>(machine->slot_open("usz", 1, 20), "usz");
  ASSERT_EQ(resumed.size(), 1U);
  EXPECT_EQ(resumed[0].offset(), 20U);
  messages::Transfer t;
  t.set_what("update");
  t.set_digest(base::text(base::sha256(bytes)));
  t.set_length(32);
  t.set_offset(20);
  const auto receive = all<round::Receive>(on("usz", t));
  ASSERT_EQ(receive.size(), 1U);
  EXPECT_EQ(receive[0].length, 12U);
}

TEST_F(CheatingParticipant, ThatSendsItsBytesAfterTheCloseIsSwallowedNotAdded) {
  on("usz", honest(bytes));
  machine->slot_open("usz", 1, 0);
  for (const char* owner : {"charite", "ccf", "va"}) upload(owner, bytes);
  machine->deadline("round");
  messages::Transfer t;
  t.set_what("update");
  t.set_digest(base::text(base::sha256(bytes)));
  t.set_length(32);
  const auto steps = on("usz", t);
  EXPECT_TRUE(all<round::Receive>(steps).empty());
  ASSERT_EQ(all<round::Swallow>(steps).size(), 1U);
  EXPECT_EQ(all<round::Swallow>(steps)[0].length, 32U);
}

TEST_F(CheatingParticipant, BreaksTheProtocolAndIsCutWithTheReason) {
  auto refusal = [&](round::Message m) {
    const auto steps = on("usz", std::move(m));
    const auto refused = all<round::Refuse>(steps);
    const std::string reason = refused.empty() ? "none" : refused[0].reason;
    EXPECT_TRUE(on("usz", honest(bytes)).empty()) << "what comes after is not read";
    machine->disconnected("usz");
    machine->connected("usz");
    on("usz", messages::ParticipantHello());
    return reason;
  };
  EXPECT_EQ(refusal(messages::ParticipantHello()), "got ParticipantHello while waiting for Update");
  EXPECT_EQ(refusal(messages::Offer()), "got Offer while waiting for Update");
  messages::Accept accept;
  accept.set_round(2);
  EXPECT_EQ(refusal(accept), "got Accept of round 2 while waiting for Update");
  messages::Transfer t;
  t.set_what("update");
  EXPECT_EQ(refusal(t), "got Transfer of update from byte 0 while waiting for Update");
  messages::ModelRequest request;
  EXPECT_THAT(refusal(request), HasSubstr("got ModelRequest for 0 bytes from byte 0"));
  messages::Acknowledge ack;
  ack.set_acknowledgement("noise");
  EXPECT_THAT(refusal(ack), HasSubstr("acknowledgement"));
  EXPECT_EQ(all<round::Refuse>(machine->data_unexpected("usz"))[0].reason,
            "got data that no Transfer announced while waiting for Update");
}

TEST_F(CheatingParticipant, SaysAnythingBeforeItsHello) {
  machine->disconnected("usz");
  machine->connected("usz");
  const auto refused = all<round::Refuse>(on("usz", honest(bytes)));
  ASSERT_EQ(refused.size(), 1U);
  EXPECT_EQ(refused[0].reason, "got Update while waiting for ParticipantHello");
}

TEST_F(CheatingParticipant, KnowsMoreRoundsThanThisInstanceCommitted) {
  machine->disconnected("usz");
  machine->connected("usz");
  messages::ParticipantHello hello;
  hello.set_run(1);
  hello.set_round(4);
  const auto refused = all<round::Refuse>(on("usz", hello));
  ASSERT_EQ(refused.size(), 1U);
  EXPECT_THAT(refused[0].reason, HasSubstr("round 4 of run 1 committed; this instance committed 0"));
}

TEST_F(CheatingParticipant, ThatIsNoDataOwnerOfTheCharter) {
  machine->connected("acme");
  const auto refused = all<round::Refuse>(on("acme", messages::ParticipantHello()));
  ASSERT_EQ(refused.size(), 1U);
}

TEST_F(CheatingParticipant, DeclinesWithWordsThatWouldForgeALogAndTheyStayOnTheirLine) {
  messages::Decline decline;
  decline.set_round(1);
  decline.set_reason("no\n{\"event\":\"round_committed\"}\x1b[2J");
  for (int i = 0; i < 1000; ++i) decline.add_findings()->set_found("a\nb" + std::string(10'000, 'x'));
  const auto steps = on("usz", decline);
  EXPECT_EQ(machine->status().members(1).reason(), "no {\"event\":\"round_committed\"} [2J");
  const auto logged = all<round::LogRefusal>(steps);
  ASSERT_EQ(logged.size(), 1U);
  EXPECT_EQ(logged[0].decision.findings.size(), 64U);
  EXPECT_LT(logged[0].decision.findings[0].found.size(), 310U);
}

TEST_F(CheatingParticipant, DeclinesWithAReasonLongerThanAnyReceiptAndTheRoundStillCloses) {
  messages::Decline decline;
  decline.set_round(1);
  std::string long_reason;
  for (int i = 0; i < 100'000; ++i) long_reason += "ä";
  decline.set_reason(long_reason);
  on("usz", decline);
  for (const char* owner : {"charite", "ccf", "va"}) upload(owner, bytes);
  const auto steps = machine->reduced(1, {{}, {}, Bytes(8, 1)});
  const auto receipts = sent<messages::Receipt>(steps, "ccf");
  ASSERT_EQ(receipts.size(), 1U);
  const auto receipt = round::SignedReceipt::parse(base::view(receipts[0].receipt()));
  ASSERT_TRUE(receipt.has_value()) << "a participant must not keep a round from ending";
  EXPECT_LT(receipt->receipt.members[1].reason.size(), 320U);
  messages::RunStatus status = machine->status(), back;
  EXPECT_TRUE(back.ParseFromString(status.SerializeAsString())) << "cut between characters";
}

class Witnessing : public CheatingParticipant {
 protected:
  Witnessing() {
    for (const char* owner : {"charite", "usz", "ccf", "va"}) upload(owner, bytes);
    const auto steps = machine->reduced(1, {{}, {}, Bytes(8, 1)});
    receipt = round::SignedReceipt::parse(base::view(sent<messages::Receipt>(steps, "usz").at(0).receipt())).value();
  }
  messages::Acknowledge ack(const std::string& witness, const std::string& key) {
    messages::Acknowledge m;
    m.set_acknowledgement(
        base::text(round::Acknowledgement::sign(witness, receipt.receipt, receipt.digest, *study().keys(key).witness)
                       .serialize()));
    return m;
  }
  std::string refusal(const round::AggregatorSteps& steps) {
    EXPECT_TRUE(all<round::Record>(steps).empty());
    const auto refused = all<round::Refuse>(steps);
    return refused.empty() ? "none" : refused[0].reason;
  }
  round::SignedReceipt receipt;
};

TEST_F(Witnessing, SignsForAnother) {
  EXPECT_THAT(refusal(on("usz", ack("va", "va"))), HasSubstr("wanted one of usz, found one of va"));
  EXPECT_THAT(refusal(on("ccf", ack("va", "ccf"))),
              HasSubstr("the signature is not by the charter's witness key of va"));
}

TEST_F(Witnessing, SignsAnotherReceipt) {
  receipt.digest[0] ^= 1;
  EXPECT_THAT(refusal(on("usz", ack("usz", "usz"))), HasSubstr("wanted receipt sha256:"));
}

TEST_F(Witnessing, SignsThreeTimesAndCountsOnce) {
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(all<round::Record>(on("usz", ack("usz", "usz"))).empty());
  EXPECT_TRUE(all<round::Record>(on("ccf", ack("ccf", "ccf"))).empty());
  const auto committed = on("va", ack("va", "va"));
  EXPECT_EQ(all<round::Record>(committed).size(), 1U);
  EXPECT_EQ(sent<messages::Offer>(committed, "charite").size(), 1U) << "the next round begins";
  // One that comes after the quorum changes nothing.
  EXPECT_EQ(refusal(on("charite", ack("charite", "charite"))), "none");
}

TEST_F(Witnessing, NothingLeavesBeforeTheQuorum) {
  messages::ModelRequest request;
  request.set_model(base::text(study().charter.manifest.initial_model));
  for (const auto& steps : {on("ccf", request), on("usz", ack("usz", "usz")), on("va", ack("va", "va"))}) {
    EXPECT_TRUE(all<round::SendModel>(steps).empty());
    EXPECT_TRUE(all<round::PublishResult>(steps).empty());
    EXPECT_TRUE(all<round::Record>(steps).empty());
    for (const auto& s : all<round::SendTo>(steps)) {
      EXPECT_FALSE(std::holds_alternative<messages::Committed>(*s.message));
      EXPECT_FALSE(std::holds_alternative<messages::Offer>(*s.message));
    }
  }
}

TEST_F(Witnessing, ThatRefusesToSignIsNamedToTheCoordinator) {
  messages::Decline decline;
  decline.set_round(1);
  decline.set_reason("my update is not under the root");
  on("usz", decline);
  EXPECT_EQ(machine->status().members(1).reason(), "does not witness: my update is not under the root");
}

TEST_F(CheatingParticipant, WithdrawsTheNextRoundRunsWithoutIt) {
  for (const char* owner : {"charite", "ccf", "va"}) upload(owner, bytes);
  messages::Withdraw w;
  w.set_statement(base::text(
      round::Withdrawal::sign("usz", study().charter, 1, study().at, *study().keys("usz").witness).serialize()));
  const auto steps = on("usz", w);
  EXPECT_EQ(state_of(1), "declined") << "it had not sent anything of this round";
  EXPECT_EQ(all<round::Reduce>(steps).size(), 1U) << "nobody is left to wait for";
  EXPECT_EQ(machine->withdrawals().size(), 1U);
  const auto witnessed = machine->reduced(1, {{}, {}, Bytes(8, 1)});
  const auto receipt =
      round::SignedReceipt::parse(base::view(sent<messages::Receipt>(witnessed, "usz").at(0).receipt())).value();
  round::AggregatorSteps committed;
  for (const char* owner : {"charite", "ccf", "va"}) {
    messages::Acknowledge a;
    a.set_acknowledgement(
        base::text(round::Acknowledgement::sign(owner, receipt.receipt, receipt.digest, *study().keys(owner).witness)
                       .serialize()));
    committed = on(owner, a);
  }
  EXPECT_TRUE(sent<messages::Offer>(committed, "usz").empty());
  const auto offers = sent<messages::Offer>(committed, "va");
  ASSERT_EQ(offers.size(), 1U);
  EXPECT_EQ(offers[0].withdrawals_size(), 1) << "shown to all";
}

TEST_F(CheatingParticipant, WithdrawsForAnotherAndIsRefused) {
  messages::Withdraw w;
  w.set_statement(base::text(
      round::Withdrawal::sign("va", study().charter, 1, study().at, *study().keys("va").witness).serialize()));
  const auto refused = all<round::Refuse>(on("usz", w));
  ASSERT_EQ(refused.size(), 1U);
  EXPECT_THAT(refused[0].reason, HasSubstr("wanted one of usz, found one of va"));
  EXPECT_TRUE(machine->withdrawals().empty());
}

TEST_F(CheatingParticipant, TooManyWithdrawalsFailTheRunInTheNameOfTheLargestAtLeast) {
  network->withdrawals.clear();
  for (const char* owner : {"usz", "va"})
    network->withdrawals.push_back(
        round::Withdrawal::sign(owner, study().charter, 1, study().at, *study().keys(owner).witness).serialize());
  machine.emplace(round::Aggregator::create(network->aggregator_setup()).value());
  const auto finish = all<round::Finish>(machine->start());
  ASSERT_EQ(finish.size(), 1U);
  EXPECT_EQ(finish[0].outcome, round::Outcome::failed);
  EXPECT_THAT(finish[0].reason,
              HasSubstr("study.participants.at_least: wanted 3 contributors, 2 are left after withdrawals"));
}

TEST_F(CheatingParticipant, ACancelledRunEndsForEverybodyWithItsReason) {
  const auto steps = machine->cancel("the submitter changed her mind");
  ASSERT_EQ(all<round::Finish>(steps).size(), 1U);
  EXPECT_EQ(all<round::Finish>(steps)[0].outcome, round::Outcome::cancelled);
  EXPECT_EQ(sent<messages::RunEnd>(steps, "va").at(0).outcome(), "cancelled");
  EXPECT_EQ(sent<messages::RunEnd>(steps, "va").at(0).reason(), "the submitter changed her mind");
  EXPECT_TRUE(on("usz", honest(bytes)).size() == 2) << "late: refused and logged";
  EXPECT_TRUE(machine->fail("too late to fail").empty());
}

TEST_F(CheatingParticipant, AnExpiredGrantMeansNoNewOffersAndThenTheEnd) {
  machine.emplace(round::Aggregator::create(network->aggregator_setup()).value());
  machine->grant(false);
  machine->joined("usz");
  auto steps = machine->start();
  EXPECT_TRUE(sent<messages::Offer>(steps, "usz").empty());
  ASSERT_EQ(all<round::SetDeadline>(steps).size(), 1U);
  EXPECT_EQ(machine->status().state(), "waiting");
  steps = machine->grant(true);
  EXPECT_EQ(sent<messages::Offer>(steps, "usz").size(), 1U);

  machine.emplace(round::Aggregator::create(network->aggregator_setup()).value());
  machine->grant(false);
  machine->start();
  const auto finish = all<round::Finish>(machine->deadline("grant"));
  ASSERT_EQ(finish.size(), 1U);
  EXPECT_THAT(finish[0].reason, HasSubstr("the launch grant expired"));
}

TEST_F(CheatingParticipant, AnAggregatorIsNotMadeForARunThatTheCharterDoesNotAllow) {
  auto denied = [&](auto change) {
    auto setup = network->aggregator_setup();
    change(setup);
    auto made = round::Aggregator::create(std::move(setup));
    return made ? "made" : made.error().text();
  };
  EXPECT_NE(denied([](auto& s) { s.order.ordered[0] ^= 1; }), "made");
  EXPECT_NE(denied([](auto& s) { s.order.settings["rounds"] = 2; }), "made") << "the submitter signed other settings";
  EXPECT_THAT(denied([](auto& s) { s.shapes.erase("train"); }),
              HasSubstr("no shape is known for the updates of task train"));
  EXPECT_THAT(denied([](auto& s) { s.withdrawals = {Bytes(10, 1)}; }), HasSubstr("withdrawal"));
}

// --- A withdrawal in each phase of a round ---------------------------------------------------------------------------

/// usz withdraws; whatever the phase, what it gave before stays and the next round runs without it.
class Withdrawing : public CheatingParticipant {
 protected:
  round::AggregatorSteps withdraw() {
    messages::Withdraw w;
    w.set_statement(base::text(
        round::Withdrawal::sign("usz", study().charter, 1, study().at, *study().keys("usz").witness).serialize()));
    return on("usz", w);
  }
  /// The others upload, the round closes, three witnesses sign; gives the steps of the commit.
  round::AggregatorSteps finish_round(const std::vector<const char*>& still_to_upload) {
    for (const char* owner : still_to_upload) upload(owner, bytes);
    const auto steps = machine->reduced(1, {{}, {}, Bytes(8, 1)});
    return commit(steps, {"charite", "ccf", "va"});
  }
  round::AggregatorSteps commit(const round::AggregatorSteps& steps, const std::vector<const char*>& witnesses) {
    receipt = round::SignedReceipt::parse(base::view(sent<messages::Receipt>(steps, "ccf").at(0).receipt())).value();
    round::AggregatorSteps committed;
    for (const char* owner : witnesses) committed = on(owner, acknowledge(owner));
    return committed;
  }
  messages::Acknowledge acknowledge(const char* owner) {
    messages::Acknowledge a;
    a.set_acknowledgement(
        base::text(round::Acknowledgement::sign(owner, receipt.receipt, receipt.digest, *study().keys(owner).witness)
                       .serialize()));
    return a;
  }
  void expect_next_round_without_it(const round::AggregatorSteps& committed) {
    EXPECT_TRUE(sent<messages::Offer>(committed, "usz").empty());
    const auto offers = sent<messages::Offer>(committed, "va");
    ASSERT_EQ(offers.size(), 1U);
    EXPECT_EQ(offers[0].withdrawals_size(), 1) << "shown to all";
    EXPECT_EQ(state_of(1), "withdrawn");
  }
  round::MemberState in_receipt() const { return receipt.receipt.members[1].state; }
  round::SignedReceipt receipt;
};

TEST_F(Withdrawing, BeforeTheOfferLeavesItOutOfThisRound) {
  machine.emplace(round::Aggregator::create(network->aggregator_setup()).value());
  machine->grant(false);
  machine->start();
  for (const std::string& owner : owned.options.data_owners) {
    machine->connected(owner);
    on(owner, messages::ParticipantHello());
  }
  withdraw();
  const auto steps = machine->grant(true);
  EXPECT_EQ(sent<messages::Offer>(steps, "va").size(), 1U);
  EXPECT_TRUE(sent<messages::Offer>(steps, "usz").empty());
  EXPECT_EQ(state_of(1), "withdrawn");
}

TEST_F(Withdrawing, WhileItTrainsIsADeclineThatNobodyWaitsFor) {
  withdraw();
  EXPECT_EQ(state_of(1), "declined");
  expect_next_round_without_it(finish_round({"charite", "ccf", "va"}));
  EXPECT_EQ(in_receipt(), round::MemberState::declined);
}

TEST_F(Withdrawing, InTheMiddleOfItsUploadDropsWhatCame) {
  on("usz", honest(bytes));
  machine->slot_open("usz", 1, 0);
  const auto steps = withdraw();
  EXPECT_EQ(all<round::DropSlot>(steps).size(), 1U);
  EXPECT_EQ(state_of(1), "declined");
  EXPECT_TRUE(all<round::Add>(machine->staged("usz", 1, base::sha256(bytes))).empty())
      << "bytes that were on their way";
  expect_next_round_without_it(finish_round({"charite", "ccf", "va"}));
  EXPECT_EQ(in_receipt(), round::MemberState::declined);
}

TEST_F(Withdrawing, AfterItsUploadKeepsWhatItGaveAndEndsWithThisRound) {
  upload("usz", bytes);
  withdraw();
  EXPECT_EQ(state_of(1), "stored");
  expect_next_round_without_it(finish_round({"charite", "ccf", "va"}));
  EXPECT_EQ(in_receipt(), round::MemberState::contributed);
}

TEST_F(Withdrawing, WhileWitnessesSignKeepsWhatItGaveAndItsOwnSignatureCounts) {
  for (const char* owner : {"charite", "usz", "ccf", "va"}) upload(owner, bytes);
  const auto steps = machine->reduced(1, {{}, {}, Bytes(8, 1)});
  EXPECT_TRUE(all<round::Record>(withdraw()).empty());
  expect_next_round_without_it(commit(steps, {"charite", "usz", "ccf"}));
  EXPECT_EQ(in_receipt(), round::MemberState::contributed);
}

TEST_F(Withdrawing, TwiceIsOnce) {
  withdraw();
  EXPECT_TRUE(all<round::Refuse>(withdraw()).empty());
  EXPECT_EQ(machine->withdrawals().size(), 1U);
}

TEST_F(Withdrawing, ThatLeavesTooFewFailsTheNextRoundByName) {
  withdraw();
  messages::Withdraw w;
  w.set_statement(base::text(
      round::Withdrawal::sign("va", study().charter, 1, study().at, *study().keys("va").witness).serialize()));
  upload("va", bytes);
  on("va", w);
  const auto finish = all<round::Finish>(finish_round({"charite", "ccf"}));
  ASSERT_EQ(finish.size(), 1U);
  EXPECT_EQ(finish[0].outcome, round::Outcome::failed);
  EXPECT_THAT(finish[0].reason,
              HasSubstr("study.participants.at_least: wanted 3 contributors, 2 are left after withdrawals"));
}

}  // namespace
}  // namespace cloister::tests

// Aggregators that cheat, against real participants: a second answer for a round number never gathers its witnesses,
// and each participant says why it refused.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "protocols/round/merkle.hpp"
#include "tests/protocols/round/network.hpp"

namespace cloister::tests {
namespace {

using base::Sha256;
using ::testing::HasSubstr;

const Study& study() {
  static const Study one(small_study());
  return one;
}

const std::vector<std::string> everybody = {"charite", "usz", "ccf", "va"};

template <class Step>
std::vector<Step> all(const round::ParticipantSteps& steps) {
  std::vector<Step> out;
  for (const auto& s : steps)
    if (const auto* one = std::get_if<Step>(&s)) out.push_back(*one);
  return out;
}

template <class M>
std::vector<M> sent(const round::ParticipantSteps& steps) {
  std::vector<M> out;
  for (const auto& s : all<round::Send>(steps))
    if (const auto* m = std::get_if<M>(&s.message)) out.push_back(*m);
  return out;
}

std::string why(const round::ParticipantSteps& steps) {
  std::string out;
  for (const auto& r : all<round::Refused>(steps))
    out += r.about + ": " + r.decision.explain() + (r.equivocation ? " [equivocation]" : "") + "\n";
  return out;
}

/// An aggregator that has the genuine receipt key and says whatever its methods make it say: what a patched binary, or
/// a host that copies and rewinds an enclave's memory, could send. Four participants are real.
class CheatingAggregator : public ::testing::Test {
 protected:
  CheatingAggregator() : network(study(), one_train_round(), 1) {
    for (const std::string& owner : everybody) {
      machines.emplace(owner, round::Participant(network.participant_setup(owner), std::nullopt));
      at(owner).connected(network.receipt_key.public_key());
    }
  }

  round::Participant& at(const std::string& owner) { return machines.at(owner); }

  /// The honest offer of round 1; a fault changes one thing of it.
  messages::Offer offer() const {
    messages::Offer o;
    o.set_order(base::text(network.order.serialize()));
    o.set_round(1);
    o.set_task("statistics");
    o.set_deadline_ms(60'000);
    o.set_receipt_key(base::text(network.receipt_key.public_key().bytes));
    o.set_schema(base::text(small_shapes().at("statistics").schema));
    return o;
  }

  static Bytes update(const std::string& owner) { return base::copy(base::sha256(base::view(owner))); }

  /// Offers round 1 to everybody and lets them finish their task.
  void offer_and_work() {
    for (const std::string& owner : everybody) {
      ASSERT_EQ(sent<messages::Accept>(at(owner).on(offer())).size(), 1U);
      ASSERT_EQ(sent<messages::Update>(at(owner).task_done(1, base::sha256(update(owner)), 32, 1)).size(), 1U);
    }
  }

  static Array<32> random_of(const std::string& owner) { return base::sha256(base::view("random of " + owner)); }

  /// A receipt of round 1 over these contributors, and the message with it for one owner.
  round::Receipt receipt(const std::vector<std::string>& contributors, std::string_view value = "value") const {
    round::Receipt r;
    r.charter = study().charter.digest;
    r.run = 1;
    r.round = 1;
    r.task = "statistics";
    r.order = base::sha256(network.order.serialize());
    r.settings = attest::complete_settings(study().charter.manifest, network.order.settings).value();
    r.members = round::Members(static_cast<std::uint32_t>(everybody.size()));
    for (std::uint32_t i = 0; i < everybody.size(); ++i)
      if (std::ranges::count(contributors, everybody[i]) == 0)
        r.members.set(i, round::MemberState::late, "too slow");
    r.updates = round::merkle_root(entries(contributors));
    r.algorithm = "fedavg";
    r.result = base::sha256(base::view(value));
    r.kernel_set = "cpu";
    r.evidence = network.evidence;
    r.simulated = true;
    return r;
  }

  static std::vector<Sha256> entries(const std::vector<std::string>& contributors) {
    std::vector<Sha256> out;
    for (const std::string& owner : everybody)
      if (std::ranges::count(contributors, owner) != 0)
        out.push_back(round::leaf_entry(random_of(owner), base::sha256(update(owner))));
    return out;
  }

  messages::Receipt show(const round::Receipt& r, const std::string& owner) const {
    messages::Receipt m;
    m.set_receipt(base::text(round::SignedReceipt::sign(r, network.receipt_key).serialize()));
    std::vector<std::string> in;
    for (std::uint32_t i = 0; i < r.members.size(); ++i)
      if (r.members[i].state == round::MemberState::contributed) in.push_back(everybody.at(i));
    const auto place = std::ranges::find(in, owner);
    if (place == in.end()) return m;
    const auto leaves = entries(in);
    const auto index = static_cast<std::size_t>(place - in.begin());
    m.set_leaf_random(base::text(random_of(owner)));
    for (const Sha256& hash : round::merkle_path(leaves, index)) m.add_path(base::text(hash));
    return m;
  }

  messages::Committed commit(const round::Receipt& r, const std::vector<std::string>& witnesses,
                             std::string_view value = "value") const {
    messages::Committed m;
    const auto s = round::SignedReceipt::sign(r, network.receipt_key);
    m.set_receipt(base::text(s.serialize()));
    for (const std::string& owner : witnesses)
      m.add_acknowledgements(base::text(
          round::Acknowledgement::sign(owner, s.receipt, s.digest, *study().keys(owner).witness).serialize()));
    m.set_kind("statistics");
    m.set_value(std::string(value));
    return m;
  }

  /// Refused: nothing is charged, run or fetched, and both log and aggregator are told why.
  void expect_declined(const round::ParticipantSteps& steps, const std::string& reason) {
    EXPECT_TRUE(all<round::Charge>(steps).empty());
    EXPECT_TRUE(all<round::RunTask>(steps).empty());
    EXPECT_TRUE(sent<messages::Accept>(steps).empty());
    EXPECT_TRUE(sent<messages::Acknowledge>(steps).empty());
    EXPECT_THAT(why(steps), HasSubstr(reason));
    const auto declines = sent<messages::Decline>(steps);
    ASSERT_EQ(declines.size(), 1U);
    EXPECT_GE(declines[0].findings_size(), 1);
    EXPECT_THAT(why(steps), HasSubstr(declines[0].reason()));
  }

  Network network;
  std::map<std::string, round::Participant> machines;
};

TEST_F(CheatingAggregator, ThatIsHonestIsServed) {
  offer_and_work();
  const round::Receipt r = receipt(everybody);
  for (const std::string& owner : everybody) {
    const auto steps = at(owner).on(show(r, owner));
    EXPECT_EQ(sent<messages::Acknowledge>(steps).size(), 1U) << why(steps);
    EXPECT_EQ(all<round::SignReceipt>(steps).size(), 1U);
    const auto kept = at(owner).on(commit(r, {"charite", "usz", "ccf"}));
    EXPECT_EQ(all<round::Keep>(kept).size(), 1U) << why(kept);
    EXPECT_EQ(all<round::Publish>(kept).size(), 1U);
  }
}

// --- Offers ----------------------------------------------------------------------------------------------------------

TEST_F(CheatingAggregator, OffersWithAFaultAndIsDeclinedForIt) {
  auto declined = [&](const std::string& reason, auto fault) {
    SCOPED_TRACE(reason);
    round::Participant usz(network.participant_setup("usz"), std::nullopt);
    usz.connected(network.receipt_key.public_key());
    messages::Offer o = offer();
    fault(o);
    expect_declined(usz.on(o), reason);
  };
  declined("round after the last committed one: wanted 1, found 0", [](auto& o) { o.set_round(0); });
  declined("task in the run's schedule: wanted statistics (train round 0), found train (train round 1)", [](auto& o) {
    o.set_task("train");
    o.set_train_round(1);
  });
  declined("receipt key of the offer", [](auto& o) { o.set_receipt_key(std::string(32, 'x')); });
  declined("last committed receipt: wanted none, found 5 bytes", [](auto& o) { o.set_last_receipt("noise"); });
  declined("model on offer: wanted none", [](auto& o) { o.set_model(std::string(32, 'm')); });
  declined("statistics in force: wanted none", [](auto& o) { o.set_statistics("made up"); });
  declined("schema of the update", [](auto& o) { o.set_schema(std::string(32, 's')); });
  declined("withdrawals in force: wanted signed by their owners", [](auto& o) { o.add_withdrawals("noise"); });
  declined("withdrawals in force: wanted signed by their owners", [](auto& o) {
    o.add_withdrawals(base::text(
        round::Withdrawal::sign("va", study().charter, 1, study().at, *study().keys("ccf").witness).serialize()));
  });
  declined("run order: wanted one that parses", [](auto& o) { o.set_order("noise"); });
  declined("denied by", [&](auto& o) {
    attest::RunOrder forged = network.order;
    forged.settings["rounds"] = 7;
    o.set_order(base::text(forged.serialize()));
  });
}

TEST_F(CheatingAggregator, OffersARoundBeforeThoseBetweenAndIsDialledAgain) {
  messages::Offer o = offer();
  o.set_round(2);
  const auto steps = at("usz").on(o);
  EXPECT_TRUE(all<round::Charge>(steps).empty());
  ASSERT_EQ(all<round::Disconnect>(steps).size(), 1U);
  EXPECT_EQ(all<round::Disconnect>(steps)[0].reason, "got Offer of round 2 while waiting for Offer");
}

TEST_F(CheatingAggregator, OffersACohortBelowThisOwnersAtLeast) {
  messages::Offer o = offer();
  for (const char* owner : {"ccf", "va"})
    o.add_withdrawals(base::text(
        round::Withdrawal::sign(owner, study().charter, 1, study().at, *study().keys(owner).witness).serialize()));
  const auto steps = at("usz").on(o);
  EXPECT_THAT(why(steps), HasSubstr("denied by usz (data): study.participants.at_least: wanted 3, found 2"));
  EXPECT_TRUE(all<round::Charge>(steps).empty());
}

TEST_F(CheatingAggregator, OffersToAnOwnerThatWithdrew) {
  const Bytes statement =
      round::Withdrawal::sign("usz", study().charter, 1, study().at, *study().keys("usz").witness).serialize();
  EXPECT_EQ(sent<messages::Withdraw>(at("usz").withdraw(statement)).size(), 1U);
  expect_declined(at("usz").on(offer()), "this owner takes part");
}

TEST_F(CheatingAggregator, IsRefusedByTheGateWithTheOwnersFindings) {
  auto setup = network.participant_setup("usz");
  setup.gate = [](const round::OfferedTask&) {
    attest::Decision d;
    d.add({false, "usz (data)", "tasks.statistics.at_most", "at most 2", "3", "found a new charter"});
    return d;
  };
  round::Participant usz(std::move(setup), std::nullopt);
  usz.connected(network.receipt_key.public_key());
  const auto steps = usz.on(offer());
  expect_declined(steps, "denied by usz (data): tasks.statistics.at_most: wanted at most 2, found 3");
  EXPECT_EQ(sent<messages::Decline>(steps)[0].findings(0).requirement(), "tasks.statistics.at_most");
}

// --- A second answer for a round number ------------------------------------------------------------------------------

/// Smaller cohort: after round 1 was offered to all, it is offered again without va, with or without an excuse.
TEST_F(CheatingAggregator, SmallerCohort) {
  offer_and_work();
  messages::Offer second = offer();
  second.add_withdrawals(base::text(
      round::Withdrawal::sign("va", study().charter, 1, study().at, *study().keys("va").witness).serialize()));
  for (const char* owner : {"charite", "usz", "ccf"}) {
    const auto steps = at(owner).on(second);
    expect_declined(steps, "one offer per round: wanted offer sha256:");
    EXPECT_TRUE(all<round::Refused>(steps).at(0).equivocation);
  }
  // And a receipt of that smaller round is not signed either.
  round::Receipt r = receipt({"charite", "usz", "ccf"});
  r.members.set(3, round::MemberState::withdrawn, "its withdrawal is in force");
  for (const char* owner : {"charite", "usz", "ccf"})
    EXPECT_THAT(why(at(owner).on(show(r, owner))),
                HasSubstr("cohort as it was offered: wanted all data owners, found all but va"));
}

/// The same after each participant restarted from its disk.
TEST_F(CheatingAggregator, SmallerCohortAfterARestartOfTheParticipant) {
  offer_and_work();
  const Bytes disk = at("usz").record().serialize();
  round::Participant usz(network.participant_setup("usz"), round::ParticipantRecord::parse(disk).value());
  usz.connected(network.receipt_key.public_key());
  messages::Offer second = offer();
  second.add_withdrawals(base::text(
      round::Withdrawal::sign("va", study().charter, 1, study().at, *study().keys("va").witness).serialize()));
  EXPECT_THAT(why(usz.on(second)), HasSubstr("one offer per round: wanted offer sha256:"));
  // The first offer is still answered, with the stored update and without a second charge.
  const auto steps = usz.on(offer());
  EXPECT_TRUE(all<round::Charge>(steps).empty());
  EXPECT_TRUE(all<round::RunTask>(steps).empty()) << "never trained again with another result";
  ASSERT_EQ(sent<messages::Update>(steps).size(), 1U);
  EXPECT_EQ(sent<messages::Update>(steps)[0].digest(), base::text(base::sha256(update("usz"))));
}

/// Restarted aggregator: the same run from a new instance, with a new receipt key.
TEST_F(CheatingAggregator, RestartedAggregator) {
  offer_and_work();
  const auto other = base::PrivateKey::generate().public_key();
  for (const std::string& owner : everybody) {
    at(owner).disconnected();
    const auto steps = at(owner).connected(other);
    const auto ended = all<round::Ended>(steps);
    ASSERT_EQ(ended.size(), 1U);
    EXPECT_EQ(ended[0].outcome, round::Outcome::failed);
    EXPECT_THAT(ended[0].reason, HasSubstr("the aggregator that served run 1 is gone"));
    EXPECT_EQ(sent<messages::ParticipantHello>(steps).at(0).run(), 0U) << "it can still be asked for another run";
    messages::Offer again = offer();
    again.set_receipt_key(base::text(other.bytes));
    const auto answer = at(owner).on(again);
    EXPECT_EQ(sent<messages::Decline>(answer).size(), 1U);
    EXPECT_TRUE(sent<messages::Accept>(answer).empty());
    EXPECT_TRUE(sent<messages::Acknowledge>(at(owner).on(show(receipt(everybody), owner))).empty());
  }
}

TEST_F(CheatingAggregator, OffersAgainARoundWhoseReceiptWasSigned) {
  offer_and_work();
  at("usz").on(show(receipt(everybody), "usz"));
  at("usz").disconnected();
  at("usz").connected(network.receipt_key.public_key());
  expect_declined(at("usz").on(offer()), "no offer after its receipt");
}

/// Withheld receipt: receipt A is shown to some witnesses and withheld from the rest, who are shown B; then each is
/// shown the other. With one witness that signs everything, for every way to split the honest ones, at most one gathers
/// its quorum.
TEST_F(CheatingAggregator, WithheldReceipt) {
  const std::vector<std::string> honest = {"charite", "usz", "ccf"};  // va lies: it signs whatever it is shown
  std::size_t first_commits = 0, none_commits = 0;
  for (unsigned split = 0; split < 8; ++split) {
    SCOPED_TRACE("split " + std::to_string(split));
    machines.clear();
    for (const std::string& owner : everybody) {
      machines.emplace(owner, round::Participant(network.participant_setup(owner), std::nullopt));
      at(owner).connected(network.receipt_key.public_key());
    }
    offer_and_work();
    const round::Receipt a = receipt(everybody, "first"), b = receipt(everybody, "second");
    std::map<std::string, std::set<std::string>> signed_by = {{"a", {"va"}}, {"b", {"va"}}};
    auto ask = [&](const std::string& owner, bool of_a) {
      const auto steps = at(owner).on(show(of_a ? a : b, owner));
      if (!sent<messages::Acknowledge>(steps).empty()) signed_by[of_a ? "a" : "b"].insert(owner);
      return steps;
    };
    for (std::size_t i = 0; i < honest.size(); ++i) {
      const bool first = (split >> i & 1) == 0;
      EXPECT_EQ(sent<messages::Acknowledge>(ask(honest[i], first)).size(), 1U);
      const auto other = ask(honest[i], !first);
      EXPECT_THAT(why(other), HasSubstr("one receipt per round: wanted sha256:"));
      EXPECT_TRUE(all<round::Refused>(other).at(0).equivocation);
      EXPECT_EQ(sent<messages::Acknowledge>(ask(honest[i], first)).size(), 1U)
          << "the same one again is the same answer";
    }
    const std::uint32_t q = study().charter.manifest.witness_quorum();
    ASSERT_EQ(q, 3U);
    EXPECT_FALSE(signed_by["a"].size() >= q && signed_by["b"].size() >= q) << "two answers for one round";
    if (signed_by["a"].size() >= q) ++first_commits;
    if (signed_by["a"].size() < q && signed_by["b"].size() < q) ++none_commits;

    // Whoever is given the one without its quorum publishes nothing of it.
    for (const auto* r : {&a, &b}) {
      const auto& witnesses = signed_by[r == &a ? "a" : "b"];
      if (witnesses.size() >= q) continue;
      const auto steps = at("usz").on(commit(*r, {witnesses.begin(), witnesses.end()}, r == &a ? "first" : "second"));
      EXPECT_TRUE(all<round::Publish>(steps).empty());
      EXPECT_TRUE(all<round::Keep>(steps).empty());
      EXPECT_NE(why(steps), "");
      break;
    }
  }
  EXPECT_EQ(first_commits, 4U);  // two or three of the three honest ones, with the liar
  EXPECT_EQ(none_commits, 0U);   // with n = 4, b = 1 one side always has two honest witnesses
}

TEST_F(CheatingAggregator, TheOneReceiptIsRememberedOverARestart) {
  offer_and_work();
  const auto signed_step = all<round::SignReceipt>(at("usz").on(show(receipt(everybody, "first"), "usz"))).at(0);
  round::Participant usz(network.participant_setup("usz"),
                         round::ParticipantRecord::parse(signed_step.record.serialize()).value());
  usz.connected(network.receipt_key.public_key());
  const auto steps = usz.on(show(receipt(everybody, "second"), "usz"));
  EXPECT_TRUE(sent<messages::Acknowledge>(steps).empty());
  EXPECT_THAT(why(steps), HasSubstr("one receipt per round"));
  EXPECT_EQ(sent<messages::Acknowledge>(usz.on(show(receipt(everybody, "first"), "usz"))).size(), 1U);
}

// --- Receipts --------------------------------------------------------------------------------------------------------

TEST_F(CheatingAggregator, ReceiptsWithAFaultAreNotSigned) {
  auto refused = [&](const std::string& reason, auto fault) {
    SCOPED_TRACE(reason);
    round::Participant usz(network.participant_setup("usz"), std::nullopt);
    usz.connected(network.receipt_key.public_key());
    usz.on(offer());
    usz.task_done(1, base::sha256(update("usz")), 32, 1);
    messages::UpdateStored stored;
    stored.set_round(1);
    stored.set_digest(base::text(base::sha256(update("usz"))));
    usz.on(stored);
    round::Receipt r = receipt(everybody);
    messages::Receipt m = show(r, "usz");
    fault(r, m);
    expect_declined(usz.on(m), reason);
  };
  // Forgotten update: the aggregator had said that it stored it.
  refused("own contribution: wanted counted, as the aggregator had stored it, found late", [&](auto&, auto& m) {
    m = show(receipt({"charite", "ccf", "va"}), "usz");
  });
  // Foreign leaf: another update is counted in this owner's name.
  refused("own update under the receipt's root: wanted a path from its digest", [&](auto& r, auto& m) {
    r.updates = base::sha256(base::view("another tree"));
    m.set_receipt(base::text(round::SignedReceipt::sign(r, network.receipt_key).serialize()));
  });
  refused("own update under the receipt's root", [&](auto&, auto& m) { m.clear_leaf_random(); });
  refused("own update under the receipt's root", [&](auto&, auto& m) { m.set_path(0, "short"); });
  refused("own update under the receipt's root", [&](auto& r, auto& m) { m = show(r, "charite"); });
  // Invented withdrawal.
  refused("cohort as it was offered", [&](auto& r, auto& m) {
    r.members.set(1, round::MemberState::withdrawn, "says the aggregator");
    m.set_receipt(base::text(round::SignedReceipt::sign(r, network.receipt_key).serialize()));
  });
  // Another key, another order, too few.
  refused("the signature is not by receipt key", [&](auto& r, auto& m) {
    m.set_receipt(base::text(round::SignedReceipt::sign(r, base::PrivateKey::generate()).serialize()));
  });
  refused("order of the run", [&](auto& r, auto& m) {
    r.order = Sha256{1};
    m.set_receipt(base::text(round::SignedReceipt::sign(r, network.receipt_key).serialize()));
  });
  refused("wants at least 3 contributors, found 2", [&](auto&, auto& m) { m = show(receipt({"usz", "va"}), "usz"); });
}

TEST_F(CheatingAggregator, CountsAnUpdateThatWasNeverSent) {
  at("usz").on(offer());  // its child is still at work
  const auto steps = at("usz").on(show(receipt(everybody), "usz"));
  EXPECT_THAT(why(steps), HasSubstr("own contribution: wanted none was sent, found counted as contributed"));
  EXPECT_TRUE(sent<messages::Acknowledge>(steps).empty());
}

TEST_F(CheatingAggregator, ClosesWithoutASlowOneWhichSignsAndStopsItsChild) {
  at("usz").on(offer());
  const auto steps = at("usz").on(show(receipt({"charite", "ccf", "va"}), "usz"));
  EXPECT_EQ(all<round::StopTask>(steps).size(), 1U);
  EXPECT_EQ(sent<messages::Acknowledge>(steps).size(), 1U) << why(steps);
  EXPECT_TRUE(at("usz").task_done(1, base::sha256(update("usz")), 32, 1).empty());
}

TEST_F(CheatingAggregator, SignsAheadOfARoundWhoseCommitWasNotShown) {
  offer_and_work();
  at("usz").on(show(receipt(everybody), "usz"));
  round::Receipt next = receipt(everybody);
  next.round = 2;
  next.previous = base::sha256(receipt(everybody).serialize());
  const auto steps = at("usz").on(show(next, "usz"));
  EXPECT_TRUE(sent<messages::Acknowledge>(steps).empty());
  EXPECT_THAT(why(steps), HasSubstr("round: wanted 1, found 2"));
}

/// Forged quorum: published without enough witnesses, or with a value that the receipt does not have.
TEST_F(CheatingAggregator, ForgedQuorum) {
  auto refused = [&](messages::Committed m, const std::string& reason) {
    SCOPED_TRACE(reason);
    round::Participant usz(network.participant_setup("usz"), std::nullopt);
    usz.connected(network.receipt_key.public_key());
    usz.on(offer());
    usz.task_done(1, base::sha256(update("usz")), 32, 1);
    usz.on(show(receipt(everybody), "usz"));
    const auto steps = usz.on(m);
    EXPECT_TRUE(all<round::Keep>(steps).empty());
    EXPECT_TRUE(all<round::Publish>(steps).empty());
    EXPECT_THAT(why(steps), HasSubstr(reason));
    ASSERT_EQ(all<round::Ended>(steps).size(), 1U);
    EXPECT_EQ(all<round::Ended>(steps)[0].outcome, round::Outcome::refused);
  };
  const round::Receipt r = receipt(everybody);
  refused(commit(r, {"charite", "usz"}), "wanted acknowledgements of 3 of the 4 witnesses, found 2");
  refused(commit(r, {"charite", "usz", "usz", "usz"}), "wanted acknowledgements of 3 of the 4 witnesses, found 2");
  auto swapped = commit(r, {"charite", "usz", "ccf"});
  swapped.set_acknowledgements(0, commit(receipt(everybody, "other"), {"charite"}).acknowledgements(0));
  refused(swapped, "wanted receipt sha256:");
  refused(commit(r, {"charite", "usz", "ccf"}, "another value"),
          "published value: wanted the one whose digest the receipt has, found another");
  refused(commit(receipt(everybody, "other"), {"charite", "ccf", "va"}, "other"), "one receipt per round");
}

TEST_F(CheatingAggregator, CommitsAReceiptThatThisOwnerRefused) {
  at("usz").on(offer());
  at("usz").task_done(1, base::sha256(update("usz")), 32, 1);
  messages::Receipt m = show(receipt(everybody), "usz");
  m.clear_leaf_random();
  EXPECT_THAT(why(at("usz").on(m)), HasSubstr("own update under the receipt's root"));
  const auto steps = at("usz").on(commit(receipt(everybody), {"charite", "ccf", "va"}));
  EXPECT_TRUE(all<round::Keep>(steps).empty());
  EXPECT_THAT(why(steps), HasSubstr("receipt that this owner witnesses: wanted one that it did not refuse"));
}

TEST_F(CheatingAggregator, SaysDoneBeforeTheLastRound) {
  messages::RunEnd end;
  end.set_run(1);
  end.set_outcome("done");
  const auto ended = all<round::Ended>(at("usz").on(end));
  ASSERT_EQ(ended.size(), 1U);
  EXPECT_EQ(ended[0].outcome, round::Outcome::failed);
  EXPECT_THAT(ended[0].reason, HasSubstr("the aggregator says done, but round 0"));
}

TEST_F(CheatingAggregator, BreaksTheProtocolAgainAndAgainUntilItsRunIsOver) {
  round::ParticipantSteps steps;
  int cuts = 0;
  for (; cuts < 100 && !at("usz").finished(); ++cuts) {
    steps = at("usz").unexpected("data");
    ASSERT_EQ(all<round::Disconnect>(steps).size(), 1U);
    at("usz").disconnected();
    at("usz").connected(network.receipt_key.public_key());
  }
  EXPECT_LT(cuts, 30);
  EXPECT_THAT(all<round::Ended>(steps).at(0).reason, HasSubstr("broke the protocol"));
}

TEST_F(CheatingAggregator, ThatDiesFailsTheRunAtEveryOwnerByItsDeadline) {
  offer_and_work();
  const auto waits = all<round::SetDeadline>(at("usz").disconnected());
  ASSERT_EQ(waits.size(), 1U);
  EXPECT_EQ(waits[0].after, std::chrono::seconds(70));
  const auto ended = all<round::Ended>(at("usz").deadline(waits[0].name));
  ASSERT_EQ(ended.size(), 1U);
  EXPECT_THAT(ended[0].reason, HasSubstr("the aggregator that served run 1 did not come back within"));
}

TEST_F(CheatingAggregator, SendsMessagesOutOfPlaceAndIsCutWithTheReason) {
  auto cut = [&](round::Message m) {
    const auto steps = at("usz").on(std::move(m));
    const auto cuts = all<round::Disconnect>(steps);
    at("usz").disconnected();
    at("usz").connected(network.receipt_key.public_key());
    return cuts.empty() ? "none" : cuts[0].reason;
  };
  EXPECT_EQ(cut(messages::ParticipantHello()), "got ParticipantHello while waiting for Offer");
  messages::Resume resume;
  resume.set_round(1);
  EXPECT_EQ(cut(resume), "got Resume of round 1 from byte 0 while waiting for Offer");
  messages::Transfer t;
  t.set_what("model");
  EXPECT_EQ(cut(t), "got Transfer of model from byte 0 while waiting for Offer");
  messages::UpdateStored stored;
  stored.set_round(1);
  EXPECT_EQ(cut(stored), "got UpdateStored of round 1 while waiting for Offer");
  messages::Receipt receipt_message;
  receipt_message.set_receipt("noise");
  EXPECT_THAT(cut(receipt_message), HasSubstr("signed receipt"));
  at("usz").on(offer());
  at("usz").task_done(1, base::sha256(update("usz")), 32, 1);
  resume.set_offset(33);
  EXPECT_EQ(cut(resume), "got Resume of round 1 from byte 33 while waiting for Resume or UpdateStored");
}

TEST_F(CheatingAggregator, RunsOfMessagesAreTold) {
  EXPECT_EQ(round::run_of(offer()), 1U);
  EXPECT_EQ(round::run_of(show(receipt(everybody), "usz")), 1U);
  EXPECT_EQ(round::run_of(messages::Resume()), std::nullopt);
  messages::Offer noise;
  noise.set_order("noise");
  EXPECT_EQ(round::run_of(noise), std::nullopt);
  EXPECT_FALSE(round::parse_message(messages::DATA, {}).has_value());
  const Bytes bad = {0xff, 0xff, 0xff};
  EXPECT_THAT(round::parse_message(messages::OFFER, bad).error().text(), HasSubstr("Offer does not parse"));
}

}  // namespace
}  // namespace cloister::tests

// What changes while a run is under way: a charter's successor, a clock that jumps, a hospital that comes late. Whole
// nodes against the real enclave.
#include <gmock/gmock.h>

#include "participant/succession.hpp"
#include "tests/participant/site.hpp"

namespace cloister::participant {
namespace {

using protocols::round::MemberState;
using protocols::round::SignedReceipt;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;

struct Lifecycle : NodeTest {
  using NodeTest::NodeTest;

  awaitable<void> order_run(std::uint64_t number, double rounds) {
    const attest::RunOrder run = world.study->run_order({{"rounds", rounds}}, number);
    co_await coordinator.order(run);
  }
  /// The state of the i-th data owner in every receipt of the coordinator's, first to last.
  std::vector<MemberState> states(std::uint32_t i) const {
    std::vector<MemberState> out;
    for (const auto& r : coordinator.records)
      out.push_back(SignedReceipt::parse(base::view(r.receipt()))->receipt.members[i].state);
    return out;
  }
  /// As `cloister charter sign --witness` leaves it.
  base::Sha256 agree(std::size_t i) {
    const base::Sha256 successor = base::sha256(base::view("the successor"));
    remember_succession(site(i).options.config.witness_key, world.study->charter.digest, successor).value();
    return successor;
  }
};

// --- Succession ------------------------------------------------------------------------------------------------------

TEST_F(Lifecycle, AWitnessThatSignsASuccessorFinishesTheRunUnderWayAndServesNoNewOne) {
  for (auto& s : sites) s->options.runs = 2;
  site(0).options.runs = 1;
  base::Sha256 successor{};
  world.run([](Lifecycle& t, base::Sha256& successor_) -> awaitable<void> {
    co_await t.world.launch();
    t.start_all();
    co_await t.order(4);
    co_await t.until_logged(t.site(0), "committed");
    successor_ = t.agree(0);
    co_await t.until_logged(t.site(0), "succession");
    co_await t.coordinator.until_end();
    co_await t.site(0).until_end();
  }(*this, successor));
  ASSERT_EQ(coordinator.end->outcome(), "done") << coordinator.end->reason();
  EXPECT_THAT(states(0), Each(MemberState::contributed)) << "the run under way goes on";
  const std::size_t charged = site(0).count("charged"), witnessed = site(0).count("signed");

  // A node that is restarted under the old charter remembers, although the file beside the key is gone.
  std::filesystem::remove(successions_path(site(0).options.config.witness_key));
  coordinator.records.clear();
  coordinator.end.reset();
  world.run([](Lifecycle& t) -> awaitable<void> {
    t.site(0).ended.clear();
    t.site(0).start();
    co_await t.order_run(2, 1);
    co_await t.coordinator.until_end();
    for (std::size_t i = 0; i < 4; ++i) co_await t.site(i).until_end();
  }(*this));
  EXPECT_EQ(coordinator.end->outcome(), "done") << "three others are enough: " << coordinator.end->reason();
  EXPECT_THAT(states(0), Each(MemberState::declined));
  EXPECT_THAT(site(0).logged(),
              HasSubstr("denied by charite (data): charter: wanted the charter in force here, found one that " +
                        base::digest_text(successor) + " has succeeded; order new runs under the successor"));
  EXPECT_EQ(site(0).count("charged"), charged);
  EXPECT_EQ(site(0).count("signed"), witnessed) << "neither served nor witnessed";
  const auto first = SignedReceipt::parse(base::view(coordinator.records.front().receipt()));
  EXPECT_THAT(first->receipt.members[0].reason, HasSubstr("order new runs under the successor"));
}

TEST_F(Lifecycle, ARunUnderACharterThatItsWitnessesHaveLeftFailsWithTheReason) {
  world.run([](Lifecycle& t) -> awaitable<void> {
    co_await t.world.launch();
    t.agree(0);
    t.agree(1);
    t.start_all();
    co_await t.order(1);
    co_await t.coordinator.until_end();
    co_await t.until_all_end();
  }(*this));
  EXPECT_EQ(coordinator.end->outcome(), "failed");
  EXPECT_THAT(coordinator.end->reason(), AllOf(HasSubstr("charite"), HasSubstr("usz"), HasSubstr("has succeeded")));
  for (std::size_t i : {0, 1}) {
    EXPECT_THAT(site(i).logged(), HasSubstr("order new runs under the successor"));
    EXPECT_EQ(site(i).count("charged"), 0u);
  }
}

// --- Late joiners ----------------------------------------------------------------------------------------------------

TEST_F(Lifecycle, AHospitalThatStartsInTheMiddleOfARunIsAbsentBeforeAndInTheNextRound) {
  world.run([](Lifecycle& t) -> awaitable<void> {
    co_await t.world.launch();
    for (std::size_t i : {0, 1, 2}) t.site(i).start();
    const attest::RunOrder run = t.world.study->run_order({{"rounds", 4}, {"quorum", 3}});
    co_await t.coordinator.connect();
    co_await t.coordinator.order(run);
    co_await t.until_logged(t.site(0), "committed", 2);
    t.site(3).start();
    co_await t.coordinator.until_end();
    co_await t.until_all_end();
  }(*this));
  EXPECT_EQ(coordinator.end->outcome(), "done") << coordinator.end->reason();
  const auto of_late = states(3);
  EXPECT_EQ(of_late.front(), MemberState::absent);
  EXPECT_EQ(of_late[1], MemberState::absent);
  EXPECT_EQ(site(3).end->kind, NodeEnd::Kind::done) << site(3).end->reason;
}

// --- A clock that jumps ----------------------------------------------------------------------------------------------

TEST_F(Lifecycle, AClockThatIsPutForwardRefusesWhatIsOverByItAndRecoversOnceItIsRight) {
  site(0).options.clock = [this] {
    const std::size_t rounds = coordinator.records.size();
    return base::now() + std::chrono::days(rounds >= 3 && rounds < 6 ? 400 : 0);
  };
  world.run([](Lifecycle& t) -> awaitable<void> {
    co_await t.world.launch();
    t.start_all();
    co_await t.order(5);
    co_await t.coordinator.until_end();
    co_await t.until_all_end();
  }(*this));
  EXPECT_EQ(coordinator.end->outcome(), "done") << coordinator.end->reason();
  const auto of_jumped = states(0);
  EXPECT_EQ(of_jumped[1], MemberState::contributed);
  EXPECT_THAT(of_jumped, ::testing::Contains(MemberState::declined));
  EXPECT_EQ(of_jumped.back(), MemberState::contributed) << "the clock is right again";
  EXPECT_THAT(site(0).logged(), HasSubstr("denied by charite (data): valid.until: wanted before "));
  EXPECT_THAT(site(0).logged(), HasSubstr("the clock was put forward by "));
  EXPECT_EQ(site(0).count("clock_right"), 1u);
  for (const auto& [id, round] : site(0).ledger().rounds)
    EXPECT_LT(round.charged, base::now() + std::chrono::hours(1)) << "the jump leaves no trace";
}

TEST_F(Lifecycle, AClockThatIsPutBackMakesNothingValidThatIsOver) {
  bool over = false;
  site(0).options.passed = [&] { return time_passed() + std::chrono::days(over ? 400 : 0); };
  world.run([](Lifecycle& t, bool& over_) -> awaitable<void> {
    co_await t.world.launch();
    t.start_all();
    co_await t.order(5);
    co_await t.until_logged(t.site(0), "committed", 2);
    over_ = true;  // the policy's end passes, and the clock is put back to where it was
    co_await t.until_logged(t.site(0), "refusal");
    co_await t.coordinator.until_end();
    co_await t.until_all_end();
  }(*this, over));
  EXPECT_EQ(coordinator.end->outcome(), "done") << coordinator.end->reason();
  EXPECT_EQ(states(0).back(), MemberState::declined);
  EXPECT_THAT(site(0).logged(), HasSubstr("denied by charite (data): valid.until: wanted before "));
  EXPECT_THAT(site(0).logged(), HasSubstr("the clock was put back by 400d: validity is judged by the time that has "
                                          "passed"));
}

TEST_F(Lifecycle, WhatTheLedgerHasSeenHoldsOverARestartUnderAClockThatWasPutBack) {
  {
    auto ledger = *Ledger::open(site(0).options.config.ledger_folder, site(0).data_set(), *world.log,
                                [] { return base::now() + std::chrono::days(400); });
    ASSERT_TRUE(ledger->charge({{base::sha256(base::view("another charter")), 1, 1}, "another study", "train", {}}));
  }
  site(0).options.once = true;
  world.run([](Lifecycle& t) -> awaitable<void> {
    co_await t.world.launch();
    t.site(0).start();
    co_await t.site(0).until_end();
  }(*this));
  EXPECT_EQ(site(0).end->kind, NodeEnd::Kind::denied);
  EXPECT_THAT(site(0).end->reason, HasSubstr("valid.until"));
  EXPECT_THAT(site(0).logged(), HasSubstr("which this clock has not reached"));
}

}  // namespace
}  // namespace cloister::participant

#include <gmock/gmock.h>
#include <limits>

#include "tests/aggregation/enclave/cohort.hpp"

// One hospital of four cheats in the train round. Its update is refused with its reason, and the model is, bit for bit,
// what the other three give in plain arithmetic.

namespace cloister::tests {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

struct Cheat {
  std::string name;
  std::string reason;  ///< in what the cheat is told
  Script script;
  std::size_t
      uploads;  ///< of its run: statistics and evaluate, and the train update unless its announcement was refused
};

void PrintTo(const Cheat& cheat, std::ostream* out) {
  *out << cheat.name;
}

void put(Bytes& update, std::size_t element, float value) {
  std::memcpy(update.data() + 4 * element, &value, 4);
}

Script with_value(float value) {
  return {.change_update = [value](const round::OfferedTask& t, Bytes& u, std::uint64_t&) {
    if (t.task == "train") put(u, 5, value);
  }};
}

Script with_weight(std::uint64_t weight) {
  return {.change_update = [weight](const round::OfferedTask& t, Bytes&, std::uint64_t& w) {
    if (t.task == "train") w = weight;
  }};
}

Script announcing(void (*change)(messages::Update&)) {
  return {.change_announcement = change};
}

const std::vector<Cheat> cheats = {
    {"NaN", "wanted a finite number, found NaN or infinity", with_value(std::numeric_limits<float>::quiet_NaN()), 3},
    {"Infinity", "wanted a finite number, found NaN or infinity", with_value(-std::numeric_limits<float>::infinity()),
     3},
    {"OutOfRange", "wanted a magnitude of at most 16, found more", with_value(16.5f), 3},
    {"TooLong", "update.length: wanted 28, found 32", announcing([](messages::Update& u) { u.set_length(32); }), 2},
    {"TooShort", "update.length: wanted 28, found 24", announcing([](messages::Update& u) { u.set_length(24); }), 2},
    {"OtherBytesThanAnnounced", "digest", {.change_sent_bytes = [](Bytes& u) { u[0] ^= 1; }}, 3},
    {"OverItsOwnRecords", "va (data): data.records.at_most: wanted 1 to 500, found more", with_weight(501), 2},
    {"WithoutWeight", "wanted 1 to 500, found 0", with_weight(0), 2},
    {"OtherSchema",
     "update.schema: wanted sha256:", announcing([](messages::Update& u) { u.set_schema(std::string(32, 'x')); }), 2},
    // Its own machine hears of a round that it knows nothing of and hangs up.
    {"OtherRound", "update.round: wanted 2, found 3", announcing([](messages::Update& u) { u.set_round(3); }), 1},
    {"OtherRun", "update.run: wanted 1, found 2", announcing([](messages::Update& u) { u.set_run(2); }), 2},
};

class RefusedUpdate : public testing::TestWithParam<Cheat> {};

TEST_P(RefusedUpdate, LeavesTheSumBitForBitAsItWas) {
  const Cheat& cheat = GetParam();
  World world({.round_deadline = "2s"});
  Cohort cohort(world, {{"va", cheat.script}});
  ScriptedCoordinator coordinator(world);
  world.run(whole_run(world, cohort, coordinator, world.study->run_order(rounds_of(1))));
  EXPECT_EQ(coordinator.end->outcome(), "done") << coordinator.end->reason();
  EXPECT_EQ(base::hex(coordinator.model), base::hex(plain_model(cohort, 6, 1, {0, 1, 2}).serialize()));
  EXPECT_THAT(cohort[3].refused, Contains(HasSubstr(cheat.reason)));
  EXPECT_THAT(world.logged("\"refusal\""), Contains(HasSubstr(" from va")));
  EXPECT_THAT(cohort[3].upload_offsets, SizeIs(cheat.uploads));
}

INSTANTIATE_TEST_SUITE_P(Each, RefusedUpdate, testing::ValuesIn(cheats), [](const auto& i) { return i.param.name; });

TEST(RefusedUpdate, CountsOnceWhenItsOwnerSendsAnotherForTheSameRound) {
  World world;
  Event refused(world.io);
  std::map<std::string, Script> scripts;
  for (const auto& owner : {"charite", "usz", "ccf"})
    scripts[owner].before_task = [&](Hospital&, const round::OfferedTask& t) -> awaitable<void> {
      if (t.task == "train") co_await refused.wait();
    };
  scripts["va"].on_message = [&](Hospital& h, const round::Message& m) -> awaitable<void> {
    if (std::holds_alternative<messages::UpdateRefused>(m)) refused.set();
    const auto* stored = std::get_if<messages::UpdateStored>(&m);
    if (!stored || stored->round() != 2) co_return;
    messages::Update again;
    again.set_run(1);
    again.set_round(2);
    again.set_digest(std::string(32, 'y'));
    again.set_length(28);
    again.set_weight(400);
    co_await h.send(again);
  };
  Cohort cohort(world, scripts);
  ScriptedCoordinator coordinator(world);
  world.run(whole_run(world, cohort, coordinator, world.study->run_order(rounds_of(1))));
  EXPECT_EQ(coordinator.end->outcome(), "done") << coordinator.end->reason();
  EXPECT_EQ(base::hex(coordinator.model), base::hex(plain_model(cohort, 6, 1).serialize()));
  EXPECT_THAT(cohort[3].refused, Contains(HasSubstr("one update per round")));
}

TEST(RefusedUpdate, ComesTooLateOnceTheRoundHasClosedAtItsQuorum) {
  World world;
  Script script;
  script.never_finishes = [](const round::OfferedTask& t) { return t.task == "train"; };
  script.on_message = [](Hospital& h, const round::Message& m) -> awaitable<void> {
    const auto* receipt = std::get_if<messages::Receipt>(&m);
    if (!receipt || round::SignedReceipt::parse(base::view(receipt->receipt()))->receipt.round != 2) co_return;
    messages::Update late;
    late.set_run(1);
    late.set_round(2);
    late.set_digest(std::string(32, 'z'));
    late.set_length(28);
    late.set_weight(400);
    co_await h.send(late);
  };
  Cohort cohort(world, {{"va", script}});
  ScriptedCoordinator coordinator(world);
  auto settings = rounds_of(1);
  settings["quorum"] = 3;
  world.run(whole_run(world, cohort, coordinator, world.study->run_order(settings)));
  EXPECT_EQ(coordinator.end->outcome(), "done") << coordinator.end->reason();
  EXPECT_EQ(base::hex(coordinator.model), base::hex(plain_model(cohort, 6, 1, {0, 1, 2}).serialize()));
  EXPECT_THAT(cohort[3].refused, Contains(HasSubstr("update in time: wanted before round 2 closed, found late")));
}

TEST(RefusedUpdate, IsNamedAsLateWhenItsUploadWasCutOffForGood) {
  for (const std::size_t slots : {4, 0}) {
    World world({.round_deadline = "1s", .slots = slots, .width = 100'000});
    Cohort cohort(world, {{"va", {.cut_upload_at = 300'000, .stays_away = true}}});
    ScriptedCoordinator coordinator(world);
    world.run(whole_run(world, cohort, coordinator, world.study->run_order(rounds_of(1))));
    EXPECT_EQ(coordinator.end->outcome(), "done") << coordinator.end->reason();
    EXPECT_EQ(base::hex(base::sha256(coordinator.model)),
              base::hex(base::sha256(plain_model(cohort, 100'000, 1, {0, 1, 2}).serialize())));
    const auto receipt = round::SignedReceipt::parse(base::view(coordinator.records[1].receipt()));
    ASSERT_TRUE(receipt);
    EXPECT_EQ(receipt->receipt.members[3].state, round::MemberState::late);
    EXPECT_THAT(receipt->receipt.members[3].reason, HasSubstr("still uploading when the round closed"));
  }
}

// What one peer sends wrong is its own link's end; the round goes on with the others.
TEST(RefusedUpdate, EndsOnlyTheLinkOfAPeerThatSendsDataNobodyAskedFor) {
  World world({.round_deadline = "1s"});
  Script script;
  script.before_task = [](Hospital& h, const round::OfferedTask& t) -> awaitable<void> {
    if (t.task == "train") co_await h.send_data(Bytes(1000));
  };
  Cohort cohort(world, {{"va", script}});
  ScriptedCoordinator coordinator(world);
  world.run(whole_run(world, cohort, coordinator, world.study->run_order(rounds_of(1))));
  EXPECT_EQ(coordinator.end->outcome(), "done") << coordinator.end->reason();
  EXPECT_EQ(base::hex(coordinator.model), base::hex(plain_model(cohort, 6, 1, {0, 1, 2}).serialize()));
  EXPECT_THAT(world.failures, Contains(HasSubstr("data that no Transfer announced")));
}

TEST(RefusedUpdate, ThatLeavesTooFewEndsTheRunAndNotTheEnclave) {
  World world({.edits = {{"charite", "at_least = 3, among", "at_least = 4, among"}}, .round_deadline = "2s"});
  Cohort cohort(world, {{"va", with_value(std::numeric_limits<float>::quiet_NaN())}});
  ScriptedCoordinator coordinator(world);
  world.run(whole_run(world, cohort, coordinator, world.study->run_order(rounds_of(1))));
  EXPECT_EQ(coordinator.end->outcome(), "failed");
  EXPECT_THAT(coordinator.end->reason(), HasSubstr("charite (data): study.participants.at_least"));
  EXPECT_THAT(cohort[3].refused, Contains(HasSubstr("wanted a finite number, found NaN or infinity")));
}

TEST(RefusedUpdate, ThatIsSentTwiceInOneBreathCountsOnce) {
  World world({.round_deadline = "2s"});
  auto announced = std::make_shared<messages::Update>();
  auto bytes = std::make_shared<Bytes>();
  Script script;
  script.change_update = [bytes](const round::OfferedTask& t, Bytes& u, std::uint64_t&) {
    if (t.task == "train") *bytes = u;
  };
  script.change_announcement = [announced](messages::Update& u) { *announced = u; };
  script.on_message = [announced, bytes](Hospital& h, const round::Message& m) -> awaitable<void> {
    if (!std::holds_alternative<messages::Resume>(m) || announced->length() == 0) co_return;
    const messages::Update again = *announced;
    announced->Clear();
    messages::Transfer header;
    header.set_what("update");
    header.set_digest(again.digest());
    header.set_length(again.length());
    for (int i = 0; i < 2; ++i) {
      co_await h.send(header);
      co_await h.send_data(*bytes);
      co_await h.send(again);
    }
  };
  Cohort cohort(world, {{"va", script}});
  ScriptedCoordinator coordinator(world);
  world.run(whole_run(world, cohort, coordinator, world.study->run_order(rounds_of(1))));
  EXPECT_EQ(coordinator.end->outcome(), "done") << coordinator.end->reason();
  EXPECT_THAT(base::hex(coordinator.model),
              testing::AnyOf(base::hex(plain_model(cohort, 6, 1, {0, 1, 2, 3}).serialize()),
                             base::hex(plain_model(cohort, 6, 1, {0, 1, 2}).serialize())));
}

TEST(RefusedUpdate, EndsOnlyTheLinkOfAPeerThatAsksForTheModelAgainAndAgain) {
  World world({.round_deadline = "2s", .width = 1'000'000});
  Script script;
  script.on_message = [](Hospital& h, const round::Message& m) -> awaitable<void> {
    const auto* transfer = std::get_if<messages::Transfer>(&m);
    if (!transfer) co_return;
    messages::ModelRequest again;
    again.set_model(transfer->digest());
    for (int i = 0; i < 3; ++i) co_await h.send(again);
  };
  Cohort cohort(world, {{"va", script}});
  ScriptedCoordinator coordinator(world);
  world.run(whole_run(world, cohort, coordinator, world.study->run_order(rounds_of(1))));
  EXPECT_EQ(coordinator.end->outcome(), "done") << coordinator.end->reason();
  EXPECT_THAT(world.logged("peer_refused"), Contains(HasSubstr("asked for the model while it is on its way")));
}

}  // namespace
}  // namespace cloister::tests

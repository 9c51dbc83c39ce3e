#include <gmock/gmock.h>

#include "tests/aggregation/enclave/cohort.hpp"

namespace cloister::tests {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

/// What dialling as `owner` ended with; empty when it was let in.
awaitable<void> try_to_dial(World& world, std::string owner, std::optional<attest::Attester> attester, std::string& why,
                            bool& retry) {
  try {
    const auto link = co_await world.dial(owner, attester);
    why.clear();
  } catch (const channel::Refused& e) {
    why = e.what();
    retry = e.retry();
  } catch (const Exception& e) {
    why = e.what();
  }
}

struct Tried {
  std::string why = "not tried";
  bool retry = false;
};

Tried dial(World& world, const std::string& owner, std::optional<attest::Attester> attester = {}) {
  Tried out;
  world.run(try_to_dial(world, owner, std::move(attester), out.why, out.retry));
  return out;
}

attest::Attester attester_of(const World& world, const std::string& owner) {
  const auto measurement = base::array<48>(world.study->participant_claims(owner).measurement);
  return [&platform = world.hospital_platforms.at(owner), measurement](const Array<64>& report_data) -> Result<Bytes> {
    return platform.attest(measurement, {}, report_data, base::now());
  };
}

// --- Who gets in -----------------------------------------------------------------------------------------------------

TEST(Server, TellsPeersToTryAgainBeforeThereIsAGrant) {
  World world;
  const Tried tried = dial(world, "charite");
  EXPECT_THAT(tried.why, HasSubstr("grant"));
  EXPECT_TRUE(tried.retry);
}

awaitable<void> dial_as_stranger(World& world, std::string& why) {
  co_await world.launch();
  try {
    co_await channel::connect_enclave(world.endpoint(), base::PrivateKey::generate(), world.expectation("charite"), {},
                                      std::chrono::steady_clock::now() + std::chrono::seconds(5), nullptr);
  } catch (const Exception& e) {
    why = e.what();
  }
  co_await world.until_logged("ed25519:");
}

TEST(Server, RefusesAStrangerInTheHandshakeAndSaysSoInItsLog) {
  World world;
  std::string why;
  world.run(dial_as_stranger(world, why));
  EXPECT_THAT(why, Not(IsEmpty()));
  EXPECT_THAT(world.logged("refusal"), Contains(HasSubstr("ed25519:")));
  EXPECT_THAT(world.logged("peer_admitted"), SizeIs(1));  // the launcher
}

TEST(Server, NeverGivesAByteOfWeightsToAnUnattestedHospitalWhenTheModelOwnerDemandsEvidence) {
  World world({.attested_participants = true, .round_deadline = "1s"});
  std::map<std::string, Script> scripts;
  for (const auto& owner : {"charite", "usz", "ccf"}) scripts[owner].attester = attester_of(world, owner);
  Cohort cohort(world, scripts);
  ScriptedCoordinator coordinator(world);
  world.run(whole_run(world, cohort, coordinator, world.study->run_order(rounds_of(1))));
  EXPECT_EQ(coordinator.end->outcome(), "done") << coordinator.end->reason();
  EXPECT_EQ(base::hex(coordinator.model), base::hex(plain_model(cohort, 6, 1, {0, 1, 2}).serialize()));
  EXPECT_GT(cohort[0].model_bytes, 0u);
  EXPECT_EQ(cohort[3].model_bytes, 0u);
  EXPECT_THAT(cohort[3].seen, IsEmpty());
  EXPECT_THAT(world.failures, Contains(HasSubstr("acme (model): participants")));
  EXPECT_THAT(world.logged("refusal"), Contains(HasSubstr("acme (model)")));
}

TEST(Server, RefusesAnAttestedHospitalWhoseEvidenceIsOfAnotherProgram) {
  World world({.attested_participants = true});
  const auto& platform = world.hospital_platforms.at("charite");
  world.run(world.launch());
  const Tried tried = dial(world, "charite", [&platform](const Array<64>& report_data) -> Result<Bytes> {
    return platform.attest({}, {}, report_data, base::now());
  });
  EXPECT_THAT(tried.why, HasSubstr("participants.measurement"));
}

TEST(Server, RefusesAHospitalThatTheComputeOwnerDoesNotLetConnect) {
  // judge() finds this before founding; the enclave holds to it when a charter was founded all the same.
  World world({.edits = {{"cloudco", "\"ccf\", \"va\"]\nmemory", "\"ccf\"]\nmemory"}}});
  world.run(world.launch());
  EXPECT_THAT(dial(world, "va").why,
              HasSubstr("cloudco (compute): launch.connect: wanted one of charite, usz, ccf, found va"));
  EXPECT_THAT(dial(world, "ccf").why, IsEmpty());
}

TEST(Server, HoldsNoMoreConnectionsThanTheLaunchAllows) {
  World world({.connections = 2});
  std::vector<std::string> whys;
  world.run([](World& w, std::vector<std::string>& out) -> awaitable<void> {
    co_await w.launch();
    const auto first = co_await w.dial("charite");
    std::string why;
    bool retry = false;
    co_await try_to_dial(w, "usz", {}, why, retry);
    out.push_back(why);
  }(world, whys));
  EXPECT_THAT(whys[0], Not(IsEmpty()));
  EXPECT_THAT(world.logged("connection_refused"), Contains(HasSubstr("as many as the launch allows")));
}

TEST(Server, TakesASecondConnectionOfAnOwnerInPlaceOfTheFirst) {
  World world;
  std::string why;
  world.run([](World& w, std::string& out) -> awaitable<void> {
    co_await w.launch();
    const auto first = co_await w.dial("charite");
    const auto second = co_await w.dial("charite");
    try {
      co_await with_deadline(first->receive(), std::chrono::steady_clock::now() + std::chrono::seconds(5), "the end");
    } catch (const Exception& e) {
      out = e.what();
    }
  }(world, why));
  EXPECT_THAT(why, HasSubstr("closed"));
}

// --- Grant and life --------------------------------------------------------------------------------------------------

TEST(Server, MakesNoNewOfferOnceItsGrantHasExpired) {
  World world({.channel_deadline = "2s"});
  Cohort cohort(world);
  // The statistics round is committed under the grant; then the host's clock passes its end.
  cohort[0].script.on_message = [&](Hospital&, const round::Message& m) -> awaitable<void> {
    const auto* offer = std::get_if<messages::Offer>(&m);
    if (offer && offer->round() == 2) world.clock_offset = std::chrono::hours(2);
    co_return;
  };
  cohort[0].script.before_task = [&](Hospital&, const round::OfferedTask& t) -> awaitable<void> {
    if (t.task != "train") co_return;
    co_await world.until_logged("grant_expired");
  };
  ScriptedCoordinator coordinator(world);
  world.run(whole_run(world, cohort, coordinator, world.study->run_order(rounds_of(1))));
  EXPECT_EQ(coordinator.end->outcome(), "failed");
  EXPECT_THAT(coordinator.end->reason(), HasSubstr("the launch grant expired and was not renewed"));
  EXPECT_THAT(coordinator.results["evaluate"], IsEmpty());
  const Tried tried = dial(world, "charite");
  EXPECT_TRUE(tried.retry) << tried.why;
}

awaitable<void> order_without_grant(World& world, Cohort& cohort, ScriptedCoordinator& coordinator) {
  co_await world.launch();
  cohort.take_part(world);
  co_await coordinator.connect();
  world.clock_offset = std::chrono::hours(2);
  co_await coordinator.order(world.study->run_order());
  co_await coordinator.until_end();
}

TEST(Server, DoesNotOfferEvenTheFirstRoundWithoutAGrant) {
  World world({.channel_deadline = "2s"});
  Cohort cohort(world);
  ScriptedCoordinator coordinator(world);
  world.run(order_without_grant(world, cohort, coordinator));
  EXPECT_EQ(coordinator.end->outcome(), "failed");
  EXPECT_THAT(coordinator.end->reason(), HasSubstr("the launch grant expired and was not renewed"));
  for (const auto& hospital : cohort.members) EXPECT_THAT(hospital->seen, Not(Contains("Offer")));
}

TEST(Server, GoesOnWhenItsGrantIsRenewedInTime) {
  World world;
  Cohort cohort(world);
  cohort[0].script.before_task = [&](Hospital&, const round::OfferedTask& t) -> awaitable<void> {
    if (t.task != "train") co_return;
    world.clock_offset = std::chrono::hours(2);
    co_await world.renew(std::chrono::hours(1));
  };
  ScriptedCoordinator coordinator(world);
  world.run(whole_run(world, cohort, coordinator, world.study->run_order(rounds_of(1))));
  EXPECT_EQ(coordinator.end->outcome(), "done") << coordinator.end->reason();
  EXPECT_THAT(world.logged("grant_renewed"), SizeIs(1));
}

awaitable<void> send_grant(World& world, protocols::launch::Grant grant, base::PrivateKey key) {
  const auto link = co_await channel::connect_pinned(world.endpoint(), world.study->keys("cloudco").tls, std::nullopt,
                                                     std::chrono::steady_clock::now() + std::chrono::seconds(5));
  const auto frame = co_await link->receive();
  if (grant.record == base::Sha256{})
    grant.record = base::sha256(base::view(channel::parse<messages::Instance>(frame).record()));
  messages::Grant message;
  const auto bytes = protocols::launch::sign_grant(grant, key).serialize();
  message.set_grant(bytes.data(), bytes.size());
  co_await link->send(messages::GRANT, message);
  co_await world.until_logged("grant_refused");
}

TEST(Server, VerifiesItsGrantItself) {
  World world;
  const protocols::launch::Grant good{.record = {},
                                      .platform = world.platform.identity(),
                                      .host_data = world.tee->host_data,
                                      .not_before = base::now() - std::chrono::seconds(1),
                                      .not_after = base::now() + std::chrono::hours(1),
                                      .signature = {}};
  world.run(send_grant(world, good, base::PrivateKey::generate()));
  EXPECT_THAT(world.logged("refusal"), Contains(HasSubstr("the launcher's grant")));
  EXPECT_THAT(dial(world, "charite").why, HasSubstr("grant"));
}

TEST(Server, EndsWhenTheLauncherIsGoneForLongerThanItsGrant) {
  World world;
  world.run(world.launch());
  world.hang_up_launcher();
  world.clock_offset = std::chrono::hours(2);
  world.io.restart();
  while (!world.ended) world.io.run_one_for(std::chrono::seconds(5));
  EXPECT_EQ(*world.ended, "the launcher's link was lost for longer than its grant");
}

TEST(Server, EndsWithItsTee) {
  World world;
  world.run(world.launch());
  world.tee->gone = true;
  world.io.restart();
  while (!world.ended) world.io.run_one_for(std::chrono::seconds(5));
  EXPECT_EQ(*world.ended, "the TEE has ended");
}

TEST(Server, EndsAfterTheLaunchsDuration) {
  World world({.duration = std::chrono::milliseconds(300)});
  world.io.restart();
  while (!world.ended) world.io.run_one_for(std::chrono::seconds(5));
  EXPECT_EQ(*world.ended, "the launch's duration is over");
}

// --- Orders ----------------------------------------------------------------------------------------------------------

awaitable<void> only_order(World& world, ScriptedCoordinator& coordinator, attest::RunOrder order, Bytes model) {
  co_await world.launch();
  co_await coordinator.connect();
  co_await coordinator.order(order, std::move(model));
  co_await coordinator.until_end();
}

std::string refusal_of(World& world, const attest::RunOrder& order, Bytes model) {
  ScriptedCoordinator coordinator(world);
  world.run(only_order(world, coordinator, order, std::move(model)));
  EXPECT_EQ(coordinator.end->outcome(), "failed");
  return coordinator.end->reason();
}

TEST(RunOrder, IsRefusedWithAnotherInitialModelThanTheCharters) {
  World world;
  Bytes model = world.initial_model;
  model.back() ^= 1;
  EXPECT_THAT(refusal_of(world, world.study->run_order(), model),
              HasSubstr("initial model: wanted the charter's sha256:"));
}

TEST(RunOrder, IsRefusedWithoutASubmitterOfTheModelOwnersPolicy) {
  World world;
  auto order = world.study->run_order();
  order.submitter = "mallory";
  order.submit(base::PrivateKey::generate());
  order.number(1, *world.study->keys("acme").order);
  EXPECT_THAT(refusal_of(world, order, world.initial_model), HasSubstr("submitters"));
}

TEST(RunOrder, IsRefusedOutsideTheChartersRanges) {
  World world;
  EXPECT_THAT(refusal_of(world, world.study->run_order(rounds_of(21)), world.initial_model), HasSubstr("rounds"));
}

TEST(RunOrder, IsRefusedWhenOneHospitalAllowsFewerRounds) {
  World world({.edits = {{"usz", "rounds = { at_most = 50 }", "rounds = { at_most = 2 }"}}});
  const std::string reason = refusal_of(world, world.study->run_order(rounds_of(3)), world.initial_model);
  EXPECT_THAT(reason, HasSubstr("usz (data): study.rounds.at_most"));
}

awaitable<void> order_raw(World& world, ScriptedCoordinator& coordinator, attest::RunOrder order, Bytes model,
                          std::string& why, bool& retry) {
  try {
    co_await coordinator.order(order, std::move(model));
    co_await coordinator.until_end();
  } catch (const channel::Refused& e) {
    why = e.what();
    retry = e.retry();
  }
  (void)world;
}

TEST(RunOrder, OfTheWrongLengthEndsTheLinkBeforeItsModelIsRead) {
  World world;
  ScriptedCoordinator coordinator(world);
  std::string why;
  bool retry = false;
  world.run(world.launch());
  world.run(coordinator.connect());
  world.run(order_raw(world, coordinator, world.study->run_order(), Bytes(1 << 20), why, retry));
  EXPECT_THAT(why, HasSubstr("initial model: wanted"));
}

TEST(RunOrder, IsTurnedAwayWhileARunIsUnderWay) {
  World world;
  ScriptedCoordinator coordinator(world), second(world);
  std::string why;
  bool retry = false;
  world.run(world.launch());
  world.run(coordinator.connect());
  world.run(coordinator.order(world.study->run_order()));
  world.run(coordinator.until([&] { return !coordinator.statuses.empty(); }));
  world.run(second.connect());
  world.run(order_raw(world, second, world.study->run_order({}, 2), world.initial_model, why, retry));
  EXPECT_THAT(why, HasSubstr("run 1 is under way"));
  EXPECT_TRUE(retry);
}

TEST(RunOrder, OfAnUnknownRunCannotBeAskedFor) {
  World world;
  ScriptedCoordinator coordinator(world);
  std::string why;
  world.run(world.launch());
  world.run(coordinator.connect());
  world.run([](World& w, ScriptedCoordinator& c, std::string& out) -> awaitable<void> {
    try {
      co_await c.ask(w.study->run_order({}, 7));
      co_await c.until_end();
    } catch (const channel::Refused& e) {
      out = e.what();
    }
  }(world, coordinator, why));
  EXPECT_THAT(why, HasSubstr("run 7 is not known to this instance"));
}

TEST(RunOrder, SpendsItsNumberOnceAndForAll) {
  World world;
  Cohort cohort(world);
  ScriptedCoordinator coordinator(world);
  const auto first = world.study->run_order(rounds_of(1), 1);
  world.run(whole_run(world, cohort, coordinator, first));
  // Another run in between, so that this instance no longer tells of run 1.
  ScriptedCoordinator again(world);
  world.run(again.connect());
  world.run(again.order(world.study->run_order(rounds_of(1), 2)));
  world.run(again.until([&] { return !again.statuses.empty(); }));
  world.run(again.cancel(2, "enough"));
  world.run([](ScriptedCoordinator& c) -> awaitable<void> { co_await c.until_end(); }(again));
  std::string why;
  bool retry = false;
  world.run(order_raw(world, again, first, world.initial_model, why, retry));
  EXPECT_THAT(why, HasSubstr("runs.number: wanted a number that was not used, found run 1 again"));
  EXPECT_FALSE(retry);
}

}  // namespace
}  // namespace cloister::tests

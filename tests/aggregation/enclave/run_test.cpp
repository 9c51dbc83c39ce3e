#include <gmock/gmock.h>
#include <numeric>

#include "aggregation/evaluate.hpp"
#include "aggregation/statistics.hpp"
#include "tests/aggregation/enclave/cohort.hpp"

namespace cloister::tests {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

TEST(Run, GivesTheModelThatPlainArithmeticGives) {
  World world;
  Cohort cohort(world);
  ScriptedCoordinator coordinator(world);
  world.run(whole_run(world, cohort, coordinator, world.study->run_order(rounds_of(3))));
  EXPECT_EQ(coordinator.end->outcome(), "done") << coordinator.end->reason();
  EXPECT_EQ(base::hex(coordinator.model), base::hex(plain_model(cohort, 6, 3).serialize()));
  EXPECT_EQ(base::view(coordinator.end->final_model()).size(), 32u);
  EXPECT_TRUE(base::equal(base::view(coordinator.end->final_model()), base::sha256(coordinator.model)));
  EXPECT_THAT(world.failures, IsEmpty());
}

TEST(Run, GivesReceiptsThatVerifyOfflineFromTheFirstToTheLast) {
  World world;
  Cohort cohort(world);
  ScriptedCoordinator coordinator(world);
  world.run(whole_run(world, cohort, coordinator, world.study->run_order(rounds_of(2))));
  ASSERT_THAT(coordinator.records, SizeIs(5));  // statistics, then twice a train and an evaluate task
  std::vector<round::CommittedReceipt> chain;
  for (const auto& r : coordinator.records) {
    chain.push_back({base::copy(base::view(r.receipt())), {}});
    for (const auto& a : r.acknowledgements()) chain.back().acknowledgements.push_back(base::copy(base::view(a)));
  }
  const auto record = protocols::launch::Record::parse(base::view(coordinator.records[0].record()));
  ASSERT_TRUE(record);
  const auto evidence = base::sha256(base::view(coordinator.records[0].instance_evidence()));
  const auto receipts = round::verify_chain(chain, world.study->charter, record->receipt, evidence);
  ASSERT_TRUE(receipts) << receipts.error().text();
  EXPECT_EQ(receipts->back().receipt.train_round, 2u);
  EXPECT_TRUE(receipts->back().receipt.simulated);
  EXPECT_EQ(receipts->back().receipt.model_out, base::sha256(coordinator.model));
}

TEST(Run, PublishesTheStatisticsAndTheHistogramsThatPlainArithmeticGives) {
  World world;
  Cohort cohort(world);
  ScriptedCoordinator coordinator(world);
  world.run(whole_run(world, cohort, coordinator, world.study->run_order(rounds_of(1))));
  const auto statistics = aggregation::Statistics::parse(cohort[0].published.at("statistics"));
  ASSERT_TRUE(statistics) << statistics.error().text();
  // Four sites with 20 records each, sum 20 w and square sum 400 w, w = 100 … 400.
  EXPECT_DOUBLE_EQ(*statistics->find("age")->mean, 20.0 * 1000 / 80);
  EXPECT_DOUBLE_EQ(statistics->find("sex")->cells[0].frequency, 0.5 * 80 / 80);
  const auto evaluation = aggregation::Evaluation::parse(base::view(coordinator.results.at("evaluate").back().value()));
  ASSERT_TRUE(evaluation) << evaluation.error().text();
  const auto count = [](const auto& bins) { return std::accumulate(bins.begin(), bins.end(), std::uint64_t{0}); };
  EXPECT_EQ(count(evaluation->positives) + count(evaluation->negatives), 80u);
  EXPECT_TRUE(evaluation->auc().has_value());
}

// "The enclave suppresses a statistic with fewer contributors than the largest at_least": two of four have too few
// values.
TEST(Run, SuppressesAStatisticThatFewerThanTheLargestAtLeastContributeTo) {
  World world;
  Script few{.change_update = [&](const round::OfferedTask& t, Bytes& update, std::uint64_t&) {
    if (t.task != "statistics") return;
    const auto plan = enclave::make_plan(world.study->charter);
    std::vector<aggregation::SiteColumn> columns;
    for (const auto& c : plan->statistics->columns)
      columns.push_back({.count = c.name == "age" ? 9u : 20u,
                         .sum = 1,
                         .square_sum = 1,
                         .counts = std::vector<std::uint64_t>(c.categories.size(), 10)});
    update = aggregation::statistics_update(*plan->statistics, columns,
                                            world.study->charter.manifest.statistics_minimum_count);
  }};
  Cohort cohort(world, {{"usz", few}, {"va", few}});
  ScriptedCoordinator coordinator(world);
  world.run(whole_run(world, cohort, coordinator, world.study->run_order(rounds_of(1))));
  const auto statistics = aggregation::Statistics::parse(cohort[0].published.at("statistics"));
  ASSERT_TRUE(statistics) << statistics.error().text();
  EXPECT_TRUE(statistics->find("age")->suppressed);
  EXPECT_FALSE(statistics->find("age")->mean.has_value());
  EXPECT_FALSE(statistics->find("sex")->suppressed);
}

// Lets the hospitals hand in their updates one after the other, in a given order.
struct Queue {
  Queue(World& w, std::vector<std::string> o) : world(w), order(std::move(o)) { reset(); }
  void reset() {
    turns.clear();
    for (std::size_t i = 0; i <= order.size(); ++i) turns.push_back(std::make_unique<Event>(world.io));
    turns[0]->set();
  }
  std::size_t place(const std::string& owner) const {
    return static_cast<std::size_t>(std::ranges::find(order, owner) - order.begin());
  }
  Script script() {
    Script s;
    s.before_task = [this](Hospital& h, const round::OfferedTask& t) -> awaitable<void> {
      if (t.task == "train") co_await turns[place(h.owner)]->wait();
    };
    s.on_message = [this](Hospital& h, const round::Message& m) -> awaitable<void> {
      if (std::holds_alternative<messages::UpdateStored>(m)) turns[place(h.owner) + 1]->set();
      co_return;
    };
    return s;
  }
  World& world;
  std::vector<std::string> order;
  std::vector<std::unique_ptr<Event>> turns;
};

awaitable<void> runs_in_orders(World& world, Cohort& cohort, ScriptedCoordinator& coordinator, Queue& queue,
                               const std::vector<std::vector<std::string>>& orders, std::vector<std::string>& models) {
  co_await world.launch();
  cohort.take_part(world, orders.size());
  co_await coordinator.connect();
  for (std::size_t i = 0; i < orders.size(); ++i) {
    queue.order = orders[i];
    queue.reset();
    co_await coordinator.order(world.study->run_order(rounds_of(1), i + 1));
    co_await coordinator.until_end();
    models.push_back(base::hex(base::sha256(coordinator.model)) + " " + coordinator.end->outcome());
  }
}

// One instance serves five runs, so this also shows that it waits for the next order after a run.
TEST(Run, GivesTheSameBitsForEveryOrderOfArrival) {
  World world;
  Queue queue(world, cohort_owners);
  std::map<std::string, Script> scripts;
  for (const auto& owner : cohort_owners) scripts[owner] = queue.script();
  Cohort cohort(world, scripts);
  ScriptedCoordinator coordinator(world);
  std::vector<std::vector<std::string>> orders(5, cohort_owners);
  for (std::size_t i = 0; i < 4; ++i)
    std::ranges::rotate(orders[i], orders[i].begin() + static_cast<std::ptrdiff_t>(i));
  std::ranges::reverse(orders[4]);
  std::vector<std::string> models;
  world.run(runs_in_orders(world, cohort, coordinator, queue, orders, models));
  const std::string expected = base::hex(base::sha256(plain_model(cohort, 6, 1).serialize())) + " done";
  EXPECT_THAT(models, SizeIs(5));
  EXPECT_THAT(models, Each(expected));
  EXPECT_THAT(world.failures, IsEmpty());
}

TEST(Run, GivesTheSameBitsWhenUpdatesWaitInSealedFiles) {
  for (const std::size_t slots : {0, 1}) {
    World world({.slots = slots, .width = 100'000});
    Cohort cohort(world);
    ScriptedCoordinator coordinator(world);
    world.run(whole_run(world, cohort, coordinator, world.study->run_order(rounds_of(2))));
    EXPECT_EQ(coordinator.end->outcome(), "done") << coordinator.end->reason();
    EXPECT_EQ(base::hex(base::sha256(coordinator.model)),
              base::hex(base::sha256(plain_model(cohort, 100'000, 2).serialize())));
  }
}

TEST(Run, ResumesAnUploadThatWasCutInTheMiddleAtTheMissingByte) {
  for (const std::size_t slots : {4, 0}) {
    World world({.slots = slots, .width = 100'000});
    Cohort cohort(world, {{"va", {.cut_upload_at = 300'001}}});
    ScriptedCoordinator coordinator(world);
    world.run(whole_run(world, cohort, coordinator, world.study->run_order(rounds_of(1))));
    EXPECT_EQ(coordinator.end->outcome(), "done") << coordinator.end->reason();
    EXPECT_EQ(base::hex(base::sha256(coordinator.model)),
              base::hex(base::sha256(plain_model(cohort, 100'000, 1).serialize())));
    EXPECT_EQ(cohort[3].connections, 2u);
    // Statistics whole, the train update twice, evaluate whole. What TLS had not delivered is sent again, nothing else.
    ASSERT_THAT(cohort[3].upload_offsets, SizeIs(4));
    EXPECT_EQ(cohort[3].upload_offsets[1], 0u);
    EXPECT_GT(cohort[3].upload_offsets[2], 0u);
    EXPECT_LE(cohort[3].upload_offsets[2], 300'001u);
  }
}

TEST(Run, TellsTheCoordinatorWhatItMissedAndGoesOnLive) {
  World world;
  Cohort cohort(world);
  ScriptedCoordinator coordinator(world);
  const auto order = world.study->run_order(rounds_of(3));
  ScriptedCoordinator back(world);
  world.run([](World& w, Cohort& c, ScriptedCoordinator& first, ScriptedCoordinator& second,
               attest::RunOrder o) -> awaitable<void> {
    co_await w.launch();
    c.take_part(w);
    co_await first.connect();
    co_await first.order(o);
    co_await first.until([&] { return first.records.size() == 2; });
    first.cut();
    co_await second.connect();
    co_await second.ask(o);
    co_await second.until_end();
  }(world, cohort, coordinator, back, order));
  EXPECT_EQ(back.end->outcome(), "done") << back.end->reason();
  EXPECT_THAT(back.records, SizeIs(7));
  EXPECT_EQ(base::hex(back.model), base::hex(plain_model(cohort, 6, 3).serialize()));
  // The first that it was told of a round is what the one before was told.
  EXPECT_EQ(back.records[0].receipt(), coordinator.records[0].receipt());
}

TEST(Run, FailsNamingTheOwnerWhoseMinimumWasNotMet) {
  // Four in the cohort, two of them decline by never finishing; charité wants at least 3.
  World world({.edits = {{"charite", "at_least = 3, among", "at_least = 4, among"}}, .round_deadline = "1s"});
  Script idle{.never_finishes = [](const round::OfferedTask& t) { return t.task == "train"; }};
  Cohort cohort(world, {{"va", idle}});
  ScriptedCoordinator coordinator(world);
  world.run(whole_run(world, cohort, coordinator, world.study->run_order(rounds_of(1))));
  EXPECT_EQ(coordinator.end->outcome(), "failed");
  EXPECT_THAT(coordinator.end->reason(), HasSubstr("charite (data): study.participants.at_least"));
  EXPECT_THAT(coordinator.end->reason(), HasSubstr("wanted 4 contributors, found 3; va late"));
  EXPECT_TRUE(coordinator.model.empty());
  EXPECT_THAT(coordinator.results["model"], IsEmpty());
  EXPECT_EQ(cohort[0].ended->reason, coordinator.end->reason());
}

TEST(Run, EndsAsCancelledForEverybodyWhenTheCoordinatorCancelsIt) {
  World world;
  Script idle{.never_finishes = [](const round::OfferedTask& t) { return t.task == "train"; }};
  Cohort cohort(world, {{"va", idle}});
  ScriptedCoordinator coordinator(world);
  world.run([](World& w, Cohort& c, ScriptedCoordinator& coord) -> awaitable<void> {
    co_await w.launch();
    c.take_part(w);
    co_await coord.connect();
    co_await coord.order(w.study->run_order(rounds_of(1)));
    co_await coord.until([&] { return coord.records.size() == 1; });
    co_await coord.cancel(1, "a better idea");
    co_await coord.until_end();
  }(world, cohort, coordinator));
  EXPECT_EQ(coordinator.end->outcome(), "cancelled");
  EXPECT_THAT(coordinator.end->reason(), HasSubstr("a better idea"));
  EXPECT_TRUE(coordinator.end->final_model().empty());
}

TEST(Run, FailsWithItsReasonForEverybodyWhenTheInstanceEnds) {
  World world;
  Script idle{.never_finishes = [](const round::OfferedTask& t) { return t.task == "train"; }};
  Cohort cohort(world, {{"va", idle}});
  ScriptedCoordinator coordinator(world);
  world.run([](World& w, Cohort& c, ScriptedCoordinator& coord) -> awaitable<void> {
    co_await w.launch();
    c.take_part(w);
    co_await coord.connect();
    co_await coord.order(w.study->run_order(rounds_of(1)));
    co_await coord.until([&] { return coord.records.size() == 1; });
    w.tee->gone = true;
    co_await coord.until_end();
  }(world, cohort, coordinator));
  EXPECT_EQ(coordinator.end->outcome(), "failed");
  EXPECT_THAT(coordinator.end->reason(), HasSubstr("the TEE has ended"));
}

TEST(Run, GoesOnWithoutAHospitalThatWithdrewBetweenRuns) {
  World world;
  Cohort cohort(world);
  ScriptedCoordinator coordinator(world);
  std::string first;
  world.run([](World& w, Cohort& c, ScriptedCoordinator& coord, std::string& model) -> awaitable<void> {
    co_await w.launch();
    c.take_part(w, 2);
    co_await coord.connect();
    co_await coord.order(w.study->run_order(rounds_of(1)));
    co_await coord.until_end();
    model = base::hex(coord.model);
    messages::Withdraw leave;
    const auto statement =
        round::Withdrawal::sign("va", w.study->charter, 1, base::now(), *w.study->keys("va").witness).serialize();
    leave.set_statement(statement.data(), statement.size());
    co_await c[3].send(leave);
    co_await coord.order(w.study->run_order(rounds_of(1), 2));
    co_await coord.until_end();
    w.server->end("the test is over");  // va waits for a second run that it is not in
    co_await c.all_gone();
  }(world, cohort, coordinator, first));
  EXPECT_EQ(coordinator.end->outcome(), "done") << coordinator.end->reason();
  EXPECT_EQ(first, base::hex(plain_model(cohort, 6, 1).serialize()));
  EXPECT_EQ(base::hex(coordinator.model), base::hex(plain_model(cohort, 6, 1, {0, 1, 2}).serialize()));
}

}  // namespace
}  // namespace cloister::tests

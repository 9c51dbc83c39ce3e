// Whole nodes, with ledger, sandbox and a trainer child, against the real enclave over real channels in one process.
#include "participant/node.hpp"

#include <fstream>
#include <gmock/gmock.h>

#include "tests/participant/site.hpp"

namespace cloister::participant {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST_F(NodeTest, FourNodesTrainOneModelAndTheirLedgersSayWhatLeft) {
  world.run([](NodeTest& t) -> awaitable<void> {
    t.start_all();  // before anybody answers
    co_await t.world.launch();
    co_await t.order(2);
    co_await t.coordinator.until_end();
    co_await t.until_all_end();
  }(*this));
  EXPECT_EQ(coordinator.end->outcome(), "done") << coordinator.end->reason();
  EXPECT_THAT(world.failures, IsEmpty());
  const aggregation::Model model = *aggregation::parse_model(coordinator.model);
  for (const float v : model.values) EXPECT_FLOAT_EQ(v, 0.02f);
  for (auto& s : sites) {
    EXPECT_EQ(s->end->kind, NodeEnd::Kind::done) << s->end->reason;
    const LedgerState state = s->ledger();
    const attest::Spent spent = state.spent("heart", {world.study->charter.digest, 1, 99});
    EXPECT_EQ(spent.rounds, 2u);
    EXPECT_EQ(spent.statistics, 1u);
    EXPECT_EQ(spent.evaluate, 2u);
    EXPECT_EQ(state.run({world.study->charter.digest, 1})->outcome, "done");
    EXPECT_EQ(state.last_receipt({world.study->charter.digest, 1})->first.round, 5u);
    EXPECT_EQ(s->count("signed"), 5u);
    EXPECT_TRUE(std::filesystem::is_empty(s->options.config.ledger_folder + "/updates")) << "removed after the commit";
    EXPECT_THAT(s->logged(), HasSubstr("\"simulated\":true"));
    EXPECT_THAT(s->logged(), HasSubstr("no differential privacy protects this study"));
  }
}

TEST_F(NodeTest, ARestartInTheMiddleOfARoundGoesOnAndChargesNothingTwice) {
  world.run([](NodeTest& t) -> awaitable<void> {
    co_await t.world.launch();
    t.start_all();
    co_await t.order(2);
    for (const char* moment : {"charged", "stored", "signed"}) {
      co_await t.until_logged(t.site(0), moment, t.site(0).count(moment) + 1);
      co_await t.site(0).restart();
    }
    co_await t.coordinator.until_end();
    co_await t.until_all_end();
  }(*this));
  EXPECT_EQ(coordinator.end->outcome(), "done") << coordinator.end->reason();
  EXPECT_EQ(site(0).end->kind, NodeEnd::Kind::done) << site(0).end->reason;
  EXPECT_GE(site(0).count("resumed"), 1u);
  EXPECT_EQ(site(0).count("charged"), 5u) << "statistics, 2 train, 2 evaluate";
  EXPECT_EQ(site(0).ledger().spent("heart", {world.study->charter.digest, 1, 99}).rounds, 2u);
}

TEST_F(NodeTest, AHospitalWhoseLedgerIsSpentDeclinesAndTheOthersTrainOn) {
  {
    auto ledger = *Ledger::open(site(3).options.config.ledger_folder, site(3).data_set(), *world.log);
    for (std::uint64_t run = 100; run < 120; ++run)
      ASSERT_TRUE(ledger->charge({{world.study->charter.digest, run, 1}, "heart", "train", {}}));
  }
  world.run([](NodeTest& t) -> awaitable<void> {
    co_await t.world.launch();
    t.start_all();
    co_await t.order(1);
    co_await t.coordinator.until_end();
    co_await t.until_all_end();
  }(*this));
  EXPECT_EQ(coordinator.end->outcome(), "done") << coordinator.end->reason();
  EXPECT_THAT(site(3).logged(),
              HasSubstr("va (data): study.runs.at_most: wanted at most 20, found run 21 of this study"));
  EXPECT_EQ(site(3).count("charged"), 0u);
  EXPECT_EQ(site(3).count("signed"), 3u) << "a witness signs for what others did";
}

TEST_F(NodeTest, AHospitalWhoseTrainerCannotStartDeclinesWithTheReason) {
  world.run([](NodeTest& t) -> awaitable<void> {
    co_await t.world.launch();
    t.start_all();
    std::filesystem::remove(t.site(1).folder / "data.csv");
    co_await t.order(1);
    co_await t.coordinator.until_end();
    co_await t.until_all_end();
  }(*this));
  EXPECT_EQ(coordinator.end->outcome(), "done") << coordinator.end->reason();
  EXPECT_THAT(site(1).logged(), HasSubstr("usz (data): trainer: wanted a trainer that starts, found"));
  EXPECT_THAT(site(1).logged(), HasSubstr("cannot open the data"));
}

TEST_F(NodeTest, AWithdrawalIsNoticedAndTheNextRoundRunsWithoutThatHospital) {
  world.run([](NodeTest& t) -> awaitable<void> {
    co_await t.world.launch();
    t.start_all();
    co_await t.order(3);
    co_await t.until_logged(t.site(2), "committed");
    const auto& c = t.site(2).options.config;
    withdraw(c.ledger_folder, "ccf", t.world.study->charter, *t.world.study->keys("ccf").witness,
             "the board decided so", base::now())
        .value();
    co_await t.coordinator.until_end();
    co_await t.until_all_end();
  }(*this));
  EXPECT_EQ(coordinator.end->outcome(), "done") << coordinator.end->reason();
  EXPECT_EQ(site(2).count("withdrawn"), 1u);
  EXPECT_LT(site(2).count("charged"), 7u);
  const auto last = protocols::round::SignedReceipt::parse(base::view(coordinator.records.back().receipt()));
  EXPECT_EQ(last->receipt.members[2].state, protocols::round::MemberState::withdrawn);
  EXPECT_THAT(world.logged("the board decided so"), IsEmpty()) << "the reason stays at home";
}

TEST_F(NodeTest, AnEnclaveWithAnotherMeasurementIsRefusedBeforeAnythingIsSaidToIt) {
  world.tee->measurement[0] ^= 1;
  site(0).options.once = true;
  world.run([](NodeTest& t) -> awaitable<void> {
    co_await t.world.launch();
    t.site(0).start();
    co_await t.site(0).until_end();
  }(*this));
  EXPECT_EQ(site(0).end->kind, NodeEnd::Kind::denied);
  EXPECT_THAT(site(0).end->reason, HasSubstr("aggregator.measurement"));
  EXPECT_THAT(site(0).logged(), HasSubstr("\"event\":\"refusal\""));
}

TEST_F(NodeTest, AKeyThatTheCharterDoesNotNameIsRefusedByTheEnclave) {
  site(0).write("tls.pem", base::view(base::PrivateKey::generate().pem()));
  site(0).options.once = true;
  world.run([](NodeTest& t) -> awaitable<void> {
    co_await t.world.launch();
    t.site(0).start();
    co_await t.site(0).until_end();
  }(*this));
  EXPECT_EQ(site(0).end->kind, NodeEnd::Kind::denied) << site(0).end->reason;
  EXPECT_EQ(site(0).count("key_mismatch"), 1u);
}

TEST_F(NodeTest, ANodeWaitsForAGrantAndJoinsWhenItIsThere) {
  world.run([](NodeTest& t) -> awaitable<void> {
    t.start_all();
    co_await t.until_logged(t.site(0), "waiting");
    EXPECT_EQ(t.site(0).count("connected"), 0u);
    co_await t.world.launch();
    co_await t.until_logged(t.site(0), "connected");
    for (auto& s : t.sites) s->node->stop("enough");
    co_await t.until_all_end();
  }(*this));
  EXPECT_EQ(site(0).end->kind, NodeEnd::Kind::stopped);
}

struct ShortDeadlines : NodeTest {
  ShortDeadlines() : NodeTest(short_rounds()) {}
  static WorldOptions short_rounds() {
    WorldOptions options;
    options.round_deadline = "6s";
    return options;
  }
};

TEST_F(ShortDeadlines, ARunWhoseAggregatorDiesHasFailedAndTheNodeSaysSo) {
  world.run([](ShortDeadlines& t) -> awaitable<void> {
    co_await t.world.launch();
    t.start_all();
    co_await t.order(20);
    co_await t.until_logged(t.site(0), "committed");
    t.world.tee->gone = true;
    t.world.hang_up_launcher();
    co_await t.until_all_end();
  }(*this));
  for (auto& s : sites) {
    EXPECT_EQ(s->end->kind, NodeEnd::Kind::failed);
    EXPECT_THAT(s->end->reason, HasSubstr("run 1 failed"));
  }
}

TEST_F(NodeTest, TheLoaderNamesWhatDoesNotBelongTogether) {
  const auto error = [&](const char* file, const std::string& text) {
    const Bytes before = *base::read_file(site(0).folder / file, 1 << 24);
    site(0).write(file, base::view(text));
    auto node = Node::open(site(0).options, world.io.get_executor(), world.log);
    site(0).write(file, before);
    return node ? std::string("opened") : node.error().text();
  };
  EXPECT_THAT(error("policy.toml", "another"), HasSubstr("wanted the policy that the charter holds"));
  EXPECT_THAT(error("charter.bin", "nothing"), HasSubstr("charter"));
  EXPECT_THAT(error("witness.pem", "no key"), HasSubstr("witness.pem"));
  site(0).options.config.trainer = site(0).folder / "data.csv";
  EXPECT_THAT(Node::open(site(0).options, world.io.get_executor(), world.log).error().text(),
              HasSubstr("install the trainer that the charter names"));
}

}  // namespace
}  // namespace cloister::participant

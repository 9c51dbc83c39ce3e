#include "coordinator/driver.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.hpp"
#include "tests/coordinator/pipe.hpp"
#include "tests/coordinator/script.hpp"
#include "tests/coordinator/support.hpp"

namespace cloister::coordinator {
namespace {

using namespace std::chrono_literals;
using std::chrono::steady_clock;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using tests::Frame;
using Lie = tests::ScriptedEnclave::Lie;

struct Driving : testing::Test {
  using Run = coordinator::Run;  // not testing::Test::Run
  tests::Temporary folder;
  attest::simulated::Platform platform{base::PrivateKey::generate(), {}};
  std::unique_ptr<tests::Study> study;
  std::unique_ptr<tests::ScriptedEnclave> enclave;
  std::unique_ptr<Store> store = Store::open(folder / "database");
  std::shared_ptr<base::Log> log = base::Log::open("coordinator", "", /*quiet=*/true).value();
  std::unique_ptr<StudyFiles> files;
  Board board;
  std::chrono::milliseconds idle = 1h;
  std::vector<std::string> launcher_heard, enclave_heard;  ///< what each was sent, in words
  std::exception_ptr failure;
  std::unique_ptr<boost::asio::io_context> io = std::make_unique<boost::asio::io_context>();
  tests::ScriptedPeers peers{*io};
  std::unique_ptr<Driver> driver;
  channel::ConnectionPtr launcher_link, enclave_link;  ///< the far ends, for tests that cut or speak up

  explicit Driving(const std::function<void(tests::StudyOptions&)>& edit = {}) {
    tests::StudyOptions options = tests::quick_study(platform, "300ms");
    if (edit) edit(options);
    study = std::make_unique<tests::Study>(options);
    enclave = std::make_unique<tests::ScriptedEnclave>(*study, platform);
    base::write_file(folder / "initial.model", tests::initial_model()).value();
    files = std::make_unique<StudyFiles>(
        StudyFiles{study->charter, folder / "initial.model", tests::initial_model().size()});
    store->add_study(study->charter, study->at);
    peers.enclave_facts.record = enclave->record;
    peers.enclave_facts.claims = study->claims();
    peers.play_launcher = [this](channel::ConnectionPtr link) { return good_launcher(link); };
    peers.play_enclave = [this](channel::ConnectionPtr link) { return good_enclave(link); };
  }
  ~Driving() override { stop(); }

  void start() {
    driver = std::make_unique<Driver>(io->get_executor(), *files, *store, peers, board, log, idle);
    boost::asio::co_spawn(*io, driver->run(), [this](std::exception_ptr e) { failure = e; });
  }
  void stop() {
    if (driver) driver->stop();
    for (const auto& link : {launcher_link, enclave_link})
      if (link) link->close();
    io->restart();
    io->run_for(5s);
    driver.reset();
  }
  RunId queue(std::uint64_t rounds = 1) {
    const auto run = tests::submit(*store, *study, study->run_order({{"rounds", static_cast<double>(rounds)}})).value();
    if (driver) driver->wake();
    return run.id;
  }
  void run_until(const std::function<bool()>& reached, const char* what) {
    const auto deadline = std::chrono::steady_clock::now() + 20s;
    io->restart();
    while (!reached()) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "waited in vain for: " << what;
      ASSERT_FALSE(failure) << "the driver ended";
      io->run_one_for(100ms);
    }
  }
  Run ended_run(RunId id) {
    run_until([&] { return ended(store->run(id)->state); }, "the run's end");
    return *store->run(id);
  }
  bool has_event(RunId id, const std::string& text) {
    for (const Event& event : store->events(id))
      if (event.json.find(text) != std::string::npos) return true;
    return false;
  }

  // --- The parts that others play ----------------------------------------------------------------------------------

  awaitable<void> good_launcher(channel::ConnectionPtr link) {
    launcher_link = link;
    for (;;) {
      const Frame frame = co_await link->receive();
      if (frame.type == messages::LAUNCH_REQUEST) {
        const auto request = channel::parse<messages::LaunchRequest>(frame);
        launcher_heard.push_back("launch for " + request.why());
        EXPECT_EQ(base::view(request.charter()).size(), study->charter.serialize().size());
        for (const char* state : {"starting", "attested", "granted"}) {
          messages::LaunchStatus status;
          status.set_instance("i-1");
          status.set_state(state);
          co_await link->send(messages::LAUNCH_STATUS, status);
        }
      } else {
        const auto end = channel::parse<messages::LaunchEnd>(frame);
        launcher_heard.push_back("end " + end.instance() + ": " + end.reason());
        messages::LaunchEnd answer;
        answer.set_instance(end.instance());
        answer.set_reason("ended as asked");
        co_await link->send(messages::LAUNCH_END, answer);
      }
    }
  }
  /// Reads an order, with its model when one follows.
  awaitable<attest::RunOrder> take_order(channel::ConnectionPtr link) {
    enclave_link = link;
    const auto message = channel::parse<messages::RunOrder>(co_await link->receive());
    const auto order = attest::RunOrder::parse(base::view(message.order())).value();
    enclave_heard.push_back("run " + std::to_string(order.run) +
                            (message.model_length() == 0 ? " again" : " with model"));
    if (message.model_length() != 0) {
      const auto transfer = channel::parse<messages::Transfer>(co_await link->receive());
      const Frame data = co_await link->receive();
      EXPECT_EQ(data.payload, tests::initial_model());
      EXPECT_EQ(transfer.length(), data.payload.size());
      EXPECT_EQ(base::text(base::sha256(data.payload)), transfer.digest());
    }
    co_return order;
  }
  awaitable<void> say(channel::ConnectionPtr link, std::vector<Frame> frames) {
    auto pipe = std::static_pointer_cast<tests::Pipe>(link);
    for (Frame& frame : frames) co_await pipe->put(std::move(frame));
  }
  awaitable<void> good_enclave(channel::ConnectionPtr link) {
    for (;;) {
      const auto order = co_await take_order(link);
      const auto frames = enclave->whole_run(order);
      co_await say(link, frames);
    }
  }
  awaitable<void> lying_enclave(channel::ConnectionPtr link, Lie lie) {
    const auto order = co_await take_order(link);
    const auto frames = enclave->whole_run(order, lie);
    co_await say(link, frames);
    co_await link->receive();
  }
  /// Says `first` frames of a run and then waits for what the coordinator has to say.
  awaitable<void> stuck_enclave(channel::ConnectionPtr link, std::size_t first) {
    const auto order = co_await take_order(link);
    auto frames = enclave->whole_run(order);
    frames.resize(first);
    co_await say(link, frames);
    const auto status = tests::ScriptedEnclave::status(order.run, 2, "collecting");
    co_await link->send(messages::RUN_STATUS, status);
    const auto cancel = channel::parse<messages::RunCancel>(co_await link->receive());
    enclave_heard.push_back("cancel run " + std::to_string(cancel.run()) + ": " + cancel.reason());
    messages::RunEnd end;
    end.set_run(cancel.run());
    end.set_outcome("cancelled");
    end.set_reason(cancel.reason());
    co_await link->send(messages::RUN_END, end);
    co_await link->receive();
  }
};

TEST_F(Driving, AQueuedRunIsLaunchedGivenFollowedAndDone) {
  start();
  const Run run = ended_run(queue());
  EXPECT_EQ(run.state, RunState::done) << run.reason;
  EXPECT_TRUE(run.simulated);
  EXPECT_EQ(run.record, enclave->record);
  EXPECT_THAT(launcher_heard, ElementsAre("launch for run 1"));
  EXPECT_THAT(enclave_heard, ElementsAre("run 1 with model"));
  EXPECT_TRUE(store->result(run.id, "model", 0));
  for (const char* event : {"submitted", "launching", "granted", "started", "committed", "published", "ended"})
    EXPECT_TRUE(has_event(run.id, event)) << event;
}

TEST_F(Driving, AnInstanceIsKeptForTheNextRun) {
  start();
  ended_run(queue());
  EXPECT_EQ(ended_run(queue()).state, RunState::done);
  EXPECT_THAT(launcher_heard, ElementsAre("launch for run 1"));
  EXPECT_THAT(enclave_heard, ElementsAre("run 1 with model", "run 2 with model"));
  EXPECT_EQ(peers.enclave_dials, 1);
}

TEST_F(Driving, AnIdleInstanceIsEnded) {
  idle = 50ms;
  start();
  ended_run(queue());
  run_until([&] { return launcher_heard.size() == 2; }, "the instance's end");
  EXPECT_EQ(launcher_heard.back(), "end i-1: idle for 50ms");
  run_until([&] { return store->living_instances(study->charter.digest).empty(); }, "no living instance");
  EXPECT_EQ(ended_run(queue()).state, RunState::done) << "and a later run launches another";
}

TEST_F(Driving, AnIdleInstanceMakesRoomForAnotherChartersRunAtOnce) {
  start();  // idle for an hour otherwise
  ASSERT_EQ(ended_run(queue()).state, RunState::done);
  driver->make_room();
  run_until([&] { return launcher_heard.size() == 2; }, "the instance's end");
  EXPECT_THAT(launcher_heard.back(), HasSubstr("another charter's run wants its address"));
}

TEST_F(Driving, AnAddressThatAnotherInstanceStillHasIsWaitedFor) {
  int asked = 0;
  peers.play_launcher = [&](channel::ConnectionPtr link) -> awaitable<void> {
    if (++asked > 1) {
      co_await good_launcher(link);
    } else {
      co_await link->receive();
      messages::LaunchEnd busy;
      busy.set_reason("the launcher refuses");
      busy.add_findings()->set_requirement("launch.address");
      co_await link->send(messages::LAUNCH_END, busy);
      co_await link->receive();
    }
  };
  start();
  const Run run = ended_run(queue());
  EXPECT_EQ(run.state, RunState::done) << run.reason;
  EXPECT_TRUE(has_event(run.id, "launch.address"));
}

TEST_F(Driving, AnInstanceOfAnEarlierProcessIsEndedWhenNobodyNeedsIt) {
  store->add_instance(study->charter.digest, "i-0", study->at);
  idle = 50ms;
  start();
  run_until([&] { return launcher_heard.size() == 1; }, "the instance's end");
  EXPECT_EQ(launcher_heard.back(), "end i-0: idle for 50ms");
}

TEST_F(Driving, TheLaunchersRefusalEndsTheRunWithItsFindings) {
  peers.play_launcher = [this](channel::ConnectionPtr link) -> awaitable<void> {
    co_await link->receive();
    messages::LaunchEnd end;
    end.set_reason("refused");
    messages::Finding& finding = *end.add_findings();
    finding.set_owner("cloudco (compute)");
    finding.set_requirement("launch.memory.at_most");
    finding.set_wanted("2 GiB");
    finding.set_found("4 GiB");
    co_await link->send(messages::LAUNCH_END, end);
    co_await link->receive();
  };
  start();
  const Run run = ended_run(queue());
  EXPECT_EQ(run.state, RunState::failed);
  EXPECT_THAT(run.reason, HasSubstr("denied by cloudco (compute): launch.memory.at_most: wanted 2 GiB, found 4 GiB"));
  EXPECT_EQ(peers.enclave_dials, 0);
}

TEST_F(Driving, AnEnclaveThatThePolicyRefusesGetsNoOrderAndIsEnded) {
  peers.refusal = base::denied("aggregator", "denied by acme (model): aggregator.debug: wanted false, found true");
  start();
  const Run run = ended_run(queue());
  EXPECT_EQ(run.state, RunState::failed);
  EXPECT_THAT(run.reason, HasSubstr("aggregator.debug"));
  EXPECT_TRUE(enclave_heard.empty());
  run_until([&] { return launcher_heard.size() == 2; }, "the instance's end");
  EXPECT_THAT(launcher_heard.back(), AllOf(HasSubstr("end i-1"), HasSubstr("aggregator.debug")));
}

// The model owner's policy names an interval of a second.
struct Renewing : Driving {
  Renewing()
      : Driving([](tests::StudyOptions& o) {
          o.edits.push_back({"acme", "renew = \"1h\"", "renew = \"1s\""});
        }) {}
};

TEST_F(Renewing, EvidenceIsAskedForAgainWhileARunIsUnderWay) {
  Notice renewed;
  peers.renewed = [&] { renewed.raise(); };
  peers.play_enclave = [&](channel::ConnectionPtr link) -> awaitable<void> {
    const auto order = co_await take_order(link);
    while (peers.renewals < 2) co_await renewed.after(renewed.version(), steady_clock::time_point::max());
    const auto frames = enclave->whole_run(order);
    co_await say(link, frames);
    co_await link->receive();
  };
  start();
  const Run run = ended_run(queue());
  EXPECT_EQ(run.state, RunState::done) << run.reason;
  EXPECT_EQ(peers.renewals, 2);
  EXPECT_EQ(peers.enclave_dials, 1) << "on the same link";
}

TEST_F(Renewing, ARenewalThatIsDeniedEndsTheRunWithThePolicysFindingsAndTheInstance) {
  peers.refusal_again =
      base::denied("aggregator", "denied by acme (model): valid.until: wanted before 2026, found 2027");
  peers.play_enclave = [&](channel::ConnectionPtr link) -> awaitable<void> {
    co_await take_order(link);
    co_await link->receive();
  };
  start();
  const Run run = ended_run(queue());
  EXPECT_EQ(run.state, RunState::failed);
  EXPECT_THAT(run.reason, HasSubstr("denied by acme (model): valid.until"));
  run_until([&] { return launcher_heard.size() == 2; }, "the instance's end");
  EXPECT_THAT(launcher_heard.back(), AllOf(HasSubstr("end i-1"), HasSubstr("valid.until")));
}

TEST_F(Renewing, ARenewalWithoutAGrantInForceIsTriedOnANewLink) {
  peers.refusal_again = base::unavailable("aggregator", "the grant has ended and is not renewed yet");
  int connection = 0;
  peers.play_enclave = [&](channel::ConnectionPtr link) -> awaitable<void> {
    if (++connection > 1) {
      peers.refusal_again.reset();  // granted again
      co_await good_enclave(link);
    } else {
      co_await take_order(link);
      const auto word = tests::ScriptedEnclave::status(1, 1, "offered");
      co_await link->send(messages::RUN_STATUS, word);
      co_await link->receive();
    }
  };
  start();
  const Run run = ended_run(queue());
  EXPECT_EQ(run.state, RunState::done) << run.reason;
  EXPECT_THAT(enclave_heard, ElementsAre("run 1 with model", "run 1 again"));
  EXPECT_TRUE(has_event(run.id, "the grant has ended"));
}

TEST_F(Renewing, AnIdleInstanceProvesItselfAgainBeforeItGetsTheNextOrder) {
  start();
  EXPECT_EQ(ended_run(queue()).state, RunState::done);
  EXPECT_EQ(peers.renewals, 0);
  const auto due = steady_clock::now() + 1s;
  run_until([&] { return steady_clock::now() > due; }, "the evidence to grow old");
  EXPECT_EQ(ended_run(queue()).state, RunState::done);
  EXPECT_EQ(peers.renewals, 1);
  EXPECT_EQ(peers.enclave_dials, 1);
}

TEST_F(Driving, ALauncherThatIsNotThereYetIsWaitedFor) {
  const auto good = std::exchange(peers.play_launcher, {});
  start();
  const RunId id = queue();
  run_until([&] { return has_event(id, "nobody is there"); }, "a first try");
  EXPECT_EQ(store->run(id)->state, RunState::launching);
  peers.play_launcher = good;
  EXPECT_EQ(ended_run(id).state, RunState::done);
}

TEST_F(Driving, ACutLinkIsDialledAgainAndTheRunGoesOn) {
  int connection = 0;
  peers.play_enclave = [&](channel::ConnectionPtr link) -> awaitable<void> {
    if (++connection > 1) {
      co_await good_enclave(link);
    } else {
      const auto order = co_await take_order(link);
      auto frames = enclave->whole_run(order);
      frames.resize(2);
      co_await say(link, frames);
      link->close();
    }
  };
  start();
  const Run run = ended_run(queue());
  EXPECT_EQ(run.state, RunState::done) << run.reason;
  EXPECT_THAT(enclave_heard, ElementsAre("run 1 with model", "run 1 again"));
  EXPECT_EQ(store->receipts(run.id).size(), 3u);
  EXPECT_TRUE(has_event(run.id, "attached_again"));
}

TEST_F(Driving, AnAggregatorThatDiesEndsItsRunAsFailed) {
  peers.play_enclave = [&](channel::ConnectionPtr link) -> awaitable<void> {
    co_await take_order(link);
    peers.play_enclave = {};
    link->close();
  };
  start();
  const Run run = ended_run(queue());
  EXPECT_EQ(run.state, RunState::failed);
  EXPECT_THAT(run.reason, AllOf(HasSubstr("it is gone"), HasSubstr("nobody is there")));
}

TEST_F(Driving, TheLaunchersWordThatTheInstanceEndedIsTheReason) {
  peers.play_enclave = [&](channel::ConnectionPtr link) -> awaitable<void> {
    co_await take_order(link);
    messages::LaunchEnd end;
    end.set_instance("i-1");
    end.set_reason("killed");
    end.set_exit_status(137);
    co_await launcher_link->send(messages::LAUNCH_END, end);
    co_await link->receive();
  };
  start();
  const Run run = ended_run(queue());
  EXPECT_EQ(run.state, RunState::failed);
  EXPECT_THAT(run.reason, HasSubstr("its instance ended: killed (exit status 137)"));
}

TEST_F(Driving, AnotherInstanceAtTheAddressCannotGoOnWithTheRun) {
  tests::ScriptedEnclave another(*study, platform);
  peers.play_enclave = [&](channel::ConnectionPtr link) -> awaitable<void> {
    co_await take_order(link);
    peers.enclave_facts.record = another.record;
    link->close();
  };
  start();
  const Run run = ended_run(queue());
  EXPECT_EQ(run.state, RunState::failed);
  EXPECT_THAT(run.reason, HasSubstr("another one answers at its address"));
}

TEST_F(Driving, ALieEndsTheRunAndTheInstance) {
  peers.play_enclave = [&](channel::ConnectionPtr link) { return lying_enclave(link, Lie::too_few_witnesses); };
  start();
  const Run run = ended_run(queue());
  EXPECT_EQ(run.state, RunState::failed);
  EXPECT_THAT(run.reason, HasSubstr("wanted acknowledgements of 3 of the 4 witnesses, found 2"));
  EXPECT_EQ(store->receipts(run.id).size(), 1u) << "what held is kept, what did not is not";
  run_until([&] { return launcher_heard.size() == 2; }, "the instance's end");
}

TEST_F(Driving, AQueuedRunIsCancelledAtOnce) {
  peers.play_launcher = {};
  start();
  const RunId first = queue(), second = queue();
  run_until([&] { return has_event(first, "nobody is there"); }, "the first one waits");
  EXPECT_TRUE(driver->cancel(second, "alice", "a typo"));
  EXPECT_EQ(store->run(second)->state, RunState::cancelled);
  EXPECT_EQ(store->run(second)->reason, "cancelled by alice: a typo");
  EXPECT_TRUE(driver->cancel(first, "alice", ""));
  EXPECT_EQ(store->run(first)->state, RunState::cancelled);
  EXPECT_FALSE(driver->cancel(first, "alice", "")) << "it has ended";
}

TEST_F(Driving, ARunningRunIsCancelledByItsEnclave) {
  peers.play_enclave = [&](channel::ConnectionPtr link) { return stuck_enclave(link, 2); };
  start();
  const RunId id = queue();
  run_until([&] { return board.live.contains(id); }, "a live status");
  EXPECT_TRUE(driver->cancel(id, "alice", "enough"));
  const Run run = ended_run(id);
  EXPECT_EQ(run.state, RunState::cancelled);
  EXPECT_EQ(enclave_heard.back(), "cancel run 1: cancelled by alice: enough");
}

TEST_F(Driving, AnEnclaveThatDoesNotConfirmACancellationIsLeftAlone) {
  peers.play_enclave = [&](channel::ConnectionPtr link) -> awaitable<void> {
    co_await take_order(link);
    const auto status = tests::ScriptedEnclave::status(1, 1, "collecting");
    co_await link->send(messages::RUN_STATUS, status);
    for (;;) co_await link->receive();
  };
  start();
  const RunId id = queue();
  run_until([&] { return board.live.contains(id); }, "a live status");
  driver->cancel(id, "alice", "enough");
  EXPECT_EQ(ended_run(id).state, RunState::cancelled);
  run_until([&] { return launcher_heard.size() == 2; }, "the instance's end");
}

TEST_F(Driving, ARestartedCoordinatorGoesOnFollowingItsRun) {
  peers.play_enclave = [&](channel::ConnectionPtr link) { return stuck_enclave(link, 2); };
  start();
  const RunId id = queue();
  run_until([&] { return store->receipts(id).size() == 2; }, "two receipts");
  stop();
  EXPECT_EQ(store->run(id)->state, RunState::running) << "stopping ends no run";
  store.reset();
  store = Store::open(folder / "database");
  peers.play_enclave = [this](channel::ConnectionPtr link) { return good_enclave(link); };
  start();
  const Run run = ended_run(id);
  EXPECT_EQ(run.state, RunState::done) << run.reason;
  EXPECT_THAT(enclave_heard, ElementsAre("run 1 with model", "run 1 again"));
  EXPECT_THAT(launcher_heard, ElementsAre("launch for run 1")) << "nothing is launched for a run that has its instance";
}

TEST_F(Driving, AnInstanceThatNeverGotTheOrderGetsItAfterTheRestart) {
  const RunId id = queue();
  store->start(id, enclave->record, true, started_event(enclave->record, true), study->at);  // and was killed here
  int connection = 0;
  peers.play_enclave = [&](channel::ConnectionPtr link) -> awaitable<void> {
    if (++connection > 1) co_return co_await good_enclave(link);
    co_await take_order(link);
    messages::Refusal refusal;
    refusal.set_reason("run 1 is not known to this instance");
    co_await link->send(messages::REFUSAL, refusal);
    link->close();
  };
  start();
  const Run run = ended_run(id);
  EXPECT_EQ(run.state, RunState::done) << run.reason;
  EXPECT_THAT(enclave_heard, ElementsAre("run 1 again", "run 1 with model"));
}

TEST_F(Driving, AnInstanceThatForgotARunItHadSpokenOfFailsIt) {
  const RunId id = queue();
  store->start(id, enclave->record, true, started_event(enclave->record, true), study->at);
  const auto frames = enclave->whole_run(attest::RunOrder::parse(store->run(id)->order).value());
  const auto record = channel::parse<messages::ReceiptRecord>(frames.front());
  store->set_evidence(id, enclave->evidence);
  store->add_receipt(id, {1, base::copy(base::view(record.receipt())), {}}, "{}", study->at).value();
  peers.play_enclave = [&](channel::ConnectionPtr link) -> awaitable<void> {
    co_await take_order(link);
    messages::Refusal refusal;
    refusal.set_reason("run 1 is not known to this instance");
    co_await link->send(messages::REFUSAL, refusal);
    link->close();
  };
  start();
  const Run run = ended_run(id);
  EXPECT_EQ(run.state, RunState::failed);
  EXPECT_THAT(run.reason, HasSubstr("run 1 is not known to this instance"));
  EXPECT_THAT(enclave_heard, ElementsAre("run 1 again")) << "a run is never given twice";
}

TEST_F(Driving, ACancellationSurvivesARestart) {
  peers.play_enclave = [&](channel::ConnectionPtr link) -> awaitable<void> {
    co_await take_order(link);
    for (;;) co_await link->receive();
  };
  start();
  const RunId id = queue();
  run_until([&] { return !enclave_heard.empty(); }, "the order");
  driver->cancel(id, "alice", "enough");
  stop();
  EXPECT_EQ(store->run(id)->state, RunState::running);
  peers.play_enclave = [&](channel::ConnectionPtr link) { return stuck_enclave(link, 0); };
  start();
  EXPECT_EQ(ended_run(id).state, RunState::cancelled);
  EXPECT_THAT(enclave_heard,
              ElementsAre("run 1 with model", "run 1 again", "cancel run 1: cancelled by alice: enough"));
}

TEST_F(Driving, ARunThatNobodyCanStartFailsWithTheLastReason) {
  stop();
  auto options = tests::quick_study(platform, "300ms");
  options.edits.back() = {"manifest", "[round]\ndeadline = \"1m\"", "[round]\ndeadline = \"600ms\""};
  study = std::make_unique<tests::Study>(options);
  files->charter = study->charter;
  store->add_study(study->charter, study->at);
  peers.play_launcher = {};
  start();
  const Run run = ended_run(queue());
  EXPECT_EQ(run.state, RunState::failed);
  EXPECT_THAT(run.reason, AllOf(HasSubstr("no instance within 600ms"), HasSubstr("nobody is there")));
}

}  // namespace
}  // namespace cloister::coordinator

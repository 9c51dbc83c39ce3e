// The coordinator's own process and the `cloister run` commands, with a launcher and an enclave that this test plays
// over real TLS on the loopback: killed at named steps and started again, it picks up.

#include "tests/coordinator/process.hpp"

#include <atomic>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/file.hpp"
#include "coordinator/peers.hpp"
#include "protocols/launch/documents.hpp"
#include "tests/coordinator/script.hpp"
#include "tests/coordinator/support.hpp"

namespace cloister::coordinator {
namespace {

using namespace std::chrono_literals;
using boost::asio::ip::tcp;
using nlohmann::json;
using testing::HasSubstr;

std::uint16_t free_port() {
  boost::asio::io_context io;
  const tcp::endpoint any(boost::asio::ip::address_v4::loopback(), 0);
  return tcp::acceptor(io, any).local_endpoint().port();
}

tests::StudyOptions options_of(const attest::simulated::Platform& platform) {
  tests::StudyOptions options = tests::quick_study(platform, "5s");
  options.aggregator_port = free_port();
  options.coordinator_port = free_port();
  options.launcher_port = free_port();
  return options;
}

/// Launcher and enclave of a study, on a thread of their own.
class Cloud {
 public:
  Cloud(const tests::Study& study, const attest::simulated::Platform& platform)
      : study_(study), enclave(study, platform) {
    spawn(study.charter.manifest.compute_owner().port,
          [this](tcp::socket socket) { return launcher(std::move(socket)); });
    spawn(study.charter.manifest.aggregator_port, [this](tcp::socket socket) { return aggregator(std::move(socket)); });
    thread_ = std::thread([this] { io_.run(); });
  }
  ~Cloud() {
    io_.stop();
    thread_.join();
  }

  /// How much the enclave says on a connection before it falls silent.
  std::atomic<std::size_t> frames_at_most{1000};

 private:
  const tests::Study& study_;

 public:
  tests::ScriptedEnclave enclave;

 private:
  using Serve = std::function<awaitable<void>(tcp::socket)>;
  void spawn(std::uint16_t port, Serve serve) {
    boost::asio::co_spawn(io_, accept(port, std::move(serve)), [](std::exception_ptr e) {
      if (e) std::rethrow_exception(e);
    });
  }
  awaitable<void> accept(std::uint16_t port, Serve serve) {
    const tcp::endpoint here(boost::asio::ip::address_v4::loopback(), port);
    tcp::acceptor acceptor(io_, here);
    for (;;) {
      tcp::socket socket = co_await acceptor.async_accept(boost::asio::use_awaitable);
      boost::asio::co_spawn(io_, serve(std::move(socket)), [](std::exception_ptr) {});  // a peer that was killed
    }
  }
  static channel::Deadline soon() { return std::chrono::steady_clock::now() + 10s; }
  std::optional<std::string> known(const base::PublicKey& key) const {
    if (key == study_.keys("acme").tls.public_key()) return "acme";
    return std::nullopt;
  }
  awaitable<void> launcher(tcp::socket socket) {
    const channel::Known by = [this](const base::PublicKey& key) { return known(key); };
    const auto link =
        co_await channel::accept_pinned(std::move(socket), study_.keys("cloudco").tls, by, soon(), nullptr);
    for (;;) {
      const auto frame = co_await link->receive();
      if (frame.type == messages::LAUNCH_END) {
        co_await link->send(messages::LAUNCH_END, channel::parse<messages::LaunchEnd>(frame));
        continue;
      }
      for (const char* state : {"starting", "granted"}) {
        messages::LaunchStatus status;
        status.set_instance("i-1");
        status.set_state(state);
        co_await link->send(messages::LAUNCH_STATUS, status);
      }
    }
  }
  channel::EnclaveIdentity identity() {
    protocols::launch::Grant grant;
    grant.record = base::sha256(enclave.record);
    grant.platform = enclave.platform.identity();
    grant.not_before = base::now() - 1h;
    grant.not_after = base::now() + 1h;
    const Bytes granted = protocols::launch::sign_grant(grant, *study_.keys("cloudco").grant).serialize();
    channel::EnclaveIdentity out{
        enclave.tls, study_.charter.digest, enclave.record, [granted] { return granted; }, {}, {}, {}, {}, {}, {}};
    out.attester = [this](const Array<64>& report_data) -> Result<Bytes> { return enclave.attest(report_data); };
    out.known = [this](const base::PublicKey& key) { return known(key); };
    out.wants_evidence = [](const std::string&) { return false; };
    out.judge_peer = [](const std::string& owner, const attest::Claims*) {
      attest::Decision decision;
      decision.add({true, "test", "peer", owner, owner, ""});
      return decision;
    };
    return out;
  }
  awaitable<void> aggregator(tcp::socket socket) {
    const channel::EnclaveIdentity self = identity();
    const auto link = co_await channel::accept_enclave(std::move(socket), self, soon(), nullptr);
    for (;;) {
      const auto frame = co_await link->receive();
      const auto message = channel::parse<messages::RunOrder>(frame);
      const auto order = attest::RunOrder::parse(base::view(message.order())).value();
      if (message.model_length() == 0 && run_ != order.run) {
        const attest::Decision none;
        co_return co_await channel::refuse(link, none, "this run is not known to this instance");
      }
      if (message.model_length() != 0) {
        const auto transfer = co_await link->receive();
        const auto model = co_await link->receive();
        EXPECT_EQ(model.payload, tests::initial_model());
        EXPECT_TRUE(std::exchange(given_, order.run) != order.run) << "an order was given twice";
      }
      run_ = order.run;
      auto frames = enclave.whole_run(order);
      if (frames.size() > frames_at_most) frames.resize(frames_at_most);
      for (const auto& one : frames) co_await put(*link, one);
    }
  }
  static awaitable<void> put(channel::Connection& link, const tests::Frame& frame) {
    if (frame.type == messages::DATA) co_return co_await link.send_data(frame.payload);
    if (frame.type == messages::RECEIPT_RECORD)
      co_await link.send(frame.type, channel::parse<messages::ReceiptRecord>(frame));
    else if (frame.type == messages::RESULT)
      co_await link.send(frame.type, channel::parse<messages::Result>(frame));
    else if (frame.type == messages::TRANSFER)
      co_await link.send(frame.type, channel::parse<messages::Transfer>(frame));
    else
      co_await link.send(frame.type, channel::parse<messages::RunEnd>(frame));
  }

  std::uint64_t run_ = 0, given_ = 0;
  boost::asio::io_context io_;
  std::thread thread_;
};

struct TheProcess : testing::Test {
  tests::Temporary folder;
  attest::simulated::Platform platform{base::PrivateKey::generate(), {}};
  tests::Study study{options_of(platform)};
  Cloud cloud{study, platform};
  const std::string program = CLOISTER_BINARY_DIR "/bin/cloister";
  std::unique_ptr<tests::Process> coordinator;

  TheProcess() {
    put("tls.key", base::view(study.keys("acme").tls.pem()), 0600);
    put("order.key", base::view(study.keys("acme").order->pem()), 0600);
    put("alice.key", base::view(study.submitter.pem()), 0600);
    put("stranger.key", base::view(base::PrivateKey::generate().pem()), 0600);
    put("charter.bin", study.charter.serialize());
    put("policy.toml", base::view(study.policy("acme").text));
    put("initial.model", tests::initial_model());
    put("coordinator.toml", base::view(R"(
database = "database"
log = "/dev/stdout"
instance_idle = "1h"
keys = { tls = "tls.key", order = "order.key" }
[[study]]
charter = "charter.bin"
policy = "policy.toml"
initial_model = "initial.model"
)"));
  }
  void put(const std::string& name, View bytes, unsigned mode = 0644) {
    base::write_file(folder / name, bytes, mode).value();
  }

  void start() {
    coordinator = std::make_unique<tests::Process>(
        std::vector<std::string>{program, "coordinator", "run", "--config", folder / "coordinator.toml"},
        /*errors_apart=*/false);
    coordinator->line_with(R"("listening")");
  }
  struct Answer {
    int status = 0;
    std::string output;
    json value() const { return json::parse(output); }
  };
  Answer run(std::vector<std::string> arguments, const std::string& key = "alice.key") {
    arguments.insert(arguments.begin(), {program, "--json", "run"});
    arguments.insert(arguments.end(), {"--charter", folder / "charter.bin", "--key", folder / key});
    tests::Process process(arguments);
    Answer answer;
    answer.output = process.rest();
    answer.status = process.wait();
    return answer;
  }
};

struct KilledAt : TheProcess, testing::WithParamInterface<const char*> {};

TEST_P(KilledAt, AStepAndStartedAgainItFinishesTheRun) {
  cloud.frames_at_most = 2;
  start();
  ASSERT_EQ(run({"submit", "--set", "rounds=1", "--note", "killed on the way"}).value()["run"], 1);
  coordinator->line_with(std::string("\"event\":\"") + GetParam());
  coordinator->kill(SIGKILL);

  cloud.frames_at_most = 1000;
  start();
  const Answer watched = run({"watch", "1"});
  EXPECT_EQ(watched.status, 0) << watched.output;
  EXPECT_THAT(watched.output, HasSubstr(R"("state":"done")"));
  const json listed = run({"list"}).value()["runs"];
  ASSERT_EQ(listed.size(), 1u);
  EXPECT_EQ(listed[0]["state"], "done");
  const Answer verified = run({"receipts", "1", "--verify"});
  EXPECT_EQ(verified.status, 0) << verified.output;
  EXPECT_EQ(verified.value()["receipts"].size(), 3u);
  EXPECT_EQ(run({"fetch", "1", "--kind", "model", "--out", folder / "final.model"}).status, 0);
  EXPECT_EQ(base::read_file(folder / "final.model", 1000).value(), tests::ScriptedEnclave::final_model());
}

INSTANTIATE_TEST_SUITE_P(ThisStep, KilledAt,
                         testing::Values("run_queued", "run_launching", "instance_granted", "run_started", "order_sent",
                                         "round_committed"));

TEST_F(TheProcess, AnswersEverythingThatASubmitterMayAsk) {
  start();
  const Answer submitted = run({"submit", "--set", "rounds=1", "--note", "first"});
  ASSERT_EQ(submitted.status, 0) << submitted.output;
  const Answer watched = run({"watch", "1"});
  EXPECT_EQ(watched.status, 0);
  EXPECT_THAT(watched.output, HasSubstr(R"("auc":)"));
  EXPECT_EQ(json::parse(watched.output.substr(watched.output.rfind('\n', watched.output.size() - 2) + 1))["event"],
            "ended");
  const json shown = run({"show", "1"}).value();
  EXPECT_EQ(shown["note"], "first");
  EXPECT_EQ(shown["submitter"], "alice");
  EXPECT_TRUE(shown["simulated"]);
  EXPECT_EQ(shown["settings"]["rounds"], 1.0);
  EXPECT_EQ(shown["results"].size(), 2u);
  const json evaluated = run({"fetch", "1", "--kind", "evaluate", "--out", folder / "auc.bin"}).value();
  EXPECT_NEAR(evaluated["value"]["auc"], 0.9583, 0.0001);
  EXPECT_THAT(run({"cancel", "1", "--reason", "too late"}).output, HasSubstr("it has ended already: done"));
  EXPECT_THAT(run({"show", "2"}).output, HasSubstr("there is no such run"));
  const Answer missing = run({"fetch", "1", "--kind", "statistics", "--out", folder / "s.bin"});
  EXPECT_EQ(missing.status, 1);
  EXPECT_THAT(missing.output, HasSubstr("no statistics has been published"));
}

TEST_F(TheProcess, ARefusedSubmissionSaysWhyAndExitsDenied) {
  start();
  const Answer refused = run({"submit", "--set", "rounds=100000"});
  EXPECT_EQ(refused.status, 3);
  EXPECT_THAT(refused.output, HasSubstr("denied by charter: settings"));
  EXPECT_THAT(coordinator->line_with(R"("event":"refusal")"), HasSubstr("settings"));
  EXPECT_EQ(run({"list"}).value()["runs"].size(), 0u);
}

TEST_F(TheProcess, AStrangersKeyGetsNoFurtherThanTheHandshake) {
  start();
  const Answer refused = run({"list"}, "stranger.key");
  EXPECT_NE(refused.status, 0);
  EXPECT_THAT(coordinator->line_with(R"("event":"refusal")"), HasSubstr("a TLS key that the charter lists"));
  EXPECT_EQ(run({"submit"}, "stranger.key").status, 3) << "and its submission is not even sent";
}

TEST_F(TheProcess, ASecondCoordinatorOnTheSameRecordsIsRefused) {
  start();
  tests::Process second({program, "coordinator", "run", "--config", folder / "coordinator.toml"});
  EXPECT_THAT(second.rest(), HasSubstr("another coordinator has this database"));
  EXPECT_EQ(second.wait(), 1);
}

TEST_F(TheProcess, ToldToStopItLeavesARunningRunForTheNextStart) {
  cloud.frames_at_most = 1;
  start();
  run({"submit", "--set", "rounds=1"});
  coordinator->line_with("round_committed");
  coordinator->kill(SIGTERM);
  EXPECT_EQ(coordinator->wait(), 0);
  cloud.frames_at_most = 1000;
  start();
  EXPECT_EQ(run({"watch", "1"}).status, 0);
}

}  // namespace
}  // namespace cloister::coordinator

// The launcher with real TEE processes and a guest that plays the aggregator, and a coordinator of our own. Everything
// ends by events; the context's time limit only ends a test that hangs.

#include "launcher/service.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <functional>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "attest/simulated/measure.hpp"
#include "attest/simulated/platform.hpp"
#include "base/file.hpp"
#include "tests/attest/simulated/platform_fixture.hpp"
#include "tests/support/study.hpp"

namespace cloister::launcher {
namespace {

namespace asio = boost::asio;
namespace channel = protocols::channel;
namespace messages = protocols::messages;
namespace simulated = attest::simulated;
using asio::ip::tcp;
using std::chrono::milliseconds;
using std::chrono::steady_clock;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::uint16_t free_port() {
  asio::io_context io;
  return tcp::acceptor(io, {asio::ip::address_v4::loopback(), 0}).local_endpoint().port();
}

/// One message from the launcher: either of the two that it sends.
struct Answer {
  std::optional<messages::LaunchStatus> status;
  std::optional<messages::LaunchEnd> end;

  std::string text() const { return status ? status->state() : "end: " + end->reason(); }
  std::vector<std::string> requirements() const {
    std::vector<std::string> out;
    for (const auto& f : end->findings()) out.push_back(f.owner() + ": " + f.requirement());
    return out;
  }
};

class LauncherService : public ::testing::Test {
 public:
  using Body = std::function<asio::awaitable<void>(LauncherService&)>;

  /// Builds study and launcher for a guest with this fault, then runs `body` as the coordinator.
  void with_guest(const std::string& fault, Body body, milliseconds grant_lifetime = std::chrono::minutes(15),
                  const std::string& program = AGGREGATOR, const std::string& deadline = "10s") {
    const auto platform = simulated::Platform::create(folder_ / "platform").value();
    const auto measurement = simulated::measure_file(AGGREGATOR, {fault}).value();
    study_.emplace(tests::StudyOptions{.edits = {{"manifest", "deadline = \"10s\"", "deadline = \"" + deadline + "\""}},
                                       .aggregator_port = free_port(),
                                       .measurement = base::copy(measurement),
                                       .platform = platform.identity()});
    const tests::Keys& keys = study_->keys("cloudco");
    agent_.emplace(Agent::make({keys.tls.public_key(), *keys.grant, grant_lifetime}, {study_->charter},
                               {{program, {fault}, base::copy(measurement)}})
                       .value());
    log_ = base::Log::open("launcher", folder_ / "launcher.log", true).value();
    tcp::acceptor acceptor(io_, {asio::ip::address_v4::loopback(), 0});
    port_ = acceptor.local_endpoint().port();
    service_.emplace(std::move(acceptor),
                     Tools{*agent_, keys.tls, {TEE, folder_ / "platform"}, folder_ / "", log_, [this] {
                             return base::now() + clock_offset_;
                           }});
    bool stopped = false;
    asio::co_spawn(io_, service_->run(), [&](std::exception_ptr e) {
      if (e) std::rethrow_exception(e);
      stopped = true;
    });
    asio::co_spawn(io_, body(*this), [&](std::exception_ptr e) {
      service_->stop();
      if (e) std::rethrow_exception(e);
    });
    io_.run_for(std::chrono::seconds(30));
    EXPECT_TRUE(stopped) << "the launcher did not stop";
    service_.reset();
  }

  asio::awaitable<channel::ConnectionPtr> connect(const std::string& owner = "acme") {
    return channel::connect_pinned({"127.0.0.1", port_, {}}, study_->keys(owner).tls,
                                   study_->keys("cloudco").tls.public_key(), soon());
  }
  asio::awaitable<void> ask(channel::ConnectionPtr link, std::optional<attest::Launch> launch = {}) {
    const attest::Launch l = launch.value_or(study_->launch());
    messages::LaunchRequest r;
    r.set_charter(base::text(study_->charter.serialize()));
    r.set_measurement(base::text(l.measurement));
    r.set_memory(l.memory);
    r.set_connections(l.connections);
    r.set_duration_ms(static_cast<std::uint64_t>(l.duration.count()));
    r.set_why("run 1");
    co_await link->send(messages::LAUNCH_REQUEST, r);
  }
  static asio::awaitable<Answer> answer(channel::ConnectionPtr link) {
    const auto frame = co_await base::with_deadline(link->receive(), soon(), "the launcher's answer");
    Answer out;
    if (frame.type == messages::LAUNCH_STATUS) out.status = channel::parse<messages::LaunchStatus>(frame);
    if (frame.type == messages::LAUNCH_END) out.end = channel::parse<messages::LaunchEnd>(frame);
    co_return out;
  }
  /// Everything up to `last` or an end.
  static asio::awaitable<std::vector<std::string>> until(channel::ConnectionPtr link, std::string last, Answer& final) {
    std::vector<std::string> out;
    do {
      final = co_await answer(link);
      out.push_back(final.text());
    } while (!final.end && final.text() != last);
    co_return out;
  }
  static steady_clock::time_point soon() { return steady_clock::now() + std::chrono::seconds(15); }
  std::string log_text() const { return base::text(base::read_file(folder_ / "launcher.log", 1 << 20).value()); }

  asio::io_context io_{1};
  simulated::Folder folder_;
  std::optional<tests::Study> study_;
  std::optional<Agent> agent_;
  std::shared_ptr<base::Log> log_;
  std::optional<Service> service_;
  std::uint16_t port_ = 0;
  std::chrono::hours clock_offset_{0};
};

TEST_F(LauncherService, StartsJudgesAndGrantsAndEndsWhenTheCoordinatorSaysSo) {
  with_guest("honest", [](LauncherService& t) -> asio::awaitable<void> {
    auto link = co_await t.connect();
    co_await t.ask(link);
    Answer last;
    const auto states = co_await until(link, "granted", last);
    EXPECT_THAT(states, ElementsAre("starting", "attested", "granted"));
    const auto grant = protocols::launch::Grant::parse(base::view(last.status->grant())).value();
    EXPECT_EQ(grant.platform, t.study_->policy("cloudco").aggregator.platforms->front());
    EXPECT_TRUE(t.study_->keys("cloudco").grant->public_key().verifies("cloister grant v1", grant.signed_bytes(),
                                                                       grant.signature));
    EXPECT_EQ(last.status->port(), t.study_->charter.manifest.aggregator_port);
    messages::LaunchEnd end;
    end.set_instance(last.status->instance());
    end.set_reason("no more runs");
    co_await link->send(messages::LAUNCH_END, end);
    last = co_await answer(link);
    EXPECT_EQ(last.text(), "end: the coordinator ends it: no more runs");
    EXPECT_EQ(last.end->exit_status(), 128 + SIGTERM);
  });
}

TEST_F(LauncherService, RenewsTheGrantBeforeItEnds) {
  with_guest(
      "honest",
      [](LauncherService& t) -> asio::awaitable<void> {
        auto link = co_await t.connect();
        co_await t.ask(link);
        Answer last;
        const auto states = co_await until(link, "renewed", last);
        EXPECT_THAT(states, ElementsAre("starting", "attested", "granted", "renewed"));
      },
      milliseconds(100));
}

// Its clock is put forward and right again: each time the grant is given anew, long before half of its life is over.
TEST_F(LauncherService, GivesTheGrantAnewWhenItsClockIsSet) {
  with_guest(
      "honest",
      [](LauncherService& t) -> asio::awaitable<void> {
        auto link = co_await t.connect();
        co_await t.ask(link);
        Answer last;
        co_await until(link, "granted", last);
        const Time start = base::now();
        const auto not_after = [&] {
          return protocols::launch::Grant::parse(base::view(last.status->grant())).value().not_after;
        };
        EXPECT_LT(not_after(), start + std::chrono::hours(1));
        t.clock_offset_ = std::chrono::hours(5);
        co_await until(link, "renewed", last);
        EXPECT_GT(not_after(), start + std::chrono::hours(5));
        t.clock_offset_ = std::chrono::hours(0);
        co_await until(link, "renewed", last);
        EXPECT_LT(not_after(), start + std::chrono::hours(1));
      },
      std::chrono::minutes(15));
  EXPECT_THAT(log_text(), AllOf(HasSubstr("clock was put forward by 5h"), HasSubstr("clock was put back by 5h")));
}

TEST_F(LauncherService, RefusesABinaryThatWasSwappedAfterItWasMeasuredAlthoughItAsksForTheGenuineMeasurement) {
  Bytes program = base::read_file(AGGREGATOR, simulated::guest_cap).value();
  program.push_back(0);
  const std::string patched = folder_ / "patched";
  ASSERT_TRUE(base::write_file(patched, program, 0700));
  with_guest(
      "honest",
      [](LauncherService& t) -> asio::awaitable<void> {
        auto link = co_await t.connect();
        co_await t.ask(link);
        Answer last;
        co_await until(link, "granted", last);
        EXPECT_TRUE(last.end);
        if (!last.end) co_return;
        EXPECT_THAT(last.requirements(), Contains("cloudco (compute): aggregator.measurement"));
        EXPECT_THAT(last.end->reason(), HasSubstr("denied by cloudco (compute): aggregator.measurement: wanted " +
                                                  base::hex(t.study_->charter.manifest.aggregator_measurement)));
        EXPECT_EQ(last.end->exit_status(), 128 + SIGKILL);
      },
      std::chrono::minutes(15), patched);
  EXPECT_THAT(log_text(),
              AllOf(HasSubstr("\"event\":\"refusal\""), HasSubstr("\"requirement\":\"aggregator.measurement\"")));
}

TEST_F(LauncherService, RefusesAnInstanceWithAnotherLaunchsNonce) {
  with_guest("nonce", [](LauncherService& t) -> asio::awaitable<void> {
    auto link = co_await t.connect();
    co_await t.ask(link);
    Answer last;
    co_await until(link, "granted", last);
    EXPECT_TRUE(last.end);
    if (!last.end) co_return;
    EXPECT_THAT(last.requirements(), ElementsAre("cloudco (compute): instance.record.nonce"));
  });
}

TEST_F(LauncherService, TellsHowAnInstanceEnded) {
  with_guest("quit", [](LauncherService& t) -> asio::awaitable<void> {
    auto link = co_await t.connect();
    co_await t.ask(link);
    Answer last;
    co_await until(link, "never", last);
    EXPECT_EQ(last.text(), "end: the aggregator ended by itself with status 7");
    EXPECT_EQ(last.end->exit_status(), 7);
  });
}

TEST_F(LauncherService, EndsAnInstanceWhoseTimeIsOver) {
  with_guest("honest", [](LauncherService& t) -> asio::awaitable<void> {
    auto link = co_await t.connect();
    auto launch = t.study_->launch();
    launch.duration = milliseconds(1500);
    co_await t.ask(link, launch);
    Answer last;
    co_await until(link, "never", last);
    EXPECT_EQ(last.text(), "end: its duration of 1500ms is over");
  });
}

TEST_F(LauncherService, EndsAnInstanceThatDoesNotAnswer) {
  with_guest(
      "mute",
      [](LauncherService& t) -> asio::awaitable<void> {
        auto link = co_await t.connect();
        co_await t.ask(link);
        Answer last;
        co_await until(link, "never", last);
        EXPECT_THAT(last.text(), HasSubstr("took no grant within 3"));
      },
      std::chrono::minutes(15), AGGREGATOR, "500ms");
}

TEST_F(LauncherService, EndsAnInstanceThatSaysSomethingElse) {
  with_guest("nonsense", [](LauncherService& t) -> asio::awaitable<void> {
    auto link = co_await t.connect();
    co_await t.ask(link);
    Answer last;
    co_await until(link, "never", last);
    EXPECT_THAT(last.text(), HasSubstr("wanted Instance first, found a frame of type 49"));
  });
}

TEST_F(LauncherService, GrantsAgainAfterTheLinkToTheInstanceWasCut) {
  with_guest("cut", [](LauncherService& t) -> asio::awaitable<void> {
    auto link = co_await t.connect();
    co_await t.ask(link);
    Answer last;
    const auto states = co_await until(link, "renewed", last);
    EXPECT_THAT(states, ElementsAre("starting", "attested", "granted", "renewed"));
  });
}

TEST_F(LauncherService, RefusesASecondRecordOfOneInstance) {
  with_guest("two-records", [](LauncherService& t) -> asio::awaitable<void> {
    auto link = co_await t.connect();
    co_await t.ask(link);
    Answer last;
    co_await until(link, "never", last);
    EXPECT_THAT(last.requirements(), ElementsAre("cloudco (compute): instance.record"));
  });
}

TEST_F(LauncherService, AnInstanceSurvivesItsCoordinatorsLinkAndIsFoundAgain) {
  with_guest("honest", [](LauncherService& t) -> asio::awaitable<void> {
    auto link = co_await t.connect();
    co_await t.ask(link);
    Answer last;
    co_await until(link, "granted", last);
    link->close();
    auto again = co_await t.connect();
    co_await t.ask(again);
    const Answer found = co_await answer(again);
    EXPECT_EQ(found.text(), "granted");
    if (!found.status) co_return;
    EXPECT_EQ(found.status->instance(), last.status->instance());
    EXPECT_EQ(found.status->grant(), last.status->grant());
  });
}

TEST_F(LauncherService, RefusesARequestWithEveryReasonAndStartsNothing) {
  with_guest("honest", [](LauncherService& t) -> asio::awaitable<void> {
    auto link = co_await t.connect();
    auto launch = t.study_->launch();
    launch.memory = std::uint64_t{1} << 45;
    launch.measurement = Bytes(48, 1);
    co_await t.ask(link, launch);
    const Answer refused = co_await answer(link);
    EXPECT_TRUE(refused.end);
    if (!refused.end) co_return;
    EXPECT_EQ(refused.end->instance(), "");
    EXPECT_THAT(refused.requirements(),
                AllOf(Contains("cloudco (compute): launch.memory.at_most"), Contains("charter: aggregator.measurement"),
                      Contains("cloudco (compute): launch.aggregator")));
  });
  EXPECT_THAT(log_text(),
              AllOf(HasSubstr("\"requirement\":\"launch.memory.at_most\""), HasSubstr("launch request of acme")));
}

TEST_F(LauncherService, AStrangerAndAHospitalGetNoFurtherThanTheHandshake) {
  with_guest("honest", [](LauncherService& t) -> asio::awaitable<void> {
    std::string reason = "accepted";
    try {
      co_await t.connect("charite");
    } catch (const Exception& e) {
      reason = e.what();
    }
    EXPECT_NE(reason, "accepted");
  });
  EXPECT_THAT(log_text(), HasSubstr("\"event\":\"refusal\""));
}

TEST_F(LauncherService, RefusesMessagesThatNoCoordinatorSends) {
  with_guest("honest", [](LauncherService& t) -> asio::awaitable<void> {
    auto link = co_await t.connect();
    co_await link->send(messages::GRANT, messages::Grant());
    std::string reason;
    try {
      co_await answer(link);
    } catch (const Exception& e) {
      reason = e.what();
    }
    EXPECT_THAT(reason, HasSubstr("wanted LaunchRequest or LaunchEnd, found a frame of type 35"));
  });
}

TEST_F(LauncherService, EndsWhatItStartedWhenItStops) {
  with_guest("honest", [](LauncherService& t) -> asio::awaitable<void> {
    auto link = co_await t.connect();
    co_await t.ask(link);
    Answer last;
    co_await until(link, "granted", last);
    t.service_->stop();
    last = co_await answer(link);
    EXPECT_EQ(last.text(), "end: the launcher stops");
  });
}

TEST_F(LauncherService, SaysWhenThereIsNoSuchInstance) {
  with_guest("honest", [](LauncherService& t) -> asio::awaitable<void> {
    auto link = co_await t.connect();
    messages::LaunchEnd end;
    end.set_instance("instance-0");
    co_await link->send(messages::LAUNCH_END, end);
    const Answer none = co_await answer(link);
    EXPECT_EQ(none.text(), "end: no such instance is running here");
  });
}

}  // namespace
}  // namespace cloister::launcher

#include "coordinator/requests.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.hpp"
#include "tests/coordinator/pipe.hpp"
#include "tests/coordinator/script.hpp"
#include "tests/coordinator/support.hpp"

namespace cloister::coordinator {
namespace {

using namespace std::chrono_literals;
using testing::AllOf;
using testing::HasSubstr;
using tests::Frame;

const base::PrivateKey& bobs_key() {
  static const base::PrivateKey key = base::PrivateKey::generate();
  return key;
}

tests::StudyOptions two_submitters(const std::string& runs_of_alice = "5") {
  tests::StudyOptions options;
  options.edits = {{"acme", "[submitters]\n",
                    "[submitters]\nbob = { key = \"" + bobs_key().public_key().text() + "\", runs_at_most = 1 }\n"},
                   {"acme", "runs_at_most = 5", "runs_at_most = " + runs_of_alice}};
  return options;
}

struct Asking : testing::Test {
  using Run = coordinator::Run;  // not testing::Test::Run
  tests::Temporary folder;
  tests::Study study{two_submitters()};
  StudyFiles files{study.charter, "", 0};
  std::unique_ptr<Store> store = Store::open(folder / "database");
  std::shared_ptr<base::Log> log = base::Log::open("coordinator", folder / "log", /*quiet=*/true).value();
  Board board;
  boost::asio::io_context io;
  tests::ScriptedPeers peers{io};
  std::vector<std::unique_ptr<Driver>> drivers;
  std::unique_ptr<Requests> requests;

  Asking() {
    store->add_study(study.charter, study.at);
    add_driver(files);
    requests = std::make_unique<Requests>(drivers, *store, board, *study.keys("acme").order, log);
  }
  void add_driver(const StudyFiles& of) {  // never run: what is submitted stays queued
    drivers.push_back(std::make_unique<Driver>(io.get_executor(), of, *store, peers, board, log, 1h));
  }
  /// Everything that this key is answered.
  std::vector<Frame> ask(const base::PublicKey& key, messages::MessageType type,
                         const google::protobuf::MessageLite& request) {
    auto [near, far] = tests::Pipe::pair({}, {.key = key, .owner = requests->known(key).value_or("")});
    std::vector<Frame> answers;
    std::exception_ptr failure;
    auto conversation = [&, near = near]() -> awaitable<void> {
      co_await near->send(type, request);
      for (;;) answers.push_back(co_await near->receive());
    };
    auto serving = [&, far = far]() -> awaitable<void> {
      co_await requests->serve(far);
      far->close();
    };
    boost::asio::co_spawn(io, conversation(), [](std::exception_ptr) {});
    boost::asio::co_spawn(io, serving(), [&](std::exception_ptr e) { failure = e; });
    io.restart();
    io.run_for(10s);
    if (failure) std::rethrow_exception(failure);
    return answers;
  }
  template <class Message>
  Message one(const std::vector<Frame>& answers, messages::MessageType type) {
    EXPECT_EQ(answers.size(), 1u);
    EXPECT_EQ(answers.at(0).type, type);
    return channel::parse<Message>(answers.at(0));
  }
  messages::Submit submission(const base::PrivateKey& key, attest::RunOrder order) {
    order.submit(key);
    messages::Submit out;
    out.set_submission(base::text(order.submission()));
    out.set_signature(base::text(order.submitted));
    return out;
  }
  std::string refusal(const std::vector<Frame>& answers) {
    const auto message = one<messages::Refusal>(answers, messages::REFUSAL);
    std::string text = message.reason();
    for (const auto& f : message.findings())
      text += "\n" + f.owner() + ": " + f.requirement() + ": wanted " + f.wanted() + ", found " + f.found();
    return text;
  }
  base::PublicKey alice() const { return study.submitter.public_key(); }
  std::string logged() { return base::text(base::read_file(folder / "log", 1 << 20).value()); }
};

TEST_F(Asking, ASubmissionIsAnsweredWithItsRow) {
  const auto rows = one<messages::RunRows>(
      ask(alice(), messages::SUBMIT, submission(study.submitter, study.run_order())), messages::RUN_ROWS);
  ASSERT_EQ(rows.rows_size(), 1);
  EXPECT_EQ(rows.rows(0).run(), 1u);
  EXPECT_EQ(rows.rows(0).state(), "queued");
  EXPECT_EQ(rows.rows(0).rounds(), 10u);
  EXPECT_THAT(rows.rows(0).settings_json(), HasSubstr("\"rounds\":10"));
  const auto order = attest::RunOrder::parse(store->run({study.charter.digest, 1})->order);
  EXPECT_TRUE(attest::judge_order(*order, study.charter).allowed());
}

TEST_F(Asking, AnotherSubmittersSignatureOverAnOwnConnectionIsRefused) {
  EXPECT_THAT(refusal(ask(bobs_key().public_key(), messages::SUBMIT, submission(study.submitter, study.run_order()))),
              HasSubstr("submitters.bob: wanted a submission by bob"));
  EXPECT_TRUE(store->runs().empty());
  EXPECT_THAT(logged(), AllOf(HasSubstr("\"refusal\""), HasSubstr("submitters.bob")));
}

TEST_F(Asking, TheQuotaOfASubmitterIsItsOwn) {
  attest::RunOrder order = study.run_order();
  order.submitter = "bob";
  const auto bob = bobs_key().public_key();
  one<messages::RunRows>(ask(bob, messages::SUBMIT, submission(bobs_key(), order)), messages::RUN_ROWS);
  order.nonce = base::random_array<16>();
  EXPECT_THAT(refusal(ask(bob, messages::SUBMIT, submission(bobs_key(), order))),
              HasSubstr("submitters.bob.runs_at_most: wanted at most 1, found 2"));
  one<messages::RunRows>(ask(alice(), messages::SUBMIT, submission(study.submitter, study.run_order())),
                         messages::RUN_ROWS);
}

TEST_F(Asking, ASubmissionUnderACharterThatIsNotKeptIsRefused) {
  attest::RunOrder order = study.run_order();
  order.charter = {};
  EXPECT_THAT(refusal(ask(alice(), messages::SUBMIT, submission(study.submitter, order))),
              HasSubstr("does not keep " + base::digest_text({})));
}

TEST_F(Asking, BytesThatAreNoSubmissionAreRefused) {
  messages::Submit request;
  request.set_submission("nonsense");
  EXPECT_THAT(refusal(ask(alice(), messages::SUBMIT, request)), HasSubstr("submission"));
}

TEST_F(Asking, EverySubmitterSeesAllRunsAndCancelsItsOwn) {
  tests::submit(*store, study).value();
  const auto bob = bobs_key().public_key();
  EXPECT_EQ(one<messages::RunRows>(ask(bob, messages::LIST_RUNS, messages::ListRuns()), messages::RUN_ROWS).rows_size(),
            1);
  messages::CancelRun cancel;
  cancel.set_run(1);
  cancel.set_reason("mine now");
  EXPECT_THAT(refusal(ask(bob, messages::CANCEL_RUN, cancel)),
              HasSubstr("wanted the submitter of run 1, alice, found bob"));
  EXPECT_EQ(store->run({study.charter.digest, 1})->state, RunState::queued);
  const auto rows = one<messages::RunRows>(ask(alice(), messages::CANCEL_RUN, cancel), messages::RUN_ROWS);
  EXPECT_EQ(rows.rows(0).state(), "cancelled");
  EXPECT_EQ(rows.rows(0).reason(), "cancelled by alice: mine now");
}

TEST_F(Asking, AKeyOfNoStudySeesNothing) {
  tests::submit(*store, study).value();
  const auto stranger = base::PrivateKey::generate().public_key();
  EXPECT_FALSE(requests->known(stranger));
  EXPECT_THAT(refusal(ask(stranger, messages::LIST_RUNS, messages::ListRuns())),
              HasSubstr("this key submits to no study"));
  messages::ShowRun show;
  show.set_run(1);
  EXPECT_THAT(refusal(ask(stranger, messages::SHOW_RUN, show)), HasSubstr("this key submits to no study"));
}

TEST_F(Asking, ANumberThatTwoChartersHaveAsksForTheCharter) {
  tests::Study second(two_submitters("4"));
  StudyFiles of_second{second.charter, "", 0};
  store->add_study(second.charter, second.at);
  add_driver(of_second);
  tests::submit(*store, study).value();
  tests::submit(*store, second).value();
  messages::ShowRun show;
  show.set_run(1);
  const auto bob = bobs_key().public_key();  // both policies name bob
  EXPECT_THAT(refusal(ask(bob, messages::SHOW_RUN, show)),
              AllOf(HasSubstr("several charters have one"), HasSubstr(base::digest_text(second.charter.digest))));
  show.set_study(base::digest_text(second.charter.digest));
  EXPECT_EQ(one<messages::RunRows>(ask(bob, messages::SHOW_RUN, show), messages::RUN_ROWS).rows(0).charter(),
            base::text(second.charter.digest));
  EXPECT_EQ(
      one<messages::RunRows>(ask(alice(), messages::LIST_RUNS, messages::ListRuns()), messages::RUN_ROWS).rows_size(),
      1)
      << "alice's key is another one in the second charter";
}

TEST_F(Asking, AWatcherHearsTheWholeStoryAndItsEnd) {
  const RunId id = tests::submit(*store, study)->id;
  store->move(id, RunState::failed, "the launcher refuses", ended_event(RunState::failed, "the launcher refuses"),
              study.at);
  messages::WatchRun watch;
  watch.set_run(1);
  const auto answers = ask(alice(), messages::WATCH_RUN, watch);
  ASSERT_EQ(answers.size(), 2u);
  const auto first = channel::parse<messages::RunEvent>(answers[0]),
             last = channel::parse<messages::RunEvent>(answers[1]);
  EXPECT_THAT(first.json(),
              AllOf(HasSubstr("\"event\":\"submitted\""), HasSubstr("\"number\":1"), HasSubstr("\"run\":1")));
  EXPECT_FALSE(first.last());
  EXPECT_THAT(last.json(), AllOf(HasSubstr("\"event\":\"ended\""), HasSubstr("the launcher refuses")));
  EXPECT_TRUE(last.last());
}

TEST_F(Asking, AWatcherHearsTheLiveStatusAsWell) {
  const RunId id = tests::submit(*store, study)->id;
  board.status(id, R"({"event":"status","round":1})");
  auto later = [&]() -> awaitable<void> {
    boost::asio::steady_timer soon(io, 20ms);
    co_await soon.async_wait(boost::asio::use_awaitable);
    board.status(id, R"({"event":"status","round":2})");
    co_await soon.async_wait(boost::asio::use_awaitable);
    store->move(id, RunState::done, "", ended_event(RunState::done, ""), study.at);
    board.notice.raise();
  };
  boost::asio::co_spawn(io, later(), [](std::exception_ptr) {});
  messages::WatchRun watch;
  watch.set_run(1);
  const auto answers = ask(alice(), messages::WATCH_RUN, watch);
  ASSERT_GE(answers.size(), 3u);
  // Which of the two depends on the machine's load: a watcher hears the newest, never a backlog.
  EXPECT_THAT(channel::parse<messages::RunEvent>(answers[1]).json(), HasSubstr("\"event\":\"status\""));
  EXPECT_TRUE(channel::parse<messages::RunEvent>(answers.back()).last());
}

TEST_F(Asking, WhatWasNotPublishedCannotBeFetched) {
  tests::submit(*store, study).value();
  messages::FetchResult fetch;
  fetch.set_run(1);
  fetch.set_kind("model");
  EXPECT_THAT(refusal(ask(alice(), messages::FETCH_RESULT, fetch)),
              HasSubstr("no model has been published; the run is queued"));
}

TEST_F(Asking, AMessageThatIsNoRequestIsRefusedByItsType) {
  EXPECT_THAT(refusal(ask(alice(), messages::RUN_CANCEL, messages::RunCancel())),
              HasSubstr("no request is of type 50"));
}

}  // namespace
}  // namespace cloister::coordinator

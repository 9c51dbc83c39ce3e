#include "coordinator/store.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.hpp"
#include "tests/coordinator/support.hpp"

namespace cloister::coordinator {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

struct StoreIn : testing::Test {
  tests::Temporary folder;
  tests::Study study{};
  std::string path = folder / "database";

  std::unique_ptr<Store> open() {
    auto store = Store::open(path);
    store->add_study(study.charter, study.at);
    return store;
  }
  RunId id(std::uint64_t run) const { return {study.charter.digest, run}; }
  std::string error_of(const std::function<void()>& f) {
    try {
      f();
    } catch (const Exception& e) {
      return e.what();
    }
    return "";
  }
  /// Runs `f` in a child that opens its own store; true when it died by SIGKILL.
  bool killed(const std::function<void()>& f) {
    const pid_t child = ::fork();
    if (child == 0) {
      try {
        f();
      } catch (...) {
      }
      ::_exit(1);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
  }
};

TEST_F(StoreIn, ARunGoesInAndComesBackAsItWas) {
  auto store = open();
  attest::RunOrder order = study.run_order();
  order.note = "first try, \"quoted\", café";
  const auto made = tests::submit(*store, study, order);
  ASSERT_TRUE(made) << made.error().text();
  store.reset();

  const auto run = open()->run(id(1));
  ASSERT_TRUE(run);
  EXPECT_EQ(run->state, RunState::queued);
  EXPECT_EQ(run->submitter, "alice");
  EXPECT_EQ(run->note, "first try, \"quoted\", café");
  EXPECT_EQ(run->study, study.charter.manifest.study);
  EXPECT_EQ(run->rounds, 3u);
  EXPECT_EQ(run->order, made->order);
  EXPECT_EQ(run->submitted_at, study.at);
  EXPECT_TRUE(attest::judge_order(*attest::RunOrder::parse(run->order), study.charter).allowed());
}

TEST_F(StoreIn, RunsAreNumberedFromOneUnderEachCharter) {
  auto store = open();
  tests::Study other;
  store->add_study(other.charter, other.at);
  EXPECT_EQ(tests::submit(*store, study)->id.run, 1u);
  EXPECT_EQ(tests::submit(*store, study)->id.run, 2u);
  EXPECT_EQ(tests::submit(*store, other)->id.run, 1u);
  EXPECT_EQ(store->runs().size(), 3u);
}

TEST_F(StoreIn, TheNumberOfACancelledRunIsNotGivenAgain) {
  auto store = open();
  tests::submit(*store, study).value();
  ASSERT_TRUE(store->move(id(1), RunState::cancelled, "no", "{}", study.at));
  store.reset();
  EXPECT_EQ(tests::submit(*open(), study)->id.run, 2u);
}

TEST_F(StoreIn, TheSameSubmissionAgainIsTheSameRun) {
  auto store = open();
  attest::RunOrder order = study.run_order();
  auto decide = [&](const Usage& usage) -> Result<NewRun> {
    order.number(usage.next_run, *study.keys("acme").order);
    return NewRun{order, 3, "{}"};
  };
  const auto digest = base::sha256(order.submission());
  EXPECT_EQ(store->submit(study.charter.digest, "alice", digest, decide, submitted_event, study.at)->id.run, 1u);
  auto never = [](const Usage&) -> Result<NewRun> { return base::denied("test", "decided twice"); };
  EXPECT_EQ(store->submit(study.charter.digest, "alice", digest, never, submitted_event, study.at)->id.run, 1u);
  EXPECT_EQ(store->runs().size(), 1u);
}

TEST_F(StoreIn, ARefusedSubmissionLeavesNoTrace) {
  auto store = open();
  auto refuse = [](const Usage&) -> Result<NewRun> { return base::denied("submission", "quota"); };
  EXPECT_EQ(store->submit(study.charter.digest, "alice", {}, refuse, submitted_event, study.at).error().what, "quota");
  EXPECT_TRUE(store->runs().empty());
  EXPECT_EQ(tests::submit(*store, study)->id.run, 1u);
}

TEST_F(StoreIn, TheQuotaCountsWhatWasAcceptedWhateverBecameOfIt) {
  auto store = open();
  tests::submit(*store, study).value();
  store->move(id(1), RunState::failed, "the aggregator died", "{}", study.at);
  std::uint32_t used = 0;
  auto look = [&](const Usage& usage) -> Result<NewRun> {
    used = usage.runs_of_submitter;
    return base::denied("test", "only looking");
  };
  EXPECT_FALSE(store->submit(study.charter.digest, "alice", {}, look, submitted_event, study.at));
  EXPECT_EQ(used, 1u);
  EXPECT_FALSE(store->submit(study.charter.digest, "bob", {}, look, submitted_event, study.at));
  EXPECT_EQ(used, 0u);
}

TEST_F(StoreIn, AProcessKilledInMidTransactionLeavesNothingHalf) {
  open();
  auto before_insert = [](const Usage&) -> Result<NewRun> {
    ::kill(::getpid(), SIGKILL);
    return base::denied("test", "dead");
  };
  EXPECT_TRUE(killed([&] {
    Store::open(path)->submit(study.charter.digest, "alice", {}, before_insert, submitted_event, study.at).value();
  }));
  auto after_insert = [](const coordinator::Run&) -> std::string {
    ::kill(::getpid(), SIGKILL);
    return "{}";
  };
  EXPECT_TRUE(killed([&] {
    auto decide = [&](const Usage&) -> Result<NewRun> { return NewRun{study.run_order(), 3, "{}"}; };
    Store::open(path)->submit(study.charter.digest, "alice", {}, decide, after_insert, study.at).value();
  }));
  auto store = open();
  EXPECT_TRUE(store->runs().empty());
  EXPECT_EQ(store->studies().front().next_run, 1u);
  EXPECT_EQ(tests::submit(*store, study)->id.run, 1u);
}

TEST_F(StoreIn, WhatWasReturnedSurvivesAKillAtAnyMoment) {
  open();
  int pipes[2];
  ASSERT_EQ(::pipe(pipes), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    auto store = Store::open(path);
    for (std::uint8_t i = 1; i != 0; ++i) {
      tests::submit(*store, study).value();
      if (::write(pipes[1], &i, 1) != 1) break;
    }
    ::_exit(0);
  }
  ::close(pipes[1]);
  std::uint8_t seen = 0;
  while (seen < 5 && ::read(pipes[0], &seen, 1) == 1) continue;
  ::kill(child, SIGKILL);
  int status = 0;
  ::waitpid(child, &status, 0);
  while (::read(pipes[0], &seen, 1) == 1) continue;  // what it still managed to say
  ::close(pipes[0]);

  auto store = open();
  const auto runs = store->runs();
  EXPECT_GE(runs.size(), seen);
  EXPECT_EQ(tests::submit(*store, study)->id.run, runs.size() + 1);
}

TEST_F(StoreIn, AnEndedRunChangesNoMore) {
  auto store = open();
  tests::submit(*store, study).value();
  EXPECT_TRUE(store->move(id(1), RunState::launching, "", "{}", study.at));
  const Bytes record = {1, 2, 3};
  EXPECT_TRUE(store->start(id(1), record, true, "{}", study.at));
  EXPECT_FALSE(store->start(id(1), record, true, "{}", study.at)) << "a run is given to one instance only";
  EXPECT_TRUE(store->move(id(1), RunState::failed, "gone", "{}", study.at));
  EXPECT_FALSE(store->move(id(1), RunState::done, "", "{}", study.at));
  EXPECT_FALSE(store->ask_cancel(id(1), "late", "{}", study.at));
  const auto run = store->run(id(1));
  EXPECT_EQ(run->state, RunState::failed);
  EXPECT_EQ(run->reason, "gone");
  EXPECT_TRUE(run->simulated);
  EXPECT_EQ(run->record, record);
  EXPECT_TRUE(store->unfinished(study.charter.digest).empty());
}

TEST_F(StoreIn, EventsAreNumberedAndCanBeReadFromANumberOn) {
  auto store = open();
  tests::submit(*store, study).value();
  store->add_event(id(1), R"({"event":"a"})", study.at);
  store->add_event(id(1), R"({"event":"b"})", study.at);
  const auto all = store->events(id(1));
  ASSERT_EQ(all.size(), 3u);
  EXPECT_THAT(all[0].json, HasSubstr("submitted"));
  EXPECT_EQ(all[2].number, 3u);
  const auto later = store->events(id(1), 2);
  ASSERT_EQ(later.size(), 1u);
  EXPECT_EQ(later[0].json, R"({"event":"b"})");
}

TEST_F(StoreIn, ASecondReceiptForARoundIsUntrusted) {
  auto store = open();
  tests::submit(*store, study).value();
  const Receipt receipt{1, {1, 2}, {{3}, {4, 5}}};
  EXPECT_TRUE(store->add_receipt(id(1), receipt, "{}", study.at).value());
  EXPECT_FALSE(store->add_receipt(id(1), receipt, "{}", study.at).value()) << "told again after a cut: no change";
  const auto fork = store->add_receipt(id(1), {1, {9}, {}}, "{}", study.at);
  ASSERT_FALSE(fork);
  EXPECT_EQ(fork.error().kind, Error::Kind::untrusted);
  EXPECT_THAT(fork.error().text(), HasSubstr("another receipt for this round"));
  const auto kept = store->receipts(id(1));
  ASSERT_EQ(kept.size(), 1u);
  EXPECT_THAT(kept[0].acknowledgements, ElementsAre(Bytes{3}, Bytes{4, 5}));
  EXPECT_EQ(store->run(id(1))->round, 1u);
}

TEST_F(StoreIn, ResultsAreFoundByRoundAndTheLastByDefault) {
  auto store = open();
  tests::submit(*store, study).value();
  const Bytes one = {1}, two = {2};
  store->add_result(id(1), {1, "evaluate", one, base::sha256(one)}, "{}", study.at).value();
  store->add_result(id(1), {2, "evaluate", two, base::sha256(two)}, "{}", study.at).value();
  EXPECT_EQ(store->result(id(1), "evaluate", 0)->value, two);
  EXPECT_EQ(store->result(id(1), "evaluate", 1)->value, one);
  EXPECT_FALSE(store->result(id(1), "model", 0));
  EXPECT_THAT(store->add_result(id(1), {1, "evaluate", two, base::sha256(two)}, "{}", study.at).error().text(),
              HasSubstr("published another one before"));
}

TEST_F(StoreIn, AModelIsKeptUnderItsDigestAndOnlyWhole) {
  auto store = open();
  const Bytes bytes = {1, 2, 3, 4};
  const auto digest = base::sha256(bytes);
  {
    ModelFile file(*store, 4);
    file.write(View(bytes).first(3));
    EXPECT_THAT(file.keep(digest).error().text(), HasSubstr("3 bytes came, 4 were announced"));
  }
  {
    ModelFile file(*store, 4);
    file.write(bytes);
    EXPECT_THAT(file.keep({}).error().text(), HasSubstr("the bytes are " + base::digest_text(digest)));
  }
  EXPECT_TRUE(std::filesystem::is_empty(path + "/models"));
  ModelFile file(*store, 4);
  file.write(bytes);
  EXPECT_THAT(error_of([&] { file.write(View(bytes).first(1)); }), HasSubstr("longer than the 4 bytes"));
  ASSERT_TRUE(file.keep(digest));
  EXPECT_EQ(base::read_file(store->model_path(digest), 10).value(), bytes);
}

TEST_F(StoreIn, AModelThatWasOnItsWayWhenTheProcessDiedIsGoneAfterARestart) {
  open();
  EXPECT_TRUE(killed([&] {
    auto store = Store::open(path);
    ModelFile file(*store, 4);
    file.write(Bytes{1});
    ::kill(::getpid(), SIGKILL);
  }));
  EXPECT_FALSE(std::filesystem::is_empty(path + "/models"));
  open();
  EXPECT_TRUE(std::filesystem::is_empty(path + "/models"));
}

TEST_F(StoreIn, ASecondCoordinatorIsKeptOut) {
  const auto first = open();
  EXPECT_THAT(error_of([&] { Store::open(path); }), HasSubstr("another coordinator has this database"));
}

TEST_F(StoreIn, LivingInstancesAreThoseWithoutAnEnd) {
  auto store = open();
  store->add_instance(study.charter.digest, "i-1", study.at);
  store->add_instance(study.charter.digest, "i-1", study.at);
  store->add_instance(study.charter.digest, "i-2", study.at + std::chrono::seconds(1));
  store->end_instance(study.charter.digest, "i-1", "idle", study.at);
  EXPECT_THAT(store->living_instances(study.charter.digest), ElementsAre("i-2"));
}

}  // namespace
}  // namespace cloister::coordinator

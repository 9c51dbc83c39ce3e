// The round's machines, in every order in which anything can happen to two or three participants, with so many faults
// at most. Bounded here; CLOISTER_EXHAUSTIVE=SECONDS searches each further question for so long (tests/README.md).

#include <cstdlib>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/protocols/round/exhaustive/search.hpp"

namespace cloister::tests::exhaustive {
namespace {

std::string shown(const Found& f) {
  std::string out = f.broken;
  for (const std::string& step : f.trace) out += "\n  " + step;
  return out;
}

void print(std::string_view what, const Found& f) {
  fmt::print("{}: {} states, {} transitions, {} ends, depth {}, {} states of single machines, {:.1f} s{}\n", what,
             f.states, f.transitions, f.ends, f.depth, f.machine_states, f.seconds, f.complete ? "" : ", not complete");
}

struct Question {
  std::string name;
  std::size_t sites = 2;
  std::uint32_t rounds = 1;
  Options options{};
};

void PrintTo(const Question& q, std::ostream* out) {
  *out << q.name;
}

class Every : public ::testing::TestWithParam<Question> {};

TEST_P(Every, ReachableStateHoldsTheInvariants) {
  const Question& q = GetParam();
  const Found f = search(q.sites, q.rounds, q.options);
  print(q.name, f);
  EXPECT_EQ(f.broken, "") << shown(f);
  EXPECT_TRUE(f.complete);
  EXPECT_GT(f.ends, 0U);
}

class Asked : public ::testing::TestWithParam<Question> {};

TEST_P(Asked, StateHoldsTheInvariants) {
  const char* seconds = std::getenv("CLOISTER_EXHAUSTIVE");
  if (seconds == nullptr) GTEST_SKIP() << "on request: CLOISTER_EXHAUSTIVE=SECONDS";
  const Question& q = GetParam();
  const Found f = search(q.sites, q.rounds, q.options, {.seconds = std::atof(seconds)});
  print(q.name, f);
  EXPECT_EQ(f.broken, "") << shown(f);
}

std::vector<Question> bounded() {
  return {
      {"TwoUndisturbed", 2, 2, {}},
      {"TwoGreetedBefore", 2, 2, {.greeted = true}},
      {"TwoWithACut", 2, 2, {{.cuts = 1}}},
      {"TwoWithACrash", 2, 2, {{.crashes = 1}}},
      {"TwoOneOfWhomLosesPower", 2, 2, {{.power = 1}}},
      {"TwoWithAHastyDeadline", 2, 2, {{.haste = 1}}},
      {"TwoWithACutAndACrash", 2, 1, {{.cuts = 1, .crashes = 1}}},
      {"TwoWithALyingWire", 2, 2, {{.wire = 1}}},
      {"TwoWhoseAggregatorDies", 2, 2, {{.deaths = 1}}},
      {"TwoWithAForkedEnclave", 2, 1, {{.forks = 1}}},
      {"TwoWithASecondInstance", 2, 2, {{.seconds = 1}}},
      {"TwoOneOfWhomReplays", 2, 2, {{.replays = 1}}},
      {"ThreeUndisturbed", 3, 2, {}},
      {"ThreeWithACut", 3, 1, {{.cuts = 1}}},
      {"TwoWithACrashAndAHastyDeadline", 2, 1, {{.crashes = 1, .haste = 1}}},
  };
}

/// More than a test run has time for: by request, each for so many seconds.
std::vector<Question> full() {
  return {
      {"TwoWithTwoCuts", 2, 2, {{.cuts = 2}}},
      {"TwoWhoLosePowerTwice", 2, 2, {{.power = 2}}},
      {"TwoWithACutAndAPowerCut", 2, 2, {{.cuts = 1, .power = 1}}},
      {"TwoWithTwoCrashes", 2, 2, {{.crashes = 2}}},
      {"TwoWithAForkedEnclaveAndAHastyDeadline", 2, 1, {{.haste = 1, .forks = 1}}},
      {"TwoWithEverythingOnce", 2, 1, {{.cuts = 1, .crashes = 1, .haste = 1}}},
      {"TwoWithTwoHastyDeadlines", 2, 2, {{.haste = 2}}},
      {"TwoWithAWireThatLiesTwice", 2, 1, {{.wire = 2}}},
      {"TwoWithALyingWireAndACut", 2, 1, {{.cuts = 1, .wire = 1}}},
      {"TwoWhoseAggregatorDiesAfterACrash", 2, 2, {{.crashes = 1, .deaths = 1}}},
      {"TwoWithAForkedEnclaveAndACrash", 2, 1, {{.crashes = 1, .haste = 1, .forks = 1}}},
      {"TwoWithAForkedEnclaveAndALostDisk", 2, 1, {{.haste = 1, .forks = 1, .amnesia = 1}}},
      {"TwoOneOfWhomReplaysTwice", 2, 1, {{.replays = 2}}},
      {"ThreeWithACrash", 3, 1, {{.crashes = 1}}},
      {"ThreeWithAHastyDeadline", 3, 1, {{.haste = 1}}},
      {"ThreeWithALyingWire", 3, 1, {{.wire = 1}}},
      {"ThreeWithACutInOneOfTwoRounds", 3, 2, {{.cuts = 1}}},
      {"ThreeWithACutAndACrash", 3, 1, {{.cuts = 1, .crashes = 1}}},
      {"ThreeWithAForkedEnclave", 3, 1, {{.haste = 1, .forks = 1}}},
      {"ThreeOneOfWhomReplays", 3, 1, {{.replays = 1}}},
  };
}

std::string name_of(const ::testing::TestParamInfo<Question>& q) {
  return q.param.name;
}

INSTANTIATE_TEST_SUITE_P(Bounded, Every, ::testing::ValuesIn(bounded()), name_of);
INSTANTIATE_TEST_SUITE_P(Full, Asked, ::testing::ValuesIn(full()), name_of);

// --- The search finds what is broken on purpose ----------------------------------------------------------------------

struct Broken {
  std::string name;
  Options options;
  std::string found;
};

void PrintTo(const Broken& b, std::ostream* out) {
  *out << b.name;
}

class TheSearch : public ::testing::TestWithParam<Broken> {};

TEST_P(TheSearch, FindsWhatIsBrokenOnPurpose) {
  const Found f = search(2, 1, GetParam().options);
  EXPECT_THAT(f.broken, ::testing::HasSubstr(GetParam().found));
  EXPECT_FALSE(f.trace.empty());
  fmt::print("{}: found after {} states, {} steps: {}\n", GetParam().name, f.states, f.trace.size(), f.broken);
}

std::vector<Broken> breaks() {
  using M = Mutation;
  return {
      {"AnUpdateAddedTwice", {{}, M::adds_twice}, "is added twice in round 1"},
      {"AnUpdateAddedAfterTheClose", {{}, M::adds_without_close}, "added to round 1 after it closed"},
      {"AnUpdateBeforeItIsSynced", {{}, M::acknowledges_unsynced}, "before its charge is synced"},
      {"AnAcknowledgementBeforeItIsStored",
       {{}, M::acknowledges_unstored},
       "a receipt of round 1 that it has not stored"},
      {"AWitnessThatForgetsWhatItSigned",
       {{.crashes = 1, .seconds = 1}, M::forgets_its_disk},
       "signs two receipts of round 1"},
      {"AnAnswerToAnUnchargedOffer", {{}, M::offers_uncharged}, "before the task is charged"},
      {"AnUpdateThatIsNotStored", {{}, M::forgets_the_update}, "that is not stored"},
      {"AModelBeforeItsWitnesses", {{}, M::commits_early}, "a model leaves before its round is committed"},
      {"NoDeadlineAtTheAggregator", {{.wire = 1}, M::sets_no_deadline}, "with no deadline armed"},
      {"AParticipantThatStaysAway", {{.cuts = 1}, M::never_dials_again}, "cuts and crashes alone"},
      {"AnAggregatorThatNeverListens", {{}, M::answers_no_answer}, "an execution that never ends"},
      {"AQuorumThatIsNone", {{}, M::needs_one_more}, "commits with 1 witnesses of 2"},
  };
}

INSTANTIATE_TEST_SUITE_P(Mutation, TheSearch, ::testing::ValuesIn(breaks()),
                         [](const ::testing::TestParamInfo<Broken>& b) { return b.param.name; });

}  // namespace
}  // namespace cloister::tests::exhaustive

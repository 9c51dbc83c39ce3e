#include "cli/run.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.hpp"
#include "cli/exit.hpp"
#include "cli/progress.hpp"
#include "tests/coordinator/support.hpp"

namespace cloister::cli {
namespace {

using testing::HasSubstr;
using testing::Not;

const char* const submitted =
    R"({"run":3,"at":"2026-12-01T10:00:00Z","number":1,"event":"submitted","study":"heart","submitter":"alice","note":"try"})";
const char* const status =
    R"({"run":3,"at":"2026-12-01T10:00:05Z","event":"status","round":2,"task":"train","state":"collecting","reason":"",
        "members":[{"owner":"charite","state":"training","reason":"","bytes_in":0,"bytes_out":2048},
                   {"owner":"usz","state":"declined","reason":"study.rounds: wanted at most 5","bytes_in":0,"bytes_out":0}],
        "bytes_in":0,"bytes_out":2048,"ms":1300})";
const char* const committed =
    R"({"run":3,"at":"2026-12-01T10:00:09Z","event":"committed","acknowledgements":4,
        "receipt":{"round":2,"task":"train","members":[{"owner":"charite","state":"contributed","reason":""},
                                                       {"owner":"usz","state":"late","reason":"no update"}]}})";

TEST(Progress, AStatusNamesWhoIsWhereAndWhy) {
  Progress progress;
  progress.on(submitted);
  const std::string line = progress.on(status);
  EXPECT_THAT(line, HasSubstr("round 2  train  collecting"));
  EXPECT_THAT(line, HasSubstr("charite=training"));
  EXPECT_THAT(line, HasSubstr("usz=declined: study.rounds: wanted at most 5"));
  EXPECT_EQ(progress.on(status), "") << "what has not changed is no news";
}

TEST(Progress, TheScreenHasTheRunItsRoundsAndItsCohort) {
  Progress progress;
  for (const char* event : {submitted, committed, status}) progress.on(event);
  const auto lines = progress.screen(200);
  EXPECT_THAT(lines[0], HasSubstr("run 3  heart  by alice  \"try\""));
  EXPECT_THAT(lines[1], HasSubstr("round 2 train committed by 4 witnesses; usz late: no update"));
  EXPECT_THAT(lines[2], HasSubstr("1.3 s"));
  EXPECT_THAT(lines[3], HasSubstr("charite"));
  for (const auto& line : progress.screen(20)) EXPECT_LE(line.size(), 20u);
}

TEST(Progress, ThePublishedAucIsShownAndAnUndefinedOneSaysSo) {
  Progress progress;
  EXPECT_THAT(progress.on(R"({"at":"t","event":"published","kind":"evaluate","round":3,"auc":0.87654})"),
              HasSubstr("AUC 0.8765"));
  EXPECT_THAT(progress.on(R"({"at":"t","event":"published","kind":"evaluate","round":3,"auc":null})"),
              HasSubstr("AUC undefined"));
}

TEST(Progress, TheEndIsRememberedWithItsReason) {
  Progress progress;
  EXPECT_EQ(progress.ended(), "");
  progress.on(R"({"at":"t","event":"ended","state":"failed","reason":"the aggregator is gone"})");
  EXPECT_EQ(progress.ended(), "failed");
  EXPECT_EQ(progress.reason(), "the aggregator is gone");
}

TEST(Progress, ASimulatedEnclaveIsSaidOnEveryScreen) {
  Progress progress;
  progress.on(submitted);
  EXPECT_THAT(progress.screen(200)[0], Not(HasSubstr("SIMULATED")));
  progress.on(R"({"at":"t","event":"started","record":"sha256:00","simulated":true})");
  EXPECT_THAT(progress.screen(200)[0], HasSubstr("SIMULATED"));
}

TEST(Progress, AnotherProcesssWordsCannotMoveTheCursor) {
  Progress progress;
  const std::string line =
      progress.on("{\"at\":\"t\",\"event\":\"ended\",\"state\":\"failed\",\"reason\":\"a\\u001b[2Jb\\nc\"}");
  EXPECT_THAT(line, HasSubstr("a?[2Jb; c"));
  EXPECT_EQ(progress.on("not json"), "");
  EXPECT_EQ(progress.on("[1]"), "");
}

struct RunCommand : testing::Test {
  tests::Temporary folder;
  tests::Study study{};
  RemoteOptions remote;
  RunCommand() {
    base::write_file(folder / "charter.bin", study.charter.serialize()).value();
    base::write_file(folder / "alice.key", base::view(study.submitter.pem()), 0600).value();
    base::write_file(folder / "other.key", base::view(base::PrivateKey::generate().pem()), 0600).value();
    remote.charter = folder / "charter.bin";
    remote.key = folder / "alice.key";
  }
  std::string misuse(const SubmitOptions& options) {
    try {
      run_submit(options, false);
    } catch (const WrongUse& e) {
      return e.what();
    }
    return "accepted";
  }
};

TEST_F(RunCommand, ASettingMustBeANameAndANumber) {
  for (const char* wrong : {"rounds", "rounds=", "=3", "rounds=three", "rounds=3x", "rounds=inf"})
    EXPECT_THAT(misuse({remote, {wrong}, "", false}), HasSubstr("wanted NAME=NUMBER")) << wrong;
  EXPECT_THAT(misuse({remote, {"rounds=3", "rounds=4"}, "", false}), HasSubstr("rounds is given twice"));
}

TEST_F(RunCommand, WithoutACharterAddressAndKeyMustBeGiven) {
  remote.charter.clear();
  remote.coordinator = "localhost:7001";
  EXPECT_THROW(run_list(remote, false), WrongUse);
  remote.server_key = study.keys("acme").tls.public_key().text();
  remote.coordinator = "localhost";
  EXPECT_THROW(run_list(remote, false), WrongUse);
}

TEST_F(RunCommand, AKeyThatThePolicyDoesNotNameIsDeniedBeforeAnythingIsSent) {
  remote.key = folder / "other.key";
  try {
    run_submit({remote, {}, "", false}, false);
    FAIL() << "submitted";
  } catch (const Exception& e) {
    EXPECT_EQ(e.error().kind, Error::Kind::denied);
    EXPECT_THAT(e.what(), HasSubstr("denied by acme (model): submitters: wanted the key of one of alice"));
  }
}

TEST_F(RunCommand, NobodyAtTheAddressIsSaid) {
  remote.coordinator = "127.0.0.1:1";
  try {
    run_list(remote, false);
    FAIL() << "listed";
  } catch (const Exception& e) {
    EXPECT_EQ(e.error().kind, Error::Kind::unavailable);
    EXPECT_THAT(e.what(), HasSubstr("127.0.0.1:1"));
  }
}

}  // namespace
}  // namespace cloister::cli

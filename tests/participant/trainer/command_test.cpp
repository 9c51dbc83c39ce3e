// The researcher's subcommands, as processes.

#include <cstdio>
#include <nlohmann/json.hpp>
#include <sys/wait.h>

#include "base/file.hpp"
#include "tests/participant/temporary.hpp"
#include "tests/participant/trainer/study.hpp"
#include "tests/participant/trainer/support.hpp"

namespace cloister::participant::trainer {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

struct Done {
  int code;
  std::string output;
};

Done trainer(const std::string& arguments) {
  FILE* pipe = ::popen(("'" CLOISTER_TRAINER "' " + arguments + " 2>&1").c_str(), "r");
  if (pipe == nullptr) std::abort();
  std::string output;
  char chunk[4096];
  for (std::size_t n; (n = std::fread(chunk, 1, sizeof chunk, pipe)) > 0;) output.append(chunk, n);
  return {WEXITSTATUS(::pclose(pipe)), output};
}

class Command : public ::testing::Test {
 protected:
  Command() {
    write("manifest.toml", testing::study().manifest);
    write("a ward.csv", testing::study_records(150));
  }
  void write(const std::string& name, const std::string& text) {
    base::write_file(folder_ / name, base::view(text)).value();
  }
  std::string read(const std::string& name) { return base::text(base::read_file(folder_ / name, 1 << 20).value()); }
  std::string at(const std::string& name) { return "'" + (folder_ / name) + "'"; }
  std::string manifest() { return " --manifest " + at("manifest.toml"); }
  Temporary folder_;
};

TEST_F(Command, InitWritesTheModelThatItsDigestNames) {
  const Done done = trainer("init --json" + manifest() + " --out " + at("model.bin"));
  ASSERT_EQ(done.code, 0) << done.output;
  const Json facts = Json::parse(done.output);
  const Bytes file = base::read_file(folder_ / "model.bin", 1 << 20).value();
  EXPECT_EQ(facts.at("digest"), base::digest_text(base::sha256(file)));
  EXPECT_THAT(facts.at("tensors"), HasSubstr("name = \"linear.weight\"\nshape = [1, 10]"));
  EXPECT_EQ(aggregation::parse_model(file).value().schema.elements(), 11u);
}

TEST_F(Command, InitCorrectsAManifestWhosePinsAreStillPlaceholders) {
  write("manifest.toml", tests::Study().manifest);  // pins weight [1, 6]
  EXPECT_THAT(trainer("init" + manifest() + " --out " + at("model.bin")).output, HasSubstr("shape = [1, 10]"));
}

TEST_F(Command, DigestIsThatOfTheProgram) {
  const Done done = trainer("digest");
  EXPECT_EQ(done.code, 0);
  EXPECT_EQ(done.output, base::digest_text(base::sha256(base::read_file(CLOISTER_TRAINER, 1 << 30).value())) + "\n");
}

TEST_F(Command, WhatLocalTrainedScoresTheSameAgain) {
  const Done local =
      trainer("local --json" + manifest() + " --data " + at("a ward.csv") + " --set split=2 --set rounds=5 --out " +
              at("scores.csv") + " --model-out " + at("m.bin") + " --statistics-out " + at("s.bin"));
  ASSERT_EQ(local.code, 0) << local.output;
  const Json facts = Json::parse(local.output);
  EXPECT_GT(facts.at("auc"), 0.8);
  EXPECT_EQ(facts.at("files").at(0).at("test_records"), data::split_records(150, 2).test.size());
  EXPECT_THAT(read("scores.csv"), ::testing::StartsWith("file,label,score\n"));
  const Done again = trainer("score --json" + manifest() + " --model " + at("m.bin") + " --statistics " + at("s.bin") +
                             " --score " + at("a ward.csv") + " --set split=2 --out " + at("again.csv"));
  ASSERT_EQ(again.code, 0) << again.output;
  EXPECT_EQ(Json::parse(again.output).at("auc"), facts.at("auc"));
  EXPECT_EQ(read("again.csv"), read("scores.csv"));
}

TEST_F(Command, LocalLeavesSuppressedColumnsOut) {
  const Done done = trainer("local --json" + manifest() + " --data " + at("a ward.csv") + " --suppress age,cp");
  EXPECT_EQ(Json::parse(done.output).at("without"), Json({"age", "cp"}));
}

TEST_F(Command, FailuresSayWhyAndWrongUseIsTold) {
  const Done missing = trainer("local" + manifest() + " --data /nowhere.csv");
  EXPECT_EQ(missing.code, 1);
  EXPECT_THAT(missing.output, HasSubstr("cloister-trainer: /nowhere.csv"));
  const Done setting = trainer("local" + manifest() + " --data " + at("a ward.csv") + " --set learning_rate=9");
  EXPECT_EQ(setting.code, 1);
  EXPECT_THAT(setting.output, HasSubstr("learning_rate: wanted a number from 0.001 to 1"));
  EXPECT_EQ(trainer("local" + manifest()).code, 2);
  EXPECT_EQ(trainer("local" + manifest() + " --data x --set split").code, 2);
  EXPECT_EQ(trainer("nonsense").code, 2);
  EXPECT_EQ(trainer("--help").code, 0);
}

}  // namespace
}  // namespace cloister::participant::trainer

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.hpp"
#include "participant/formats.hpp"
#include "participant/trainer_client.hpp"
#include "tests/participant/temporary.hpp"
#include "tests/support/study.hpp"

namespace cloister::participant {
namespace {

using ::testing::HasSubstr;
using namespace std::chrono_literals;

struct TrainerTest : ::testing::Test {
  Temporary folder;
  tests::Study study{tests::StudyOptions{}};
  Formats formats = *update_formats(study.charter.manifest);
  std::string log_path = folder / "log.jsonl";
  std::shared_ptr<base::Log> log = *base::Log::open("participant test", log_path, true);
  boost::asio::io_context io;
  TrainerOptions options;
  std::chrono::milliseconds patience = 20s;

  void SetUp() override {
    std::ofstream(folder / "data.csv") << "63,1,1,0\n";
    const std::string program = CLOISTER_BINARY_DIR "/tests/participant/participant_fake_trainer";
    options.sandbox.program = program;
    options.sandbox.digest = base::sha256(*base::read_file(program, 1 << 28));
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    options.sandbox.limits.memory = 0;
#endif
    options.data_file = folder / "data.csv";
    options.owner = "charite";
    options.manifest = study.charter.manifest.text;
    options.model_file = folder / "model";
    base::write_file(options.model_file, Bytes(64, 0x42)).value();
    options.update_capacity = 1 << 16;
  }

  Trainer::Deadline soon() const {
    return std::chrono::steady_clock::now() + patience;
  }

  // Starts the trainer and gives it one task; the answer, or what failed.
  std::string run(std::vector<std::string> arguments,
                  TaskRequest request = {.task = "train", .round = 2, .model_bytes = 0, .statistics = {}}) {
    options.sandbox.arguments = std::move(arguments);
    std::string out;
    const auto body = [&]() -> boost::asio::awaitable<void> {
      auto trainer = co_await Trainer::start(options, soon(), log);
      const TaskAnswer answer = co_await trainer->run(request, soon());
      out = "weight " + std::to_string(answer.weight) + ", update " + base::hex(answer.update);
    };
    boost::asio::co_spawn(io, body(), [&](std::exception_ptr e) {
      try {
        if (e) std::rethrow_exception(e);
      } catch (const std::exception& error) {
        out = error.what();
      }
    });
    io.restart();
    io.run();
    return out;
  }
};

TEST_F(TrainerTest, AnswersATaskWithTheBytesInSharedMemory) {
  EXPECT_THAT(run({}), HasSubstr("weight 20, update 0ad7233c0ad7233c"));
  EXPECT_THAT(run({}, {.task = "statistics", .round = 1, .model_bytes = 0, .statistics = {}}),
              HasSubstr("weight 1, update 0000"));
  EXPECT_THAT(base::text(*base::read_file(log_path, 1 << 20)), HasSubstr("\"event\":\"sandbox\""));
}

TEST_F(TrainerTest, ReadsTheModelAndCannotWriteIt) {
  EXPECT_EQ(run({"model"}, {.task = "train", .round = 2, .model_bytes = 2, .statistics = {}}), "weight 20, update 42");
}

TEST_F(TrainerTest, AModelLargerThanTheChartersIsRefused) {
  EXPECT_THAT(run({}, {.task = "train", .round = 2, .model_bytes = 65, .statistics = {}}),
              HasSubstr("a model of 65 bytes; the charter's has 64"));
}

TEST_F(TrainerTest, ThatHangsIsEndedAtTheDeadline) {
  patience = 300ms;
  EXPECT_THAT(run({"start", "hang"}), HasSubstr("trainer: its first line: no answer within"));
}

TEST_F(TrainerTest, ThatSaysGarbageIsRefusedWithoutQuotingIt) {
  const std::string error = run({"task", "garbage"});
  EXPECT_THAT(error, HasSubstr("answered the train task of round 2 with something else than a line of JSON"));
  EXPECT_THAT(error, ::testing::Not(HasSubstr("this is not JSON")));
  EXPECT_THAT(run({"task", "array"}), HasSubstr("something else than a line of JSON with \"ok\""));
  EXPECT_THAT(run({"start", "garbage"}), HasSubstr("answered its first line with something else"));
}

TEST_F(TrainerTest, ThatFailsSaysWhy) {
  EXPECT_THAT(run({"task", "error"}), HasSubstr("the train task of round 2 failed: column cp is not in the file"));
}

TEST_F(TrainerTest, ThatDiesIsNamedWithItsEnd) {
  EXPECT_THAT(run({"task", "exit"}),
              HasSubstr("it exited with status 3 instead of answering the train task of round 2"));
  EXPECT_THAT(run({"start", "abort"}), HasSubstr("it was killed by signal 6 (Aborted"));
}

TEST_F(TrainerTest, ThatSaysTooMuchIsEnded) {
  EXPECT_THAT(run({"task", "long"}), HasSubstr("its answer to the train task of round 2 is longer than 65536 bytes"));
  EXPECT_THAT(run({"task", "two"}), HasSubstr("more than one line"));
}

TEST_F(TrainerTest, ThatClaimsOtherNumbersThanItMayIsRefused) {
  EXPECT_THAT(run({"task", "many"}), HasSubstr("it says 99999999 bytes, at most 65536 are possible"));
  EXPECT_THAT(run({"task", "weight"}), HasSubstr("wanted the weight that it announced at its start"));
  EXPECT_THAT(run({"task", "negative"}), HasSubstr("no whole number \"bytes\""));
}

TEST_F(TrainerTest, OfAnotherContractIsRefused) {
  EXPECT_THAT(run({"contract"}), HasSubstr("wanted contract 1, found 2"));
}

TEST_F(TrainerTest, WithOtherBytesThanTheChartersIsNotStarted) {
  options.sandbox.digest[0] ^= 1;
  EXPECT_THAT(run({}), HasSubstr("install the trainer that the charter names"));
}

TEST_F(TrainerTest, CanBeStoppedDuringATask) {
  options.sandbox.arguments = {"task", "hang"};
  std::string out;
  std::shared_ptr<Trainer> trainer;
  const auto body = [&]() -> boost::asio::awaitable<void> {
    trainer = co_await Trainer::start(options, soon(), log);
    boost::asio::steady_timer timer(io, 10ms);
    timer.async_wait([&](auto) { trainer->stop(); });
    const TaskRequest request{
        .task = "train", .round = 2, .model_bytes = 0, .statistics = {}};  // GCC 12 destroys such a temporary twice
    co_await trainer->run(request, soon());
  };
  boost::asio::co_spawn(io, body(), [&](std::exception_ptr e) { out = e ? "failed" : "done"; });
  io.run();
  EXPECT_EQ(out, "failed");
}

struct CountsTest : ::testing::Test {
  tests::Study study{tests::StudyOptions{}};
  Formats formats = *update_formats(study.charter.manifest);

  Bytes update(const std::string& task, const std::map<std::string, std::vector<std::uint64_t>>& values) const {
    const auto& schema = formats.at(task).schema;
    Bytes out(schema.bytes());
    for (const auto& [name, numbers] : values)
      for (std::size_t i = 0; i < numbers.size(); ++i)
        for (std::size_t b = 0; b < 8; ++b)
          out[schema.offset(schema.index(name)) + 8 * i + b] = static_cast<std::uint8_t>(numbers[i] >> (8 * b));
    return out;
  }
  Bytes apply(const std::string& task, const Bytes& u) const {
    return *apply_minimum_count(task, formats.at(task), 10, u);
  }
};

TEST_F(CountsTest, AStatisticOfTooFewRecordsLeavesAsZeroAndAbsent) {
  const Bytes few = update(
      "statistics", {{"age.contributors", {1}}, {"age.count", {9}}, {"age.sum", {123}}, {"age.square_sum", {456}}});
  EXPECT_EQ(apply("statistics", few), update("statistics", {}));
  const Bytes enough = update("statistics", {{"age.contributors", {1}}, {"age.count", {10}}, {"age.sum", {123}}});
  EXPECT_EQ(apply("statistics", enough), enough);
}

TEST_F(CountsTest, ACellOfTooFewRecordsLeavesAsZeroAndItsColumnStays) {
  const Bytes mixed =
      update("statistics", {{"sex.contributors", {1}}, {"sex.cell_contributors", {1, 1}}, {"sex.counts", {40, 3}}});
  EXPECT_EQ(
      apply("statistics", mixed),
      update("statistics", {{"sex.contributors", {1}}, {"sex.cell_contributors", {1, 0}}, {"sex.counts", {40, 0}}}));
  const Bytes few =
      update("statistics", {{"sex.contributors", {1}}, {"sex.cell_contributors", {1, 1}}, {"sex.counts", {4, 3}}});
  EXPECT_EQ(apply("statistics", few), update("statistics", {}));
}

TEST_F(CountsTest, AnEvaluationOfTooFewRecordsLeavesAsNothing) {
  EXPECT_EQ(apply("evaluate", update("evaluate", {{"contributors", {1}}, {"positives", {3}}, {"negatives", {6}}})),
            update("evaluate", {}));
  const Bytes enough = update("evaluate", {{"contributors", {1}}, {"positives", {3}}, {"negatives", {0, 7}}});
  EXPECT_EQ(apply("evaluate", enough), enough);
  const Bytes overflowing = update("evaluate", {{"positives", {~std::uint64_t{0}, 5}}});
  EXPECT_EQ(apply("evaluate", overflowing), overflowing)
      << "an overflow may not look like few records; the enclave's range refuses it";
}

TEST_F(CountsTest, AnUpdateOfAnotherLengthIsRefused) {
  EXPECT_THAT(apply_minimum_count("train", formats.at("train"), 0, Bytes(27)).error().text(),
              HasSubstr("wanted an update of 28 bytes for a train task, found 27"));
}

TEST_F(CountsTest, TheLargerOfCharterAndPolicyCounts) {
  attest::DataPolicy policy = *study.policy("charite").data();
  EXPECT_EQ(minimum_count("statistics", study.charter.manifest, policy), 10u);
  policy.statistics->minimum_count = 25;
  EXPECT_EQ(minimum_count("statistics", study.charter.manifest, policy), 25u);
  EXPECT_EQ(minimum_count("train", study.charter.manifest, policy), 0u);
}

}  // namespace
}  // namespace cloister::participant

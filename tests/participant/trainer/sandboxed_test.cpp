// The real trainer as a node starts it: in the sandbox, with the default limits. libtorch must live with what is left.

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <fstream>

#include "base/file.hpp"
#include "participant/trainer_client.hpp"
#include "tests/participant/temporary.hpp"
#include "tests/participant/trainer/study.hpp"
#include "tests/participant/trainer/support.hpp"

namespace cloister::participant::trainer {
namespace {

using namespace std::chrono_literals;

/// Runs a coroutine to its end; its exception is the caller's.
template <class T>
T run(boost::asio::io_context& io, boost::asio::awaitable<T> work) {
  std::optional<T> out;
  std::exception_ptr failed;
  boost::asio::co_spawn(io, std::move(work), [&](std::exception_ptr e, T value) {
    failed = e;
    if (!e) out = std::move(value);
  });
  io.restart();
  io.run();
  if (failed) std::rethrow_exception(failed);
  return std::move(*out);
}

auto deadline() {
  return std::chrono::steady_clock::now() + 60s;
}

TEST(SandboxedTrainer, TrainsAndEvaluatesWithNothingButItsDescriptors) {
  const Temporary folder;
  const std::string csv = testing::study_records(120);
  base::write_file(folder / "records.csv", base::view(csv)).value();
  const attest::Manifest manifest = attest::parse_manifest(testing::study().manifest, "manifest").value();
  const Bytes model = testing::initial(manifest).serialize();
  TrainerOptions options;
  options.sandbox.program = CLOISTER_TRAINER;
  options.sandbox.digest = base::sha256(base::read_file(CLOISTER_TRAINER, 1 << 30).value());
  options.sandbox.error_file = folder / "trainer.err";
  options.data_file = folder / "records.csv";
  options.owner = "charite";
  options.manifest = testing::study().manifest;
  options.settings = attest::complete_settings(manifest, {}).value();
  options.model_file = folder / "model";
  base::write_file(options.model_file, model).value();
  options.update_capacity = 1 << 20;

  boost::asio::io_context io;
  const auto log = base::Log::open("test", "", true).value();
  const auto trainer = run(io, Trainer::start(options, deadline(), log));
  EXPECT_EQ(trainer->records().all, 120u);

  const auto counted = run(io, trainer->run({"statistics", 1, 0, {}}, deadline()));
  const auto plan =
      aggregation::StatisticsPlan::make(data::Declaration::of(manifest).statistic_columns(), manifest.statistics_kinds)
          .value();
  const auto format = std::make_shared<const aggregation::UpdateFormat>(aggregation::statistics_format(plan));
  aggregation::StagedUpdate slot(format);
  slot.feed(counted.update).value();
  auto sum = aggregation::Sum::make(format, {}).value();
  sum.add(std::move(slot).complete(base::sha256(counted.update)).value(), 1).value();
  const Bytes statistics = aggregation::Statistics::from(plan, std::move(sum).report().value(), 1).serialize();

  const auto trained = run(io, trainer->run({"train", 2, model.size(), statistics}, deadline()));
  EXPECT_EQ(trained.weight, trainer->records().train);
  EXPECT_GT(testing::floats(base::copy(trained.update))[0], 0);
  // What the sandbox takes away changes no bit: the same task outside of it.
  const auto outside = Learner::make(manifest, {}, csv, "data").value();
  EXPECT_EQ(outside.train(2, aggregation::Statistics::parse(statistics).value(), model).value().bytes,
            base::copy(trained.update));

  const auto evaluated = run(io, trainer->run({"evaluate", 3, model.size(), statistics}, deadline()));
  EXPECT_EQ(evaluated.update.size(), 8 * (1 + 2 * 1000u));
}

}  // namespace
}  // namespace cloister::participant::trainer

// Training alone: on made-up records, and on the four real hospitals where their files are at hand.

#include "participant/trainer/alone.hpp"

#include <cstdlib>
#include <filesystem>
#include <numeric>

#include "aggregation/algorithm.hpp"
#include "base/file.hpp"
#include "tests/participant/trainer/support.hpp"

namespace cloister::participant::trainer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

File file(const attest::Manifest& m, const std::string& csv, const std::string& name) {
  return {name, data::read_table(csv, data::Declaration::of(m), name).value()};
}

attest::Manifest with_statistics() {
  attest::Manifest m = testing::manifest();
  m.statistics_kinds = {"mean", "variance", "frequency"};
  return m;
}

TEST(Alone, LearnsFromSeveralFilesTogether) {
  const attest::Manifest m = with_statistics();
  const std::vector<File> files{file(m, testing::csv(150, 1), "one"), file(m, testing::csv(150, 2), "two")};
  const auto settings = testing::settings();
  const Alone alone = train_alone(m, settings, files, {}).value();
  const auto scores = score(m, settings, alone.model, alone.statistics, files).value();
  EXPECT_EQ(scores.size(), 2 * data::split_records(150, 0).test.size());
  EXPECT_GT(auc(scores).value(), 0.85);
  EXPECT_EQ(alone.statistics->find("b")->count, 2 * data::split_records(150, 0).train.size());
}

TEST(Alone, ASuppressedColumnLeavesTheModel) {
  const attest::Manifest m = with_statistics();
  const std::vector<File> files{file(m, testing::csv(150, 1), "one")};
  const Alone alone = train_alone(m, testing::settings(), files, {{"a"}, 0}).value();
  EXPECT_THAT(alone.without, ElementsAre("a"));
  EXPECT_EQ(alone.model.values[0], 0);
  EXPECT_EQ(alone.model.values[1], 0);
  EXPECT_THAT(train_alone(m, testing::settings(), files, {{"z"}, 0}).error().text(),
              HasSubstr("--suppress: the manifest has no column \"z\""));
}

TEST(Alone, AColumnBelowTheMinimumCountLeavesTheModel) {
  attest::Manifest m = with_statistics();
  std::string csv = testing::csv(100);
  m.statistics_minimum_count = 95;
  EXPECT_THAT(train_alone(m, testing::settings(), {file(m, csv, "one")}, {}).value().without,
              ElementsAre("a", "b", "c"));
}

TEST(Auc, OfScoresCountsTiesHalf) {
  EXPECT_DOUBLE_EQ(auc({{0, 1, 0.9f}, {0, 0, 0.5f}, {0, 1, 0.5f}, {0, 0, 0.1f}}).value(), 3.5 / 4);
  EXPECT_EQ(auc({{0, 1, 0.9f}}), std::nullopt);
  EXPECT_EQ(auc({}), std::nullopt);
}

// --- the four hospitals ----------------------------------------------------------------------------------------------

attest::Manifest heart() {
  attest::Manifest m;
  m.architecture = "logistic-regression";
  const std::vector<std::string> gap{"?"}, two{"0", "1"};
  m.columns = {{"age", "number", {}, gap},
               {"sex", "category", two, gap},
               {"cp", "category", {"1", "2", "3", "4"}, gap},
               {"trestbps", "number", {}, {"?", "0"}},
               {"chol", "number", {}, {"?", "0"}},
               {"fbs", "category", two, gap},
               {"restecg", "category", {"0", "1", "2"}, gap},
               {"thalach", "number", {}, gap},
               {"exang", "category", two, gap},
               {"oldpeak", "number", {}, gap},
               {"slope", "category", {"1", "2", "3"}, gap},
               {"ca", "number", {}, gap},
               {"thal", "category", {"3", "6", "7"}, gap}};
  m.label_column = "num";
  m.label_positive = {"1", "2", "3", "4"};
  m.statistics_kinds = {"mean", "variance", "frequency"};
  m.statistics_minimum_count = 10;
  m.algorithm = "fedavg";
  m.value_bound = 16;
  for (const auto& [name, value] : testing::settings()) m.settings[name] = {0, 1e9, value};
  for (const aggregation::Tensor& t : Architecture::of(m).value().tensors())
    m.tensors.push_back({t.name, t.shape, "float32"});
  return m;
}

std::vector<File> hospitals(const attest::Manifest& m) {
  const char* shared = std::getenv("CLOISTER_SHARED");
  const std::filesystem::path folder =
      (shared ? std::filesystem::path(shared) : std::filesystem::path(CLOISTER_SOURCE_DIR) / ".." / "shared") / "data" /
      "heart-disease";
  std::vector<File> out;
  for (const char* name : {"cleveland", "hungarian", "switzerland", "va"}) {
    const auto path = folder / ("processed." + std::string(name) + ".data");
    if (!std::filesystem::exists(path)) return {};
    out.push_back(load(m, path.string()).value());
  }
  return out;
}

TEST(Hospitals, PooledTrainingWithoutCaReachesTheKnownAuc) {
  const attest::Manifest m = heart();
  const auto files = hospitals(m);
  if (files.empty()) GTEST_SKIP() << "skipped, data not found";
  EXPECT_EQ(files[0].table.records() + files[1].table.records() + files[2].table.records() + files[3].table.records(),
            920u);
  std::vector<double> areas;
  for (int split = 0; split < 5; ++split) {
    const auto settings = testing::settings(
        {{"split", split}, {"rounds", 20}, {"local_epochs", 5}, {"batch_size", 32}, {"learning_rate", 0.05}});
    const Alone alone = train_alone(m, settings, files, {{"ca"}, 0}).value();
    areas.push_back(auc(score(m, settings, alone.model, alone.statistics, files).value()).value());
  }
  const double mean = std::accumulate(areas.begin(), areas.end(), 0.0) / static_cast<double>(areas.size());
  EXPECT_GE(mean, 0.87);
  EXPECT_LE(mean, 0.91);
}

/// A federation of the hospitals in this process, as the enclave and the nodes run it: statistics, then FedAvg. The
/// last model's AUC on everybody's test records, and the columns that were suppressed.
struct Federated {
  double auc;
  std::vector<std::string> without;
};

Federated federate(const attest::Manifest& m, const attest::Settings& settings, const std::vector<File>& files,
                   std::uint64_t at_least) {
  std::vector<Learner> sites;
  for (const File& f : files) {
    const Bytes csv = base::read_file(f.path, 1 << 20).value();
    sites.push_back(Learner::make(m, settings, base::text(csv), f.path).value());
  }
  const auto plan =
      aggregation::StatisticsPlan::make(data::Declaration::of(m).statistic_columns(), m.statistics_kinds).value();
  std::vector<SiteUpdate> updates;
  for (const Learner& site : sites) updates.push_back(site.statistics().value());
  const auto statistics = aggregation::Statistics::from(
      plan, testing::sum(aggregation::statistics_format(plan), updates).report().value(), at_least);
  auto model = testing::initial(m);
  const auto* fedavg = aggregation::find_algorithm("fedavg").value();
  const auto server = fedavg->optimizer(aggregation::check_settings(*fedavg, {}).value(), model.schema);
  for (std::uint32_t round = 1; round <= static_cast<std::uint32_t>(settings.at("rounds")); ++round) {
    updates.clear();
    for (const Learner& site : sites) updates.push_back(site.train(round, statistics, model.serialize()).value());
    testing::step(*server, updates, m.value_bound, model);
  }
  Federated out{auc(score(m, settings, model, statistics, files).value()).value(), {}};
  for (const auto& column : statistics.columns)
    if (column.suppressed) out.without.push_back(column.name);
  return out;
}

TEST(Hospitals, FederatedTrainingComesWithinAHundredthOfPooled) {
  const attest::Manifest m = heart();
  const auto files = hospitals(m);
  if (files.empty()) GTEST_SKIP() << "skipped, data not found";
  double federated = 0, pooled = 0;
  constexpr int splits = 5;
  for (int split = 0; split < splits; ++split) {
    const auto settings = testing::settings(
        {{"split", split}, {"rounds", 20}, {"local_epochs", 5}, {"batch_size", 32}, {"learning_rate", 0.05}});
    const Federated f = federate(m, settings, files, 3);
    EXPECT_THAT(f.without, ::testing::Contains("ca"));
    const Alone alone = train_alone(m, settings, files, {{f.without.begin(), f.without.end()}, 0}).value();
    federated += f.auc / splits;
    pooled += auc(score(m, settings, alone.model, alone.statistics, files).value()).value() / splits;
  }
  RecordProperty("federated", std::to_string(federated));
  EXPECT_GE(federated, 0.87);
  EXPECT_NEAR(federated, pooled, 0.01);
}

TEST(Hospitals, AHospitalThatLacksAColumnTrainsWithoutIt) {
  const attest::Manifest m = heart();
  const auto files = hospitals(m);
  if (files.empty()) GTEST_SKIP() << "skipped, data not found";
  const Alone zurich = train_alone(m, testing::settings(), {files[2]}, {}).value();
  EXPECT_THAT(zurich.without, ElementsAre("chol", "ca"));
}

}  // namespace
}  // namespace cloister::participant::trainer

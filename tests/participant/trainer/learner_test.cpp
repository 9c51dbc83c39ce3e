#include "participant/trainer/learner.hpp"

#include "aggregation/algorithm.hpp"
#include "aggregation/evaluate.hpp"
#include "tests/participant/trainer/support.hpp"

namespace cloister::participant::trainer {
namespace {

using aggregation::Statistics;
using aggregation::UpdateFormat;
using testing::csv;
using ::testing::HasSubstr;
using testing::initial;
using testing::manifest;
using testing::settings;

Learner learner(const attest::Manifest& m, const std::string& records, const attest::Settings& chosen = {}) {
  return Learner::make(m, chosen, records, "data").value();
}

attest::Manifest with_statistics(attest::Manifest m = manifest()) {
  m.statistics_kinds = {"mean", "variance", "frequency"};
  return m;
}

Statistics statistics_of(const attest::Manifest& m, const std::vector<Learner>& sites, std::uint64_t at_least) {
  const auto plan =
      aggregation::StatisticsPlan::make(data::Declaration::of(m).statistic_columns(), m.statistics_kinds).value();
  std::vector<SiteUpdate> updates;
  for (const Learner& site : sites) updates.push_back(site.statistics().value());
  return Statistics::from(plan, testing::sum(aggregation::statistics_format(plan), updates).report().value(), at_least);
}

TEST(Learner, CountsItsRecordsAndSplitsThem) {
  const Learner l = learner(manifest(), csv(90));
  EXPECT_EQ(l.records(), 90u);
  EXPECT_EQ(l.train_records() + l.test_records(), 90u);
  EXPECT_EQ(l.test_records(), data::split_records(90, 0).test.size());
}

TEST(Learner, StatisticsAreOfTheTrainingRecordsAlone) {
  const attest::Manifest m = with_statistics();
  const std::vector<Learner> one{learner(m, csv(200))};
  const Statistics s = statistics_of(m, one, 1);
  const data::Table table = data::read_table(csv(200), data::Declaration::of(m), "f").value();
  double sum = 0, n = 0;
  for (const std::size_t row : data::split_records(200, 0).train) sum += table.columns[1][row], ++n;
  EXPECT_EQ(static_cast<double>(s.find("b")->count), n);
  EXPECT_NEAR(*s.find("b")->mean, sum / n, 1e-6);
}

TEST(Learner, TheUpdateIsAfterMinusBeforeAndWeighsTheTrainingRecords) {
  const attest::Manifest m = manifest();
  const auto model = initial(m);
  const Learner l = learner(m, csv(200));
  const SiteUpdate update = l.train(1, std::nullopt, model.serialize()).value();
  EXPECT_EQ(update.weight, l.train_records());
  EXPECT_EQ(update.bytes.size(), model.schema.bytes());
  const auto delta = testing::floats(update.bytes);
  EXPECT_GT(delta[0], 0.1);       // a: the more, the likelier
  EXPECT_GT(delta[5], delta[4]);  // c = y more than c = x... in the order a, a missing, b, b missing, c = x, c = y
}

TEST(Learner, TheSameRoundGivesTheSameBytesAndAnotherRoundOthers) {
  const attest::Manifest m = manifest("mlp", {4});
  const Bytes model = initial(m, 3).serialize();
  const auto bytes = [&](std::uint32_t round) {
    return learner(m, csv(100)).train(round, std::nullopt, model).value().bytes;
  };
  EXPECT_EQ(bytes(1), bytes(1));
  EXPECT_NE(bytes(1), bytes(2));
}

TEST(Learner, AFederationOfThreeLearnsWhatNoneWasTold) {
  const attest::Manifest m = with_statistics();
  std::vector<Learner> sites;
  for (std::uint64_t i = 1; i <= 3; ++i) sites.push_back(learner(m, csv(150, i)));
  const Statistics s = statistics_of(m, sites, 3);
  auto model = initial(m);
  const auto* fedavg = aggregation::find_algorithm("fedavg").value();
  const auto server = fedavg->optimizer(aggregation::check_settings(*fedavg, {}).value(), model.schema);
  for (std::uint32_t round = 1; round <= 10; ++round) {
    std::vector<SiteUpdate> updates;
    for (const Learner& site : sites) updates.push_back(site.train(round, s, model.serialize()).value());
    testing::step(*server, updates, 16, model);
  }
  std::vector<SiteUpdate> histograms;
  for (const Learner& site : sites) histograms.push_back(site.evaluate(s, model.serialize()).value());
  const auto e = aggregation::Evaluation::from(
      testing::sum(aggregation::evaluate_format(100).value(), histograms).report().value(), 3);
  EXPECT_GT(*e.auc(), 0.85);
}

TEST(Learner, AHospitalThatLacksAColumnSendsZerosForItAndTrainsOn) {
  const attest::Manifest m = with_statistics();
  std::string lacking = "b,c,ill\n";  // the file has no "a"
  for (int i = 0; i < 90; ++i) lacking += std::to_string(i % 7) + (i % 2 ? ",x,1\n" : ",y,0\n");
  std::vector<Learner> sites{learner(m, lacking), learner(m, csv(100, 1)), learner(m, csv(100, 2))};
  const Statistics two = statistics_of(m, sites, 2), three = statistics_of(m, sites, 3);
  EXPECT_EQ(two.find("a")->contributors, 2u);
  EXPECT_TRUE(three.find("a")->suppressed);
  const auto model = initial(m);
  const auto delta = testing::floats(sites[1].train(1, three, model.serialize()).value().bytes);
  EXPECT_EQ(delta[0], 0);  // suppressed: its weights do not move
  EXPECT_EQ(delta[1], 0);
  EXPECT_NE(delta[2], 0);
  EXPECT_NE(testing::floats(sites[0].train(1, two, model.serialize()).value().bytes)[1],
            0);  // "a missing" says something
}

TEST(Learner, ASiteBelowTheMinimumCountSendsZerosOfItsScores) {
  attest::Manifest m = manifest();
  m.evaluate_minimum_count = 1'000;
  EXPECT_EQ(learner(m, csv(90)).evaluate(std::nullopt, initial(m).serialize()).value().bytes, Bytes(8 * 201));
}

TEST(Learner, ADeltaBeyondTheValueBoundIsToldHere) {
  attest::Manifest m = manifest();
  m.value_bound = 1e-3;
  EXPECT_THAT(
      learner(m, csv(100)).train(1, std::nullopt, initial(m).serialize()).error().text(),
      HasSubstr("update: tensor \"linear.weight\", element 0: wanted a magnitude of at most 0.001, found more"));
}

TEST(Learner, AModelOfAnotherSchemaIsRefused) {
  const Bytes other = initial(manifest("mlp", {4})).serialize();
  EXPECT_THAT(learner(manifest(), csv(100)).train(1, std::nullopt, other).error().text(),
              HasSubstr("model: wanted the manifest's schema sha256:"));
}

TEST(Learner, TrainsOnlyWithTheStatisticsThatTheManifestWants) {
  const attest::Manifest m = with_statistics();
  EXPECT_THAT(learner(m, csv(100)).train(1, std::nullopt, initial(m).serialize()).error().text(),
              HasSubstr("no statistics are in force yet"));
}

TEST(Learner, RefusesSettingsOutsideTheirRanges) {
  const auto refused = Learner::make(manifest(), {{"split", -1}}, csv(10), "data");
  EXPECT_THAT(refused.error().text(), HasSubstr("split"));
}

TEST(Learner, MalformedRecordsAreRefusedByLineAndColumn) {
  EXPECT_EQ(Learner::make(manifest(), {}, "1,2,x,0\n1,2,z,0\n", "data").error().text(),
            "data:2: c: wanted one of the 2 declared categories or a marker of a missing value");
}

}  // namespace
}  // namespace cloister::participant::trainer

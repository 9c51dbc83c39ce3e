#include "aggregation/algorithm.hpp"

#include <cmath>

#include "tests/aggregation/support.hpp"

namespace cloister::aggregation {
namespace {

using testing::bytes_of;
using testing::Format;
using ::testing::HasSubstr;
using testing::stage;
using testing::train;

std::unique_ptr<ServerOptimizer> optimizer(std::string_view name, const Schema& schema, const Settings& settings = {}) {
  const Algorithm* algorithm = find_algorithm(name).value();
  return algorithm->optimizer(check_settings(*algorithm, settings).value(), schema);
}

Sum sum_of(const Format& format, const std::vector<std::pair<std::vector<float>, std::uint64_t>>& updates) {
  Sum sum = Sum::make(format, {.contributors_at_most = 9, .weight_at_most = 1'000}).value();
  for (const auto& [values, weight] : updates) sum.add(stage(format, bytes_of(values)).value(), weight).value();
  return sum;
}

ModelFile file_of(const Model& model) {
  ModelFile out(model.schema, std::make_shared<Pages>());
  out.append(model.serialize());
  return out;
}

/// The product's apply(), on a model in a vector.
Result<void> step(ServerOptimizer& optimizer, Sum&& sum, Model& model) {
  ModelFile next(model.schema, std::make_shared<Pages>());
  if (auto ok = apply(optimizer, std::move(sum), file_of(model), next); !ok) return ok;
  model = parse_model(next.bytes()).value();
  EXPECT_EQ(next.digest(), model.digest());
  return {};
}

TEST(FedAvg, AddsTheWeightedMeanOfTheDeltas) {
  for (const char* name : {"fedavg", "fedprox"}) {
    const Format format = train(3);
    Model model{format->schema, {1, 2, 3}};
    const auto server = optimizer(name, format->schema);
    step(*server, sum_of(format, {{{1, 0, -2}, 100}, {{5, 4, 2}, 300}}), model).value();
    EXPECT_THAT(model.values, ::testing::ElementsAre(1 + 4, 2 + 3, 3 + 1));
    EXPECT_FALSE(server->state());
  }
}

TEST(FedAvg, AServerLearningRateScalesTheStep) {
  const Format format = train(2);
  Model model{format->schema, {1, 2}};
  const auto server = optimizer("fedavg", format->schema, {{"server_learning_rate", 0.5}});
  step(*server, sum_of(format, {{{1, -4}, 10}}), model).value();
  EXPECT_THAT(model.values, ::testing::ElementsAre(1.5, 0));
}

TEST(FedAdam, FollowsThePapersUpdateRule) {
  // Worked by hand from Algorithm 2 with eta = 0.5, beta1 = 0.5, beta2 = 0.75, tau = 0.5, v_{-1} = tau^2 = 0.25:
  // round 1, delta 1:   m = 0.5,   v = 0.4375,     x = 0.5 * 0.5 / (0.6614378 + 0.5)             = 0.2152504
  // round 2, delta -2:  m = -0.75, v = 1.328125,   x = 0.2152504 - 0.5 * 0.75 / (1.1524431 + 0.5) = -0.0116861
  const Format format = train(2);
  Model model{format->schema, {0, 10}};
  const auto server = optimizer("fedadam", format->schema,
                                {{"server_learning_rate", 0.5}, {"beta1", 0.5}, {"beta2", 0.75}, {"tau", 0.5}});
  const auto fresh = server->state();
  step(*server, sum_of(format, {{{1, 0}, 1}}), model).value();
  EXPECT_NEAR(model.values[0], 0.2152504, 1e-6);
  EXPECT_EQ(model.values[1], 10);  // no delta, no momentum: no step
  const auto once = server->state();
  EXPECT_NE(once, fresh);
  step(*server, sum_of(format, {{{-2, 0}, 1}}), model).value();
  EXPECT_NEAR(model.values[0], 0.2152504 - 0.5 * 0.75 / (std::sqrt(1.328125) + 0.5), 1e-6);
  EXPECT_NE(server->state(), once);
}

TEST(FedAdam, HasTheSameBitsForEveryOrder) {
  const Format format = train(64);
  std::mt19937_64 random(5);
  const auto a = testing::random_values(random, 64), b = testing::random_values(random, 64);
  Model one{format->schema, a}, two{format->schema, a};
  const auto first = optimizer("fedadam", format->schema), second = optimizer("fedadam", format->schema);
  for (int round = 0; round < 3; ++round) {
    step(*first, sum_of(format, {{a, 3}, {b, 700}}), one).value();
    step(*second, sum_of(format, {{b, 700}, {a, 3}}), two).value();
  }
  EXPECT_EQ(one.digest(), two.digest());
  EXPECT_EQ(first->state(), second->state());
}

TEST(Algorithms, AStepOutOfTheFiniteNumbersIsRefusedAndLeavesTheModel) {
  const Format format = train(2, 1e3);
  Model model{format->schema, {3.4e38f, 1}};
  const auto before = model.digest();
  const auto server = optimizer("fedadam", format->schema, {{"server_learning_rate", 1e38}});
  EXPECT_THAT(step(*server, sum_of(format, {{{1, 1}, 1}}), model).error().text(), HasSubstr("tensor \"w\", element 0"));
  EXPECT_EQ(model.digest(), before);
}

TEST(Algorithms, AnUnknownOneIsRefusedWithTheKnownOnes) {
  EXPECT_EQ(find_algorithm("krum").error().text(), "algorithm: wanted one of fedavg, fedprox, fedadam, found \"krum\"");
}

TEST(Algorithms, ASettingOutsideItsRangeIsRefused) {
  const Algorithm& adam = *find_algorithm("fedadam").value();
  EXPECT_THAT(check_settings(adam, {{"beta1", 1}}).error().text(),
              HasSubstr("settings.beta1: fedadam wants at least 0"));
  EXPECT_THAT(check_settings(adam, {{"tau", 0}}).error().text(), HasSubstr("settings.tau"));
  EXPECT_THAT(check_settings(adam, {{"beta2", NAN}}).error().text(), HasSubstr("settings.beta2"));
  EXPECT_THAT(check_settings(*find_algorithm("fedprox").value(), {{"mu", -1}}).error().text(),
              HasSubstr("settings.mu"));
}

TEST(Algorithms, TheDefaultsAreThePapers) {
  const Settings adam = check_settings(*find_algorithm("fedadam").value(), {{"rounds", 5}}).value();
  EXPECT_EQ(adam, (Settings{{"server_learning_rate", 0.01}, {"beta1", 0.9}, {"beta2", 0.99}, {"tau", 1e-3}}));
}

}  // namespace
}  // namespace cloister::aggregation

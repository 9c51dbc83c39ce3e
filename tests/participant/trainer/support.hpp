#pragma once
// Made-up manifests and hospitals for the tests of the trainer.

#include <cmath>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <random>

#include "aggregation/algorithm.hpp"
#include "aggregation/model.hpp"
#include "aggregation/sum.hpp"
#include "participant/trainer/learner.hpp"

namespace cloister::participant::trainer::testing {

/// Every setting that local training reads.
inline attest::Settings settings(std::map<std::string, double> other = {}) {
  attest::Settings out{{"rounds", 5},          {"local_epochs", 2}, {"batch_size", 16},
                       {"learning_rate", 0.1}, {"weight_decay", 0}, {"split", 0}};
  for (const auto& [name, value] : other) out[name] = value;
  return out;
}

/// "a" is a number that says something, "b" one that does not, "c" a category that says something. Without a statistics
/// task.
inline attest::Manifest manifest(const std::string& architecture = "logistic-regression",
                                 std::vector<std::uint32_t> hidden = {}) {
  attest::Manifest m;
  m.architecture = architecture;
  m.hidden = std::move(hidden);
  m.columns = {{"a", "number", {}, {"?"}}, {"b", "number", {}, {"?"}}, {"c", "category", {"x", "y"}, {"?"}}};
  m.label_column = "ill";
  m.label_positive = {"1"};
  m.algorithm = "fedavg";
  m.value_bound = 16;
  m.weight_at_most = 1'000;
  m.evaluate_bins = 100;
  m.evaluate_minimum_count = 10;
  m.statistics_minimum_count = 10;
  for (const auto& [name, value] : settings()) m.settings[name] = {0, 1e9, value};
  m.settings["mu"] = {0, 1e9, 0};
  for (const aggregation::Tensor& t : Architecture::of(m).value().tensors())
    m.tensors.push_back({t.name, t.shape, "float32"});
  return m;
}

/// A hospital of n records whose answer follows from a and c, with some gaps.
inline std::string csv(std::size_t n, std::uint64_t seed = 1) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  std::uniform_real_distribution<double> uniform;
  std::string out;
  for (std::size_t i = 0; i < n; ++i) {
    const double a = normal(random), b = normal(random);
    const bool y = uniform(random) < 0.5;
    const bool ill = uniform(random) < 1 / (1 + std::exp(-(2 * a + (y ? 1.5 : -1.5))));
    out += (uniform(random) < 0.1 ? "?" : std::to_string(a)) + "," + std::to_string(b) + "," + (y ? "y" : "x") + "," +
           (ill ? "1" : "0") + "\n";
  }
  return out;
}

inline aggregation::Model initial(const attest::Manifest& m, std::uint64_t seed = 0) {
  const Architecture architecture = Architecture::of(m).value();
  return {aggregation::Schema::make(architecture.tensors()).value(), Network(architecture, seed).values()};
}

inline std::vector<float> floats(View bytes) {
  std::vector<float> out(bytes.size() / sizeof(float));
  std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

/// The sum that the enclave makes of these updates.
inline aggregation::Sum sum(aggregation::UpdateFormat format, const std::vector<SiteUpdate>& updates) {
  const auto shared = std::make_shared<const aggregation::UpdateFormat>(std::move(format));
  auto out = aggregation::Sum::make(shared, {.contributors_at_most = 9, .weight_at_most = 1'000}).value();
  for (const SiteUpdate& u : updates) {
    aggregation::StagedUpdate slot(shared);
    slot.feed(u.bytes).value();
    out.add(std::move(slot).complete(base::sha256(u.bytes)).value(), u.weight).value();
  }
  return out;
}

/// A train round's end in the enclave: these updates move the model.
inline void step(aggregation::ServerOptimizer& optimizer, const std::vector<SiteUpdate>& updates, double bound,
                 aggregation::Model& model) {
  const auto pages = std::make_shared<aggregation::Pages>();
  aggregation::ModelFile before(model.schema, pages), after(model.schema, pages);
  before.append(model.serialize());
  aggregation::apply(optimizer, sum(aggregation::train_format(model.schema, bound).value(), updates), before, after)
      .value();
  model.values.assign(after.values().begin(), after.values().end());
}

}  // namespace cloister::participant::trainer::testing

#pragma once
// Four hospitals, and what plain arithmetic makes of their updates.

#include <cstring>

#include "tests/aggregation/enclave/hospital.hpp"

namespace cloister::tests {

inline const std::vector<std::string> cohort_owners = {"charite", "usz", "ccf", "va"};

/// Weights 100, 200, 300, 400.
struct Cohort {
  explicit Cohort(World& world, const std::map<std::string, Script>& scripts = {}, std::size_t count = 4)
      : gone(world.io) {
    for (std::size_t i = 0; i < count; ++i) {
      const auto script = scripts.find(cohort_owners[i]);
      members.push_back(std::make_unique<Hospital>(world, cohort_owners[i], 100 * (i + 1),
                                                   script == scripts.end() ? Script{} : script->second));
    }
  }
  void take_part(World& world, std::uint64_t runs = 1) {
    left = members.size();
    for (auto& m : members) world.spawn(one(*m, runs), m->owner);
  }
  /// Until each has heard the end of its runs, or given up.
  awaitable<void> all_gone() {
    co_await with_deadline(gone.wait(), std::chrono::steady_clock::now() + std::chrono::seconds(20),
                           "the hospitals to leave");
  }
  Hospital& operator[](std::size_t i) { return *members[i]; }
  const Hospital& operator[](std::size_t i) const { return *members[i]; }

  std::vector<std::unique_ptr<Hospital>> members;
  Event gone;
  std::size_t left = 0;

 private:
  awaitable<void> one(Hospital& hospital, std::uint64_t runs) {
    struct Leaving {
      Cohort& cohort;
      ~Leaving() {
        if (--cohort.left == 0) cohort.gone.set();
      }
    } leaving{*this};
    co_await hospital.take_part(runs);
  }
};

/// FedAvg in plain double arithmetic over those at `indices`; the scripted updates make every product and sum of it
/// exact.
inline aggregation::Model plain_model(const Cohort& cohort, std::size_t width, std::uint32_t rounds,
                                      const std::vector<std::size_t>& indices = {0, 1, 2, 3}) {
  aggregation::Model model = zero_model(width);
  for (std::uint32_t r = 1; r <= rounds; ++r) {
    std::vector<double> sum(model.values.size());
    double weights = 0;
    for (const std::size_t k : indices) {
      const Bytes update =
          cohort[k].update_of({.order = {}, .settings = {}, .task = "train", .train_round = r});
      for (std::size_t i = 0; i < sum.size(); ++i) {
        float delta = 0;
        std::memcpy(&delta, update.data() + 4 * i, 4);
        sum[i] += static_cast<double>(cohort[k].weight) * static_cast<double>(delta);
      }
      weights += static_cast<double>(cohort[k].weight);
    }
    for (std::size_t i = 0; i < sum.size(); ++i)
      model.values[i] = static_cast<float>(static_cast<double>(model.values[i]) + sum[i] / weights);
  }
  return model;
}

inline attest::Settings rounds_of(double n) {
  return {{"rounds", n}};
}

/// Launches, lets everybody in, and hears the run to its end, as every hospital does.
inline awaitable<void> whole_run(World& world, Cohort& cohort, ScriptedCoordinator& coordinator,
                                 attest::RunOrder order) {
  co_await world.launch();
  cohort.take_part(world);
  co_await coordinator.connect();
  co_await coordinator.order(order);
  co_await coordinator.until_end();
  co_await cohort.all_gone();
}

}  // namespace cloister::tests

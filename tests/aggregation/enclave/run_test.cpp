#include <cstring>
#include <gmock/gmock.h>

#include "aggregation/evaluate.hpp"
#include "aggregation/statistics.hpp"
#include "tests/aggregation/enclave/hospital.hpp"

namespace cloister::tests {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;

const std::vector<std::string> owners = {"charite", "usz", "ccf", "va"};

/// Four hospitals with weights 100, 200, 300, 400.
struct Cohort {
  explicit Cohort(World& world, std::map<std::string, Script> scripts = {}) {
    for (std::size_t i = 0; i < owners.size(); ++i)
      members.push_back(std::make_unique<Hospital>(world, owners[i], 100 * (i + 1), scripts[owners[i]]));
  }
  void take_part(World& world, std::uint64_t runs = 1) {
    for (auto& m : members) world.spawn(m->take_part(runs), m->owner);
  }
  Hospital& operator[](std::size_t i) { return *members[i]; }
  std::vector<std::unique_ptr<Hospital>> members;
};

// The mean in plain double arithmetic; every product and sum of it is exact.
aggregation::Model plain_model(const Cohort& cohort, std::size_t width, std::uint32_t rounds) {
  aggregation::Model model = zero_model(width);
  for (std::uint32_t r = 1; r <= rounds; ++r) {
    std::vector<double> sum(model.values.size());
    double weights = 0;
    for (const auto& m : cohort.members) {
      const Bytes update = m->update_of({.order = {}, .settings = {}, .task = "train", .train_round = r, .cohort = {}});
      for (std::size_t i = 0; i < sum.size(); ++i) {
        float delta = 0;
        std::memcpy(&delta, update.data() + 4 * i, 4);
        sum[i] += static_cast<double>(m->weight) * static_cast<double>(delta);
      }
      weights += static_cast<double>(m->weight);
    }
    for (std::size_t i = 0; i < sum.size(); ++i)
      model.values[i] = static_cast<float>(static_cast<double>(model.values[i]) + sum[i] / weights);
  }
  return model;
}

attest::Settings rounds(double n) {
  return {{"rounds", n}};
}

/// Launches, lets everybody in, and hears the run to its end.
awaitable<void> whole_run(World& world, Cohort& cohort, ScriptedCoordinator& coordinator, attest::RunOrder order) {
  co_await world.launch();
  cohort.take_part(world);
  co_await coordinator.connect();
  co_await coordinator.order(order);
  co_await coordinator.until_end();
}

TEST(Run, GivesTheModelThatPlainArithmeticGives) {
  World world;
  Cohort cohort(world);
  ScriptedCoordinator coordinator(world);
  world.run(whole_run(world, cohort, coordinator, world.study->run_order(rounds(3))));
  EXPECT_EQ(coordinator.end->outcome(), "done") << coordinator.end->reason();
  EXPECT_EQ(base::hex(coordinator.model), base::hex(plain_model(cohort, 6, 3).serialize()));
  EXPECT_EQ(coordinator.records.size(), 7u);  // statistics, then a train and an evaluate task, three times
}

}  // namespace
}  // namespace cloister::tests

#pragma once
// A charter's tasks in the engine's terms: what an update of each task looks like, and within which bounds it is
// summed.

#include <map>
#include <memory>
#include <string>

#include "aggregation/algorithm.hpp"
#include "aggregation/statistics.hpp"
#include "attest/charter.hpp"
#include "protocols/round/round.hpp"

namespace cloister::enclave {

/// Immutable, so any thread may read it.
struct Plan {
  aggregation::Schema model;
  const aggregation::Algorithm* algorithm = nullptr;
  std::optional<aggregation::StatisticsPlan> statistics;  ///< when the manifest asks for statistics
  std::map<std::string, std::shared_ptr<const aggregation::UpdateFormat>, std::less<>> formats;  ///< by task
  std::map<std::string, aggregation::Bounds, std::less<>> bounds;                                ///< by task
  std::uint64_t at_least = 0;  ///< the largest `at_least` of all policies: who contributes less is suppressed

  protocols::round::Shapes shapes() const;
};

/// Errors: what the manifest declares and this engine cannot do (an unknown algorithm or statistic, bounds that leave
/// no grid).
Result<Plan> make_plan(const attest::Charter& charter);

}  // namespace cloister::enclave

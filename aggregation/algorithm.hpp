#pragma once
// Algorithms: how the mean of a round's updates becomes the next model. One adds an algorithm as a row of algorithms().

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "aggregation/model.hpp"
#include "aggregation/sum.hpp"

namespace cloister::aggregation {

using Settings = std::map<std::string, double>;

/// The server's half of an algorithm; lives as long as a run. Not thread-safe.
class ServerOptimizer {
 public:
  virtual ~ServerOptimizer() = default;
  /// Moves a run of one tensor's values, from element `from` on, along the round's mean delta (after minus before).
  /// Called for runs of every length, in order, over all tensors, in every train round. Float steps are IEEE
  /// + - * / sqrt, element by element, without contraction: same bits everywhere.
  virtual void step(std::size_t tensor, std::uint64_t from, std::span<float> model,
                    std::span<const double> mean_delta) = 0;
  /// SHA-256 of everything that it carries to the next round, canonical; nothing when it carries nothing.
  virtual std::optional<base::Sha256> state() const = 0;
};

/// A setting that an algorithm reads: of the server, or told to the trainers.
struct AlgorithmSetting {
  std::string_view name;
  double otherwise;  ///< when neither run nor manifest say
  double at_least;
  double below;
  std::string_view what;
};

struct Algorithm {
  std::string_view name;
  std::string_view what;
  std::vector<AlgorithmSetting> settings;
  /// `settings` was checked by check_settings.
  std::unique_ptr<ServerOptimizer> (*optimizer)(const Settings& settings, const Schema& model);
};

/// FedAvg, FedProx, FedAdam. All three reduce by Sum, so all promise the same bits for every order, thread count and
/// kernel.
const std::vector<Algorithm>& algorithms();
/// Errors name the known algorithms.
Result<const Algorithm*> find_algorithm(std::string_view name);

/// The algorithm's settings, defaults filled in; one outside its range is an error. Others' settings are passed over.
Result<Settings> check_settings(const Algorithm& algorithm, const Settings& settings);

/// One train round: the sum, which is consumed, makes `next` of `model`, block by block. Refused like Sum::report, and
/// for a step that would make a value infinite or NaN: `next` is then of no use, and the optimizer's state is spent.
Result<void> apply(ServerOptimizer& optimizer, Sum&& sum, const ModelFile& model, ModelFile& next);

}  // namespace cloister::aggregation

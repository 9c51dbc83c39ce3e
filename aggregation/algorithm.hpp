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
  /// Moves one tensor of the model along the round's mean delta (after minus before). Called once for each tensor in
  /// order, in every train round. Float steps are IEEE + - * / sqrt, element by element, without contraction: same bits
  /// everywhere.
  virtual void step(std::size_t tensor, std::span<float> model, std::span<const double> mean_delta) = 0;
  /// Everything that it carries to the next round, canonical; empty when it carries nothing.
  virtual Bytes state() const = 0;
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

/// One train round: the report becomes the next model. Refuses a step that would make a value infinite or NaN and then
/// leaves `model` as it was; the optimizer's state is then spent.
Result<void> apply(ServerOptimizer& optimizer, const Report& report, Model& model);

/// Digest of the optimizer's state for the receipt: SHA-256 of state(), of no bytes when there is none.
base::Sha256 state_digest(const ServerOptimizer& optimizer);

}  // namespace cloister::aggregation

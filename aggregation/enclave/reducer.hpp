#pragma once
// The engine's part of a run: the model, the sum of the round under way and the server optimizer. All but `make` is
// called on one pool thread, in the order in which the round machine gave its steps.

#include <map>
#include <memory>
#include <string>

#include "aggregation/enclave/plan.hpp"
#include "aggregation/enclave/uploads.hpp"
#include "aggregation/model.hpp"

namespace cloister::enclave {

/// What a round came to. Whatever its task does not make stays empty.
struct Reduced {
  std::shared_ptr<const Bytes> model;     ///< train: the next model's file
  base::Sha256 model_digest{};            ///< of it
  std::optional<base::Sha256> optimizer;  ///< train, when the optimizer carries a state
  Bytes value;                            ///< statistics, evaluate: canonical encoding
};

class Reducer {
 public:
  /// `model`: the initial model's file. Errors: its digest is not the charter's, its schema not the manifest's,
  /// settings outside what the algorithm takes.
  static Result<Reducer> make(std::shared_ptr<const Plan> plan, const attest::Manifest& manifest,
                              const attest::Settings& settings, View model);

  /// An empty sum for a task; whatever the round before left is dropped.
  Result<void> begin(const std::string& task);
  /// Gives the update's digest once every check has passed. It does not count yet.
  Result<base::Sha256> complete(const std::string& owner, WholeUpdate update);
  /// Adds what `complete` accepted. An error leaves the sum as it was.
  Result<void> add(const std::string& owner, std::uint64_t weight);
  void drop(const std::string& owner) { complete_.erase(owner); }
  Result<Reduced> reduce(const std::string& task);

  std::string_view kernel_set() const { return kernels_.name; }

 private:
  /// A complete update keeps the memory slot that it was staged in.
  struct Complete {
    aggregation::CompleteUpdate update;
    WholeUpdate lease;
  };
  Result<Reduced> train(const aggregation::Report& report);

  std::shared_ptr<const Plan> plan_;
  aggregation::Kernels kernels_ = aggregation::fastest_kernels();
  std::unique_ptr<aggregation::ServerOptimizer> optimizer_;
  std::unique_ptr<aggregation::Model> model_;
  std::optional<aggregation::Sum> sum_;
  std::map<std::string, Complete> complete_;
};

}  // namespace cloister::enclave

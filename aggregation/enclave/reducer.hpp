#pragma once
// The engine's part of a run: the model, the sum of the round under way and the server optimizer. All but `make` is
// called on one pool thread, in the order in which the round machine gave its steps.

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "aggregation/enclave/plan.hpp"
#include "aggregation/enclave/uploads.hpp"
#include "aggregation/model.hpp"

namespace cloister::enclave {

/// What a round came to. Whatever its task does not make stays empty.
struct Reduced {
  std::shared_ptr<const aggregation::ModelFile> model;  ///< train: the next one
  std::optional<base::Sha256> optimizer;                ///< train, when the optimizer carries a state
  Bytes value;                                          ///< statistics, evaluate: canonical encoding
};

class Reducer {
 public:
  /// `model`: the initial model's file. Errors: its digest is not the charter's, its schema not the manifest's,
  /// settings outside what the algorithm takes.
  static Result<Reducer> make(std::shared_ptr<const Plan> plan, const attest::Manifest& manifest,
                              const attest::Settings& settings, std::shared_ptr<const aggregation::ModelFile> model);

  /// An empty sum for a task; whatever the round before left is dropped.
  Result<void> begin(const std::string& task);
  /// Gives the update's digest once every check has passed. It does not count yet.
  Result<base::Sha256> complete(const std::string& owner, WholeUpdate update);
  /// Adds what `complete` accepted, or, while memory for words is not there yet, holds it back until it is. An error
  /// leaves the sum as it was, unless a sealed file was lost half-way: then nothing comes of it any more.
  Result<void> add(const std::string& owner, std::uint64_t weight);
  void drop(const std::string& owner) { complete_.erase(owner); }
  Result<Reduced> reduce(const std::string& task);

  std::string_view kernel_set() const { return kernels_.name; }

 private:
  /// A complete update keeps the memory slot that it was staged in.
  struct Complete {
    aggregation::CompleteUpdate update;
    WholeUpdate lease;
    std::uint64_t weight = 1;
  };
  Result<void> add(Complete complete);
  Result<void> add_waiting();
  Result<Reduced> train();

  std::shared_ptr<const Plan> plan_;
  aggregation::Kernels kernels_ = aggregation::fastest_kernels();
  std::unique_ptr<aggregation::ServerOptimizer> optimizer_;
  std::shared_ptr<const aggregation::ModelFile> model_;
  std::optional<aggregation::Sum> sum_;
  std::map<std::string, Complete> complete_;
  std::vector<Complete> waiting_;      ///< in sealed files, until the sum has its words
  std::vector<WholeUpdate> in_words_;  ///< the sum's words stand in the memory of two slots
};

}  // namespace cloister::enclave

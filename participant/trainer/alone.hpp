#pragma once
// Training without anybody: what a hospital gets from its own records, or, where an example may pool them, from
// everybody's. The yardstick that a federation is measured with; same features, same steps, same code.

#include <set>
#include <string>
#include <vector>

#include "participant/trainer/learner.hpp"

namespace cloister::participant::trainer {

struct File {
  std::string path;
  data::Table table;
};
Result<File> load(const attest::Manifest& manifest, const std::string& path);

struct AloneOptions {
  std::set<std::string> suppress;  ///< columns that leave the model, as the enclave's suppression makes them
  std::uint64_t seed = 0;          ///< of the initial weights
};

struct Alone {
  aggregation::Model model;
  std::optional<aggregation::Statistics> statistics;
  std::vector<std::string> without;  ///< columns that left the model
};

/// Trains on the training records of all files together: rounds times local_epochs epochs, with statistics of these
/// records and the manifest's minimum count over all of them. `settings`: complete.
Result<Alone> train_alone(const attest::Manifest& manifest, const attest::Settings& settings,
                          const std::vector<File>& files, const AloneOptions& options);

/// A test record's score.
struct Score {
  std::size_t file = 0;  ///< index
  std::uint8_t label = 0;
  float score = 0;
};

/// Every test record of every file.
Result<std::vector<Score>> score(const attest::Manifest& manifest, const attest::Settings& settings,
                                 const aggregation::Model& model,
                                 const std::optional<aggregation::Statistics>& statistics,
                                 const std::vector<File>& files);

/// Over the scores themselves, ties half; nothing without both classes.
std::optional<double> auc(std::vector<Score> scores);

}  // namespace cloister::participant::trainer

#pragma once
// One site's side of the three tasks: records in, the bytes of an update out. Knows no process, descriptor or message.

#include <optional>
#include <string>

#include "aggregation/model.hpp"
#include "participant/data/features.hpp"
#include "participant/data/split.hpp"
#include "participant/trainer/network.hpp"

namespace cloister::participant::trainer {

struct SiteUpdate {
  Bytes bytes;               ///< in the task's format
  std::uint64_t weight = 1;  ///< training records for train
};

/// Not thread-safe.
class Learner {
 public:
  /// `settings`: the run's, any subset; the manifest's defaults fill the rest. `csv`: the site's file; `name` stands in
  /// errors.
  static Result<Learner> make(const attest::Manifest& manifest, const attest::Settings& settings, std::string_view csv,
                              const std::string& name);

  std::size_t records() const { return table_.records(); }
  std::size_t train_records() const { return split_.train.size(); }
  std::size_t test_records() const { return split_.test.size(); }

  // Each checks its own result as the enclave will: a value out of its range is told here, before a byte leaves.

  /// Of the training records.
  Result<SiteUpdate> statistics() const;
  /// Deltas after local training from `model` (a model file), on the training records.
  Result<SiteUpdate> train(std::uint32_t round, const std::optional<aggregation::Statistics>& statistics,
                           View model) const;
  /// Histograms of the test records' scores.
  Result<SiteUpdate> evaluate(const std::optional<aggregation::Statistics>& statistics, View model) const;

 private:
  Learner(attest::Manifest manifest, attest::Settings settings, Architecture architecture, aggregation::Schema schema,
          data::Table table);
  Result<aggregation::Model> parse(View model) const;

  attest::Manifest manifest_;
  attest::Settings settings_;
  Architecture architecture_;
  aggregation::Schema schema_;
  data::Table table_;
  data::Split split_;
};

/// The run's settings as local training reads them; `round` makes the order of the records another one in each.
Training training_of(const attest::Settings& settings, std::uint32_t round);

/// The labels of these rows.
std::vector<std::uint8_t> labels_of(const data::Table& table, const std::vector<std::size_t>& rows);

}  // namespace cloister::participant::trainer

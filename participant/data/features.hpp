#pragma once
// Records as the numbers that a model takes. Their number and order follow from the manifest alone, so that the model's
// schema stands in the charter; what a column contributes follows from the statistics in force.
//
//   number    the standardised value (missing: 0, the mean), then 1 when it is missing
//   category  1 at the record's category, then 1 when it is missing
//   a column that the enclave suppressed: zeros
//   an image (cnn): the columns are pixels, each one value (missing: 0), no flags

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "participant/data/table.hpp"

namespace cloister::participant::data {

/// Row after row.
struct Matrix {
  std::size_t rows = 0, columns = 0;
  std::vector<float> values;
};

/// "age", "age missing", "sex = 1", ...: one name per feature.
std::vector<std::string> feature_names(const attest::Manifest& manifest);

class Features {
 public:
  /// `statistics`: those in force for the run. A column that they do not mention goes in as it is. Errors: the manifest
  /// has a statistics task and there are none; they name a column otherwise than the manifest does.
  static Result<Features> make(const attest::Manifest& manifest,
                               const std::optional<aggregation::Statistics>& statistics);

  std::size_t width() const { return width_; }
  const std::vector<std::string>& without() const { return without_; }  ///< columns that left the model
  Matrix of(const Table& table, std::span<const std::size_t> rows) const;

 private:
  struct Column {
    bool category = false, used = true;
    std::size_t categories = 0;
    double mean = 0, scale = 1;
  };
  std::size_t width_of(const Column& column) const;
  void write(const Column& column, double cell, float* out) const;

  std::vector<Column> columns_;
  bool image_ = false;
  std::size_t width_ = 0;
  std::vector<std::string> without_;
};

}  // namespace cloister::participant::data

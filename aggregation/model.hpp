#pragma once
// A model: a schema of float32 tensors and their values, and its file (docs/formats.md, "Models").

#include <vector>

#include "aggregation/schema.hpp"

namespace cloister::aggregation {

struct Model {
  Schema schema;
  std::vector<float> values;  ///< schema.elements() finite numbers, in tensor order

  /// The file's bytes; its digest is the model's.
  Bytes serialize() const;
  base::Sha256 digest() const;
  std::span<float> tensor(std::size_t index);
  std::span<const float> tensor(std::size_t index) const;
};

/// What stands before the values in a model's file.
Bytes model_header(const Schema& schema);
/// Bytes of a model's whole file.
std::uint64_t model_length(const Schema& schema);

/// Refuses another dtype than float32, a wrong length, NaN and infinity.
Result<Model> parse_model(View file);

}  // namespace cloister::aggregation

#pragma once
// A model: a schema of float32 tensors and their values, and its file (docs/formats.md, "Models").

#include <optional>
#include <vector>

#include "aggregation/memory.hpp"
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

/// A model's file as the aggregator holds it: written once from its start to its end, digested meanwhile, then read by
/// whoever sends it or makes the next one of it. No other copy of the values exists.
class ModelFile {
 public:
  ModelFile(Schema schema, std::shared_ptr<Pages> pages);
  ModelFile(ModelFile&&) noexcept = default;

  /// The file's next bytes; asserts that they fit.
  void append(View bytes);
  std::uint64_t size() const { return header_.size() + schema_.bytes(); }
  /// Once it is whole:
  View bytes() const { return {memory_.data() + begin_, size()}; }
  std::span<const float> values() const {
    return {reinterpret_cast<const float*>(bytes().data() + header_.size()), schema_.elements()};
  }
  const base::Sha256& digest() const { return *digest_; }
  /// Is this a file of the schema's model, all of whose values are finite? For one that somebody else has written.
  Result<void> check() const;

  bool whole() const { return digest_.has_value(); }
  const Bytes& header() const { return header_; }  ///< what its file begins with
  const Schema& schema() const { return schema_; }
  const std::shared_ptr<Pages>& pages() const { return memory_.pages(); }

 private:
  Schema schema_;
  Bytes header_;
  std::size_t begin_;  ///< so that the values are aligned
  Memory memory_;
  std::uint64_t have_ = 0;
  base::Hasher hasher_;
  std::optional<base::Sha256> digest_;
};

}  // namespace cloister::aggregation

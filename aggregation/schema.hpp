#pragma once
// What the bytes of a model or an update mean: tensors in order, by name, dtype and shape (docs/formats.md, "Models").

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.hpp"
#include "base/crypto.hpp"

namespace cloister::aggregation {

enum class Dtype { float32, float64, int64 };

std::string_view name(Dtype dtype);
Result<Dtype> parse_dtype(std::string_view name);
std::size_t size(Dtype dtype);  ///< bytes of an element

struct Tensor {
  std::string name;
  std::vector<std::uint64_t> shape;  ///< empty: a scalar
  Dtype dtype = Dtype::float32;

  std::uint64_t elements() const;  ///< the product of the shape; a tensor of a Schema has at least one
  std::uint64_t bytes() const { return elements() * size(dtype); }
  bool operator==(const Tensor&) const = default;
};

/// Immutable; values lie in tensor order without padding, little endian. Thread-safe.
class Schema {
 public:
  /// Refuses no tensors, an empty or repeated name, a dimension of zero, and more than 2^40 bytes in all.
  static Result<Schema> make(std::vector<Tensor> tensors);
  /// From the canonical encoding.
  static Result<Schema> parse(View bytes);

  const std::vector<Tensor>& tensors() const { return tensors_; }
  std::uint64_t elements() const { return elements_; }
  std::uint64_t bytes() const { return bytes_; }                               ///< of all values
  std::uint64_t offset(std::size_t tensor) const { return offsets_[tensor]; }  ///< of its first value, in bytes
  std::size_t index(std::string_view tensor) const;  ///< asserts that there is one of this name

  Bytes serialize() const;
  base::Sha256 digest() const;
  bool operator==(const Schema& other) const { return tensors_ == other.tensors_; }

 private:
  explicit Schema(std::vector<Tensor> tensors);
  std::vector<Tensor> tensors_;
  std::vector<std::uint64_t> offsets_;
  std::uint64_t elements_ = 0, bytes_ = 0;
};

}  // namespace cloister::aggregation

#include "aggregation/schema.hpp"

#include <fmt/format.h>
#include <set>

#include "base/encoding.hpp"

namespace cloister::aggregation {
namespace {

constexpr std::uint64_t bytes_at_most = std::uint64_t{1} << 40;
constexpr std::uint32_t tensors_at_most = 1 << 16;
constexpr std::uint32_t dimensions_at_most = 8;

/// The product of the shape, or nothing when it leaves `bytes_at_most` behind or is zero.
bool within_bounds(const Tensor& tensor) {
  std::uint64_t n = size(tensor.dtype);
  for (const std::uint64_t d : tensor.shape) {
    if (d == 0 || d > bytes_at_most / n) return false;
    n *= d;
  }
  return true;
}

}  // namespace

std::string_view name(Dtype dtype) {
  switch (dtype) {
    case Dtype::float32:
      return "float32";
    case Dtype::float64:
      return "float64";
    case Dtype::int64:
      return "int64";
  }
  std::abort();
}

Result<Dtype> parse_dtype(std::string_view text) {
  for (const Dtype dtype : {Dtype::float32, Dtype::float64, Dtype::int64})
    if (text == name(dtype)) return dtype;
  return base::unsupported("dtype", fmt::format("wanted float32, float64 or int64, found \"{}\"", text));
}

std::size_t size(Dtype dtype) {
  return dtype == Dtype::float32 ? 4 : 8;
}

std::uint64_t Tensor::elements() const {
  std::uint64_t n = 1;
  for (const std::uint64_t d : shape) n *= d;
  return n;
}

Schema::Schema(std::vector<Tensor> tensors) : tensors_(std::move(tensors)) {
  for (const Tensor& tensor : tensors_) {
    offsets_.push_back(bytes_);
    elements_ += tensor.elements();
    bytes_ += tensor.bytes();
  }
}

Result<Schema> Schema::make(std::vector<Tensor> tensors) {
  if (tensors.empty()) return base::malformed("schema", "has no tensors; a model or an update has at least one");
  if (tensors.size() > tensors_at_most)
    return base::malformed("schema",
                           fmt::format("wanted at most {} tensors, found {}", tensors_at_most, tensors.size()));
  std::set<std::string_view> names;
  std::uint64_t total = 0;
  for (const Tensor& tensor : tensors) {
    const std::string where = "schema." + tensor.name;
    if (tensor.name.empty()) return base::malformed("schema", "a tensor has no name");
    if (!names.insert(tensor.name).second) return base::malformed(where, "two tensors have this name");
    if (tensor.shape.size() > dimensions_at_most)
      return base::malformed(
          where, fmt::format("wanted at most {} dimensions, found {}", dimensions_at_most, tensor.shape.size()));
    if (!within_bounds(tensor) || (total += tensor.bytes()) > bytes_at_most)
      return base::malformed(where, "wanted dimensions of at least 1 and at most 2^40 bytes in all tensors together");
  }
  return Schema(std::move(tensors));
}

Result<Schema> Schema::parse(View bytes) {
  base::Reader r("schema", bytes);
  std::vector<Tensor> tensors;
  const std::uint32_t n = r.u32("count");
  if (n > tensors_at_most) r.fail("count", fmt::format("wanted at most {}, found {}", tensors_at_most, n));
  for (std::uint32_t i = 0; i < n && r.ok(); ++i) {
    Tensor tensor;
    tensor.name = r.string("name", 1024);
    const std::string dtype = r.string("dtype", 32);
    const std::uint32_t dimensions = r.u32("dimensions");
    if (dimensions > dimensions_at_most)
      r.fail("dimensions", fmt::format("wanted at most {}, found {}", dimensions_at_most, dimensions));
    for (std::uint32_t d = 0; d < dimensions && r.ok(); ++d) tensor.shape.push_back(r.u64("dimension"));
    if (!r.ok()) break;
    const auto known = parse_dtype(dtype);
    if (!known) return known.error();
    tensor.dtype = *known;
    tensors.push_back(std::move(tensor));
  }
  if (const auto end = r.finish(); !end) return end.error();
  return make(std::move(tensors));
}

std::size_t Schema::index(std::string_view tensor) const {
  for (std::size_t i = 0; i < tensors_.size(); ++i)
    if (tensors_[i].name == tensor) return i;
  std::abort();
}

Bytes Schema::serialize() const {
  base::Writer w;
  w.u32(static_cast<std::uint32_t>(tensors_.size()));
  for (const Tensor& tensor : tensors_) {
    w.field(tensor.name).field(name(tensor.dtype)).u32(static_cast<std::uint32_t>(tensor.shape.size()));
    for (const std::uint64_t d : tensor.shape) w.u64(d);
  }
  return std::move(w).bytes();
}

base::Sha256 Schema::digest() const {
  return base::sha256(serialize());
}

}  // namespace cloister::aggregation

#include "aggregation/model.hpp"

#include <bit>
#include <cmath>
#include <cstring>
#include <fmt/format.h>
#include <limits>

#include "aggregation/kernels/kernels.hpp"
#include "base/encoding.hpp"

namespace cloister::aggregation {
namespace {

static_assert(std::endian::native == std::endian::little, "values are little endian in files and in memory");
constexpr std::string_view magic = "cloister model 1\n";
constexpr std::size_t schema_at_most = 4 << 20;

View bytes_of(const std::vector<float>& values) {
  return {reinterpret_cast<const std::uint8_t*>(values.data()), values.size() * sizeof(float)};
}

constexpr std::size_t alignment = 64;

Error not_finite(const Tensor& tensor, std::size_t element) {
  return base::malformed("model",
                         fmt::format("tensor \"{}\", element {}: wanted a finite number", tensor.name, element));
}

Result<void> check(const Model& model) {
  for (std::size_t t = 0; t < model.schema.tensors().size(); ++t) {
    const std::span<const float> values = model.tensor(t);
    for (std::size_t i = 0; i < values.size(); ++i)
      if (!std::isfinite(values[i])) return not_finite(model.schema.tensors()[t], i);
  }
  return {};
}

}  // namespace

std::span<float> Model::tensor(std::size_t index) {
  return {values.data() + schema.offset(index) / sizeof(float), schema.tensors()[index].elements()};
}

std::span<const float> Model::tensor(std::size_t index) const {
  return const_cast<Model*>(this)->tensor(index);
}

Bytes model_header(const Schema& schema) {
  return base::Writer().raw(base::view(magic)).field(schema.serialize()).bytes();
}

std::uint64_t model_length(const Schema& schema) {
  return model_header(schema).size() + schema.bytes();
}

Bytes Model::serialize() const {
  return base::Writer().raw(model_header(schema)).raw(bytes_of(values)).bytes();
}

base::Sha256 Model::digest() const {
  base::Hasher hasher;
  hasher.add(model_header(schema)).add(bytes_of(values));
  return std::move(hasher).finish();
}

Result<Model> parse_model(View file) {
  base::Reader r("model", file);
  const View found = r.raw("magic", magic.size());
  if (r.ok() && base::text(found) != magic)
    return base::unsupported("model", "wanted \"cloister model 1\" at its start; this is another format or version");
  const View encoded = r.field("schema", schema_at_most);
  if (!r.ok()) return r.finish().error();
  auto schema = Schema::parse(encoded);
  if (!schema) return schema.error();
  for (const Tensor& tensor : schema->tensors())
    if (tensor.dtype != Dtype::float32)
      return base::unsupported("model." + tensor.name, fmt::format("wanted float32, found {}", name(tensor.dtype)));
  if (r.left() != schema->bytes())
    return base::malformed("model", fmt::format("wanted {} bytes of values, found {}", schema->bytes(), r.left()));
  Model model{std::move(*schema), {}};
  model.values.resize(model.schema.elements());
  const View values = r.raw("values", r.left());
  std::memcpy(model.values.data(), values.data(), values.size());
  if (const auto ok = check(model); !ok) return ok.error();
  return model;
}

ModelFile::ModelFile(Schema schema, std::shared_ptr<Pages> pages)
    : schema_(std::move(schema)),
      header_(model_header(schema_)),
      begin_((alignment - header_.size() % alignment) % alignment),
      memory_(begin_ + size(), std::move(pages)) {}

void ModelFile::append(View bytes) {
  if (bytes.size() > size() - have_) std::abort();
  memory_.reach(begin_ + have_ + bytes.size());
  std::memcpy(memory_.data() + begin_ + have_, bytes.data(), bytes.size());
  hasher_.add(bytes);
  have_ += bytes.size();
  if (have_ == size()) digest_ = std::move(hasher_).finish();
}

Result<void> ModelFile::check() const {
  if (!base::equal(bytes().first(header_.size()), header_))
    return base::malformed("model", "wanted a file of the schema's tensors, found another");
  constexpr float most = std::numeric_limits<float>::max();
  for (std::size_t t = 0; t < schema_.tensors().size(); ++t) {
    const auto tensor = values().subspan(schema_.offset(t) / sizeof(float), schema_.tensors()[t].elements());
    if (const std::size_t at = fastest_kernels().first_outside(tensor, -most, most); at != tensor.size())
      return not_finite(schema_.tensors()[t], at);
  }
  return {};
}

}  // namespace cloister::aggregation

#include "participant/trainer/architecture.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "participant/data/features.hpp"

namespace cloister::participant::trainer {
namespace {

using aggregation::Dtype;
using aggregation::Tensor;

void add_layer(std::vector<Tensor>& out, const std::string& name, std::vector<std::uint64_t> weight) {
  const std::uint64_t width = weight.front();
  out.push_back({name + ".weight", std::move(weight), Dtype::float32});
  out.push_back({name + ".bias", {width}, Dtype::float32});
}

std::string text(const std::vector<Tensor>& tensors, std::size_t i) {
  if (i >= tensors.size()) return "none";
  return fmt::format("{} [{}] {}", tensors[i].name, fmt::join(tensors[i].shape, ", "), name(tensors[i].dtype));
}

}  // namespace

Result<Architecture> Architecture::of(const attest::Manifest& manifest) {
  Architecture out;
  out.features = data::feature_names(manifest).size();
  out.hidden.assign(manifest.hidden.begin(), manifest.hidden.end());
  if (manifest.architecture == "logistic-regression") return out;
  if (manifest.architecture == "mlp") {
    out.kind = Kind::mlp;
    return out;
  }
  if (manifest.architecture != "cnn")
    return base::unsupported("model.architecture", fmt::format("wanted logistic-regression, mlp or cnn, found \"{}\"",
                                                               manifest.architecture));
  out.kind = Kind::cnn;
  out.image.assign(manifest.image.begin(), manifest.image.end());
  if (out.image.size() != 3 || out.image[0] * out.image[1] * out.image[2] != out.features)
    return base::malformed("model.image", fmt::format("wanted channels, height and width of {} pixels, one per column, "
                                                      "found [{}]",
                                                      out.features, fmt::join(out.image, ", ")));
  if (out.last_width() == 0)
    return base::malformed("model.hidden", fmt::format("{} times pooling leaves nothing of {} x {} pixels",
                                                       out.hidden.size(), out.image[1], out.image[2]));
  return out;
}

std::uint64_t Architecture::last_width() const {
  if (kind == Kind::logistic_regression) return features;
  if (kind == Kind::mlp) return hidden.empty() ? features : hidden.back();
  std::uint64_t height = image[1], width = image[2];
  for (std::size_t i = 0; i < hidden.size(); ++i) height /= 2, width /= 2;
  return (hidden.empty() ? image[0] : hidden.back()) * height * width;
}

std::vector<Tensor> Architecture::tensors() const {
  std::vector<Tensor> out;
  if (kind != Kind::logistic_regression) {
    std::uint64_t before = kind == Kind::cnn ? image[0] : features;
    for (std::size_t i = 0; i < hidden.size(); ++i) {
      if (kind == Kind::cnn)
        add_layer(out, fmt::format("conv.{}", i), {hidden[i], before, 3, 3});
      else
        add_layer(out, fmt::format("hidden.{}", i), {hidden[i], before});
      before = hidden[i];
    }
  }
  add_layer(out, "linear", {1, last_width()});
  return out;
}

Result<aggregation::Schema> pinned_schema(const Architecture& architecture, const attest::Manifest& manifest) {
  const std::vector<Tensor> wanted = architecture.tensors();
  std::vector<Tensor> pinned;
  for (const attest::Tensor& t : manifest.tensors) {
    const auto dtype = aggregation::parse_dtype(t.dtype);
    if (!dtype) return dtype.error();
    pinned.push_back({t.name, t.shape, *dtype});
  }
  for (std::size_t i = 0; i < std::max(wanted.size(), pinned.size()); ++i)
    if (i >= wanted.size() || i >= pinned.size() || !(wanted[i] == pinned[i]))
      return base::malformed(
          "model.tensors",
          fmt::format("tensor {}: a {} of {} features has {}, the manifest pins {}; "
                      "`cloister-trainer init` prints the right ones",
                      i, manifest.architecture, architecture.features, text(wanted, i), text(pinned, i)));
  return aggregation::Schema::make(wanted);
}

std::string tensors_toml(const aggregation::Schema& schema) {
  std::string out;
  for (const Tensor& t : schema.tensors())
    out += fmt::format("[[model.tensors]]\nname = \"{}\"\nshape = [{}]\ndtype = \"{}\"\n", t.name,
                       fmt::join(t.shape, ", "), name(t.dtype));
  return out;
}

}  // namespace cloister::participant::trainer

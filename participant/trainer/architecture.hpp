#pragma once
// The built-in architectures: what a manifest declares, as the list of tensors that its charter pins. No libtorch here.
//
//   logistic-regression   linear.weight [1, features], linear.bias [1]
//   mlp                   hidden.i.weight [width, before], hidden.i.bias [width] with ReLU after each; then linear
//   cnn                   conv.i.weight [channels, before, 3, 3], conv.i.bias [channels], each padded by 1 and followed
//   by ReLU and 2x2
//                         max pooling; then linear over what is left of the image
//
// The one output is the logit of "positive".

#include <string>
#include <vector>

#include "aggregation/schema.hpp"
#include "attest/manifest.hpp"

namespace cloister::participant::trainer {

struct Architecture {
  enum class Kind { logistic_regression, mlp, cnn };
  Kind kind = Kind::logistic_regression;
  std::uint64_t features = 0;
  std::vector<std::uint64_t> hidden;  ///< mlp: widths; cnn: channels
  std::vector<std::uint64_t> image;   ///< cnn: channels, height, width

  /// Errors: an image that has not as many pixels as the manifest has columns, or that pooling leaves nothing of.
  static Result<Architecture> of(const attest::Manifest& manifest);
  /// In the order of the parameters.
  std::vector<aggregation::Tensor> tensors() const;
  /// Features of the last, linear layer.
  std::uint64_t last_width() const;
};

/// The schema of `architecture`, when it is the one that the manifest pins; else which tensor differs.
Result<aggregation::Schema> pinned_schema(const Architecture& architecture, const attest::Manifest& manifest);

/// The [[model.tensors]] blocks of a manifest.
std::string tensors_toml(const aggregation::Schema& schema);

}  // namespace cloister::participant::trainer

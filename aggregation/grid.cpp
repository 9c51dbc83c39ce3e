#include "aggregation/grid.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <optional>

namespace cloister::aggregation {
namespace {

__extension__ typedef unsigned __int128 Wide;
constexpr int fraction_bits_at_most = 40;
constexpr Wide ring = Wide{1} << 63;
constexpr Wide square_ring = Wide{1} << 127;

/// ceil(R * 2^f), when it fits 62 bits. The product is exact: the factor is a power of two.
std::optional<std::uint64_t> on_grid(double magnitude, int f) {
  const double scaled = std::ceil(std::ldexp(magnitude, f));
  if (!(scaled < std::ldexp(1.0, 62))) return std::nullopt;
  return static_cast<std::uint64_t>(scaled);
}

bool sum_fits(std::uint64_t q, const Bounds& b) {
  const Wide weight = static_cast<Wide>(b.contributors_at_most) * b.weight_at_most;  // below 2^128: both are 64-bit
  if (b.noise_tail >= ring) return false;
  return q == 0 || weight <= (ring - 1 - b.noise_tail) / q;
}

bool squares_fit(std::uint64_t q, std::uint64_t d) {
  return q == 0 || static_cast<Wide>(q) * q <= (square_ring - 1) / std::max<std::uint64_t>(d, 1);
}

}  // namespace

double Range::magnitude() const {
  return std::max(std::fabs(at_least), std::fabs(at_most));
}

double TensorGrid::rounding_error() const {
  return std::ldexp(1.0, -(fraction_bits + 1));
}

Result<int> fraction_bits(double magnitude, std::uint64_t d, const Bounds& bounds) {
  for (int f = fraction_bits_at_most; f >= 0; --f) {
    const auto q = on_grid(magnitude, f);
    if (q && sum_fits(*q, bounds) && squares_fit(*q, d)) return f;
  }
  return base::unsupported("grid",
                           fmt::format("{} contributors of weight up to {} with values up to {} do not fit an exact "
                                       "64-bit sum; lower the weight or the value bound",
                                       bounds.contributors_at_most, bounds.weight_at_most, magnitude));
}

Result<UpdateFormat> train_format(const Schema& model, double value_bound) {
  if (!std::isfinite(value_bound) || value_bound <= 0)
    return base::malformed("value_bound", fmt::format("wanted a finite number above 0, found {}", value_bound));
  for (const Tensor& tensor : model.tensors())
    if (tensor.dtype != Dtype::float32)
      return base::unsupported("tensor " + tensor.name, fmt::format("wanted float32, found {}", name(tensor.dtype)));
  return UpdateFormat{model, std::vector<Range>(model.tensors().size(), Range{-value_bound, value_bound})};
}

Result<Grid> Grid::make(const UpdateFormat& format, const Bounds& bounds) {
  if (format.ranges.size() != format.schema.tensors().size()) std::abort();
  if (bounds.contributors_at_most == 0 || bounds.weight_at_most == 0)
    return base::malformed("grid", "wanted at least one contributor and a weight of at least 1");
  Grid grid;
  // The coordinates that a norm takes together: those of the model. Statistics (float64, int64) are never clipped.
  std::uint64_t d = 0;
  for (const Tensor& tensor : format.schema.tensors()) d += tensor.dtype == Dtype::float32 ? tensor.elements() : 0;
  for (std::size_t i = 0; i < format.ranges.size(); ++i) {
    const bool integer = format.schema.tensors()[i].dtype == Dtype::int64;
    const double magnitude = format.ranges[i].magnitude();
    const auto f = fraction_bits(magnitude, format.schema.tensors()[i].dtype == Dtype::float32 ? d : 1, bounds);
    if (!f) return base::unsupported("tensor " + format.schema.tensors()[i].name, f.error().what);
    const int used = integer ? 0 : *f;
    grid.tensors.push_back({used, *on_grid(magnitude, used)});
  }
  return grid;
}

std::string Grid::explain() const {
  int lowest = fraction_bits_at_most;
  for (const TensorGrid& tensor : tensors) lowest = std::min(lowest, tensor.fraction_bits);
  const TensorGrid coarsest{lowest, 0};
  // float32 rounds a value near 0.05 by up to 2^-29, two in a billion; at 2^-26 the grid is no finer than that.
  return fmt::format("values are summed exactly after rounding to 2^-{}: one value is off by at most {:.2g}{}", lowest,
                     coarsest.rounding_error(),
                     lowest <= 26 ? ", about the rounding of float32 itself or coarser" : "");
}

}  // namespace cloister::aggregation

// Plain loops: what every other kernel set is tested against.

#include <cmath>

#include "aggregation/kernels/cpu/cpu.hpp"

namespace cloister::aggregation::cpu {
namespace {

std::size_t first_outside(std::span<const float> values, float low, float high) {
  for (std::size_t i = 0; i < values.size(); ++i)
    if (!(values[i] >= low && values[i] <= high)) return i;  // written so that NaN is outside
  return values.size();
}

void accumulate(std::span<std::uint64_t> sum, std::span<const float> values, int fraction_bits, std::uint64_t weight) {
  const double scale = std::ldexp(1.0, fraction_bits);
  for (std::size_t i = 0; i < values.size(); ++i) {
    // Exact: a float times a power of two is a double. llrint rounds ties to even in the default rounding mode.
    const long long q = std::llrint(static_cast<double>(values[i]) * scale);
    sum[i] += weight * static_cast<std::uint64_t>(q);
  }
}

void add(std::span<std::uint64_t> sum, std::span<const std::uint64_t> other) {
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += other[i];
}

}  // namespace

Kernels reference() {
  return {"cpu-reference", first_outside, accumulate, add};
}

}  // namespace cloister::aggregation::cpu

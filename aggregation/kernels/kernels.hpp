#pragma once
// The loops over whole updates. Every kernel set gives the same bits: the reference says which, the others are faster.
// Thread-safe: functions without state.

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace cloister::aggregation {

struct Kernels {
  std::string_view name;  ///< "cpu-reference", "cpu-avx2": goes into receipts

  /// The index of the first value that is NaN or outside [low, high]; values.size() when there is none.
  std::size_t (*first_outside)(std::span<const float> values, float low, float high);

  /// sum[i] += weight * round(values[i] * 2^fraction_bits) in Z_2^64, ties to even. Wants as many values as words, and
  /// |values[i]| * 2^fraction_bits < 2^62.
  void (*accumulate)(std::span<std::uint64_t> sum, std::span<const float> values, int fraction_bits,
                     std::uint64_t weight);

  /// sum[i] += other[i] in Z_2^64.
  void (*add)(std::span<std::uint64_t> sum, std::span<const std::uint64_t> other);
};

/// What this machine can run: the reference first, the fastest last.
std::vector<Kernels> runnable_kernels();
Kernels fastest_kernels();

}  // namespace cloister::aggregation

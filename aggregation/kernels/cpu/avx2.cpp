// AVX2 variants, compiled by target attribute and chosen at run time, so that one binary (one measurement) runs
// everywhere.

#include "aggregation/kernels/cpu/cpu.hpp"

#if defined(__x86_64__)
#include <cmath>
#include <immintrin.h>

namespace cloister::aggregation::cpu {
namespace {

#define CLOISTER_AVX2 __attribute__((target("avx2")))

CLOISTER_AVX2 std::size_t first_outside(std::span<const float> values, float low, float high) {
  const __m256 lows = _mm256_set1_ps(low), highs = _mm256_set1_ps(high);
  std::size_t i = 0;
  for (; i + 8 <= values.size(); i += 8) {
    const __m256 v = _mm256_loadu_ps(values.data() + i);
    // Ordered comparisons are false for NaN.
    const __m256 inside = _mm256_and_ps(_mm256_cmp_ps(v, lows, _CMP_GE_OQ), _mm256_cmp_ps(v, highs, _CMP_LE_OQ));
    if (_mm256_movemask_ps(inside) != 0xff) break;
  }
  return i + reference().first_outside(values.subspan(i), low, high);
}

/// The low 64 bits of q * weight, lane by lane; `weight` has its halves exchanged in `weight_swapped`.
CLOISTER_AVX2 inline __m256i multiply(__m256i q, __m256i weight, __m256i weight_swapped) {
  const __m256i low = _mm256_mul_epu32(q, weight);
  const __m256i cross = _mm256_mullo_epi32(q, weight_swapped);  // q_lo * w_hi and q_hi * w_lo, 32 bits of each
  const __m256i crossed = _mm256_add_epi32(cross, _mm256_srli_epi64(cross, 32));
  return _mm256_add_epi64(low, _mm256_slli_epi64(crossed, 32));
}

CLOISTER_AVX2 void accumulate(std::span<std::uint64_t> sum, std::span<const float> values, int fraction_bits,
                              std::uint64_t weight) {
  // Adding 1.5 * 2^52 leaves round(v), ties to even, in the low bits of the double, for |v| <= 2^51 (Warren, Hacker's
  // Delight, 17-3). Larger values, which only huge bounds make, take the reference's way.
  const __m256d magic = _mm256_set1_pd(6755399441055744.0);
  const __m256d scale = _mm256_set1_pd(std::ldexp(1.0, fraction_bits));
  const __m256d most = _mm256_set1_pd(std::ldexp(1.0, 51));
  const __m256d sign = _mm256_set1_pd(-0.0);
  const __m256i w = _mm256_set1_epi64x(static_cast<long long>(weight));
  const __m256i swapped = _mm256_shuffle_epi32(w, 0xb1);
  std::size_t i = 0;
  for (; i + 4 <= values.size(); i += 4) {
    const __m256d v = _mm256_mul_pd(_mm256_cvtps_pd(_mm_loadu_ps(values.data() + i)), scale);
    if (_mm256_movemask_pd(_mm256_cmp_pd(_mm256_andnot_pd(sign, v), most, _CMP_LE_OQ)) != 0xf) {
      reference().accumulate(sum.subspan(i, 4), values.subspan(i, 4), fraction_bits, weight);
      continue;
    }
    const __m256i q = _mm256_sub_epi64(_mm256_castpd_si256(_mm256_add_pd(v, magic)), _mm256_castpd_si256(magic));
    auto* at = reinterpret_cast<__m256i*>(sum.data() + i);
    _mm256_storeu_si256(at, _mm256_add_epi64(_mm256_loadu_si256(at), multiply(q, w, swapped)));
  }
  reference().accumulate(sum.subspan(i), values.subspan(i), fraction_bits, weight);
}

CLOISTER_AVX2 void add(std::span<std::uint64_t> sum, std::span<const std::uint64_t> other) {
  std::size_t i = 0;
  for (; i + 4 <= sum.size(); i += 4) {
    auto* at = reinterpret_cast<__m256i*>(sum.data() + i);
    const __m256i more = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(other.data() + i));
    _mm256_storeu_si256(at, _mm256_add_epi64(_mm256_loadu_si256(at), more));
  }
  reference().add(sum.subspan(i), other.subspan(i));
}

}  // namespace

std::optional<Kernels> avx2() {
  if (!__builtin_cpu_supports("avx2")) return std::nullopt;
  return Kernels{"cpu-avx2", first_outside, accumulate, add};
}

}  // namespace cloister::aggregation::cpu

#else

namespace cloister::aggregation::cpu {
std::optional<Kernels> avx2() {
  return std::nullopt;
}
}  // namespace cloister::aggregation::cpu

#endif

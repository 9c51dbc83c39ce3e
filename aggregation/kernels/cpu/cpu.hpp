#pragma once
// The CPU's kernel sets, one file each; kernels.cpp lists them.

#include <optional>

#include "aggregation/kernels/kernels.hpp"

namespace cloister::aggregation::cpu {

Kernels reference();
/// Nothing where this processor lacks AVX2.
std::optional<Kernels> avx2();

}  // namespace cloister::aggregation::cpu

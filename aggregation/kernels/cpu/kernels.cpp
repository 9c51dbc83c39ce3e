#include "aggregation/kernels/kernels.hpp"

#include "aggregation/kernels/cpu/cpu.hpp"

namespace cloister::aggregation {

std::vector<Kernels> runnable_kernels() {
  std::vector<Kernels> all{cpu::reference()};
  if (const auto avx2 = cpu::avx2()) all.push_back(*avx2);
  return all;
}

Kernels fastest_kernels() {
  return runnable_kernels().back();
}

}  // namespace cloister::aggregation

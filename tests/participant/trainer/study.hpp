#pragma once
// A founded study whose manifest pins the tensors of its own columns, and records for it.

#include <random>
#include <string>

#include "tests/support/study.hpp"

namespace cloister::participant::trainer::testing {

/// Columns age (number), sex and cp (categories), label num; logistic regression.
inline const tests::Study& study() {
  static const tests::Study s({.tensors =
                                   "[[model.tensors]]\nname = \"linear.weight\"\nshape = [1, 10]\ndtype = \"float32\"\n"
                                   "[[model.tensors]]\nname = \"linear.bias\"\nshape = [1]\ndtype = \"float32\"\n"});
  return s;
}

/// n records in which the old are ill, as CSV without a header.
inline std::string study_records(std::size_t n) {
  std::mt19937_64 random(1);
  std::string out;
  for (std::size_t i = 0; i < n; ++i) {
    const auto age = 30 + random() % 50;
    out += std::to_string(age) + "," + std::to_string(random() % 2) + ".0," + std::to_string(1 + random() % 4) + "," +
           std::to_string(age + random() % 20 > 65) + "\n";
  }
  return out;
}

}  // namespace cloister::participant::trainer::testing

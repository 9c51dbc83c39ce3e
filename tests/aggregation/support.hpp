#pragma once
// Made-up formats and updates for the tests of aggregation.

#include <bit>
#include <cstring>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <random>

#include "aggregation/sum.hpp"

namespace cloister::aggregation::testing {

template <class T>
Bytes bytes_of(const std::vector<T>& values) {
  Bytes out(values.size() * sizeof(T));
  std::memcpy(out.data(), values.data(), out.size());
  return out;
}

template <class... Parts>
Bytes concatenate(const Parts&... parts) {
  Bytes out;
  (out.insert(out.end(), parts.begin(), parts.end()), ...);
  return out;
}

using Format = std::shared_ptr<const UpdateFormat>;

inline Format train(std::vector<Tensor> tensors, double bound = 16) {
  return std::make_shared<const UpdateFormat>(train_format(Schema::make(std::move(tensors)).value(), bound).value());
}

/// Two float32 tensors, a scalar among them, of `n` elements in all.
inline Format train(std::uint64_t n, double bound = 16) {
  return train({{"w", {n - 1}, Dtype::float32}, {"b", {}, Dtype::float32}}, bound);
}

/// float32, int64 and float64 one after the other, so that the wide ones start at an odd multiple of four bytes.
inline Format mixed() {
  return std::make_shared<const UpdateFormat>(UpdateFormat{
      Schema::make({{"a", {3}, Dtype::float32}, {"n", {2}, Dtype::int64}, {"s", {2}, Dtype::float64}}).value(),
      {{-1, 1}, {0, 1000}, {-1e6, 1e6}}});
}

inline Result<CompleteUpdate> stage(const Format& format, View bytes, std::size_t chunk = 0,
                                    Kernels kernels = fastest_kernels()) {
  StagedUpdate slot(format, kernels);
  const std::size_t step = chunk ? chunk : std::max<std::size_t>(bytes.size(), 1);
  for (std::size_t at = 0; at < bytes.size(); at += step)
    if (auto ok = slot.feed(bytes.subspan(at, std::min(step, bytes.size() - at))); !ok) return ok.error();
  return std::move(slot).complete(base::sha256(bytes));
}

inline std::vector<float> random_values(std::mt19937_64& random, std::size_t n, float bound = 16) {
  std::uniform_real_distribution<float> uniform(-bound, bound);
  std::vector<float> out(n);
  for (float& v : out) v = uniform(random);
  return out;
}

}  // namespace cloister::aggregation::testing

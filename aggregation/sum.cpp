#include "aggregation/sum.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fmt/format.h>
#include <functional>
#include <system_error>
#include <thread>

namespace cloister::aggregation {
namespace {

/// Calls work(from, to) over [0, n) in as many parts as threads, of at least 64 Ki elements. A part for which there is
/// no thread is done here: half an addition would be worse than a slow one.
void in_parts(std::uint64_t n, unsigned threads, const std::function<void(std::uint64_t, std::uint64_t)>& work) {
  const std::uint64_t parts = std::clamp<std::uint64_t>(n >> 16, 1, std::max(threads, 1u));
  std::vector<std::jthread> others;
  others.reserve(parts);
  for (std::uint64_t p = 1; p < parts; ++p) {
    const auto part = [&work, from = n * p / parts, to = n * (p + 1) / parts] { work(from, to); };
    try {
      others.emplace_back(part);
    } catch (const std::system_error&) {
      part();
    }
  }
  work(0, n / parts);
}

template <class T>
T load(View values, std::uint64_t i) {
  T v;
  std::memcpy(&v, values.data() + i * sizeof(T), sizeof v);
  return v;
}

View bytes_of(const std::uint64_t* words, std::size_t n) {
  return {reinterpret_cast<const std::uint8_t*>(words), n * sizeof(std::uint64_t)};
}

}  // namespace

Result<Sum> Sum::make(std::shared_ptr<const UpdateFormat> format, const Bounds& bounds, Kernels kernels) {
  auto grid = Grid::make(*format, bounds);
  if (!grid) return grid.error();
  Sum sum;
  std::uint64_t n = 0;
  for (const Tensor& tensor : format->schema.tensors()) {
    sum.words_before_.push_back(n);
    n += tensor.elements();
  }
  sum.words_.resize(n);
  sum.format_ = std::move(format);
  sum.bounds_ = bounds;
  sum.grid_ = std::move(*grid);
  sum.kernels_ = kernels;
  return sum;
}

Result<void> Sum::add(const CompleteUpdate& update, std::uint64_t weight, unsigned threads) {
  if (weight < 1 || weight > bounds_.weight_at_most)
    return base::denied("update.weight", fmt::format("wanted 1 to {}, found {}", bounds_.weight_at_most, weight));
  if (contributors_ >= bounds_.contributors_at_most)
    return base::denied("round.contributors", fmt::format("wanted at most {}, found one more", contributors_));
  // What was checked at staging must be what this sum's grid was made for.
  if (update.format() != format_ && *update.format() != *format_)
    return base::denied("update.format", fmt::format("wanted an update staged for schema {} and its ranges, found {}",
                                                     base::digest_text(format_->schema.digest()),
                                                     base::digest_text(update.format()->schema.digest())));
  for (std::size_t t = 0; t < grid_.tensors.size(); ++t) add_tensor(t, update.tensor(t), weight, threads);
  ++contributors_;
  weight_ += weight;
  return {};
}

void Sum::add_tensor(std::size_t tensor, View values, std::uint64_t weight, unsigned threads) {
  const Tensor& t = format_->schema.tensors()[tensor];
  const int f = grid_.tensors[tensor].fraction_bits;
  std::uint64_t* words = words_.data() + first_word(tensor);
  in_parts(t.elements(), threads, [&](std::uint64_t from, std::uint64_t to) {
    switch (t.dtype) {
      case Dtype::float32:
        kernels_.accumulate({words + from, to - from},
                            {reinterpret_cast<const float*>(values.data()) + from, to - from}, f, weight);
        break;
      case Dtype::float64: {
        const double scale = std::ldexp(1.0, f);
        for (; from < to; ++from)
          words[from] += weight * static_cast<std::uint64_t>(std::llrint(load<double>(values, from) * scale));
        break;
      }
      case Dtype::int64:
        for (; from < to; ++from) words[from] += weight * load<std::uint64_t>(values, from);
        break;
    }
  });
}

Result<void> Sum::merge(Sum&& other) {
  if (other.format_ != format_ && *other.format_ != *format_)
    return base::denied("sum.format", "wanted a sum of the same round, found another");
  if (other.grid_ != grid_) return base::denied("sum.grid", "wanted a sum on the same grid, found other bounds");
  if (other.contributors_ > bounds_.contributors_at_most - contributors_)
    return base::denied("round.contributors", fmt::format("wanted at most {}, found {}", bounds_.contributors_at_most,
                                                          contributors_ + other.contributors_));
  kernels_.add(words_, other.words_);
  contributors_ += std::exchange(other.contributors_, 0);
  weight_ += std::exchange(other.weight_, 0);
  std::fill(other.words_.begin(), other.words_.end(), 0);
  return {};
}

Result<Report> Sum::report() && {
  if (!can_report())
    return base::denied("round.contributors",
                        fmt::format("wanted at least {}, found {}", bounds_.contributors_at_least, contributors_));
  Report out;
  out.format_ = std::move(format_);
  out.grid_ = std::move(grid_);
  out.contributors_ = contributors_;
  out.weight_ = weight_;
  // A word of Z_2^64 read as two's complement: the true sum, since the grid keeps it inside (-2^63, 2^63).
  out.integers_.assign(words_.begin(), words_.end());
  words_.clear();
  return out;
}

base::Sha256 Sum::digest() const {
  return base::sha256(bytes_of(words_.data(), words_.size()));
}

std::span<const std::int64_t> Report::integers(std::size_t tensor) const {
  std::uint64_t before = 0;
  for (std::size_t t = 0; t < tensor; ++t) before += schema().tensors()[t].elements();
  return {integers_.data() + before, schema().tensors()[tensor].elements()};
}

std::vector<double> Report::totals(std::size_t tensor) const {
  const double scale = std::ldexp(1.0, grid_.tensors[tensor].fraction_bits);
  std::vector<double> out;
  for (const std::int64_t v : integers(tensor)) out.push_back(static_cast<double>(v) / scale);  // exact: a power of two
  return out;
}

std::vector<double> Report::mean(std::size_t tensor) const {
  // weight < 2^63 / ceil(R * 2^f): times a power of two it stays one rounding away from exact, at worst.
  const double divisor = std::ldexp(static_cast<double>(weight_), grid_.tensors[tensor].fraction_bits);
  const auto sums = integers(tensor);
  std::vector<double> out(sums.size());
  for (std::size_t i = 0; i < sums.size(); ++i) out[i] = static_cast<double>(sums[i]) / divisor;
  return out;
}

base::Sha256 Report::digest() const {
  return base::sha256(
      {reinterpret_cast<const std::uint8_t*>(integers_.data()), integers_.size() * sizeof(std::int64_t)});
}

}  // namespace cloister::aggregation

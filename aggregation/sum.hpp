#pragma once
// The exact weighted sum of a round: one contract for every task.
//
//   StagedUpdate slot(format);  slot.feed(chunk) ...;  auto update = std::move(slot).complete(digest);
//   sum.add(*update, weight);   sum.merge(std::move(other));   if (sum.can_report()) report = std::move(sum).report();
//
// Words of Z_2^64, so order of arrival, number of threads, merging and kernel set cannot change a bit of it. The grid's
// bounds keep the true sum inside the signed range, so it is the exact sum of the rounded values, not a remainder.

#include <memory>
#include <vector>

#include "aggregation/update.hpp"

namespace cloister::aggregation {

/// A round's exact sums and what they are divided by.
class Report {
 public:
  const Schema& schema() const { return format_->schema; }
  const Grid& grid() const { return grid_; }
  std::uint64_t contributors() const { return contributors_; }
  std::uint64_t weight() const { return weight_; }  ///< the exact sum of all weights
  /// The sum over one tensor as integers on its grid.
  std::span<const std::int64_t> integers(std::size_t tensor) const;
  /// integers / 2^f: one rounding, where an integer has more than 53 bits.
  std::vector<double> totals(std::size_t tensor) const;
  /// totals / weight, in one division.
  std::vector<double> mean(std::size_t tensor) const;
  /// SHA-256 over all integers, little endian, in tensor order.
  base::Sha256 digest() const;

 private:
  friend class Sum;
  Report() = default;
  std::shared_ptr<const UpdateFormat> format_;
  Grid grid_;
  std::vector<std::int64_t> integers_;
  std::uint64_t contributors_ = 0, weight_ = 0;
};

/// Not thread-safe: one strand per round; `threads` only divides the work inside one call.
class Sum {
 public:
  /// Errors: Grid::make's. Holds 8 bytes for each element.
  static Result<Sum> make(std::shared_ptr<const UpdateFormat> format, const Bounds& bounds,
                          Kernels kernels = fastest_kernels());

  const std::shared_ptr<const UpdateFormat>& format() const { return format_; }
  const Grid& grid() const { return grid_; }
  std::string_view kernel_set() const { return kernels_.name; }
  std::uint64_t contributors() const { return contributors_; }
  std::uint64_t weight() const { return weight_; }

  /// Adds weight times the update. Errors leave the sum bit for bit as it was: a weight outside [1, weight_at_most],
  /// more contributors than the bounds allow, an update staged under another format.
  Result<void> add(const CompleteUpdate& update, std::uint64_t weight, unsigned threads = 1);
  /// Takes over everything that `other` has. Errors leave both as they were.
  Result<void> merge(Sum&& other);

  bool can_report() const { return contributors_ >= bounds_.contributors_at_least; }
  /// Consumes the sum. Refused below contributors_at_least: nothing of a small cohort gets out.
  Result<Report> report() &&;
  /// SHA-256 over all words: equal sums have equal digests.
  base::Sha256 digest() const;

 private:
  Sum() = default;
  std::uint64_t first_word(std::size_t tensor) const { return words_before_[tensor]; }
  void add_tensor(std::size_t tensor, View values, std::uint64_t weight, unsigned threads);

  std::shared_ptr<const UpdateFormat> format_;
  Bounds bounds_;
  Grid grid_;
  Kernels kernels_{};
  std::vector<std::uint64_t> words_;
  std::vector<std::uint64_t> words_before_;
  std::uint64_t contributors_ = 0, weight_ = 0;
};

}  // namespace cloister::aggregation

#pragma once
// The exact weighted sum of a round: one contract for every task.
//
//   StagedUpdate slot(format);  slot.feed(chunk) ...;  auto update = std::move(slot).complete(digest);
//   sum.add(*update, weight);   sum.merge(std::move(other));   if (sum.can_report()) report = std::move(sum).report();
//
// Words of Z_2^64, so order of arrival, number of threads, merging and kernel set cannot change a bit of it. The grid's
// bounds keep the true sum inside the signed range, so it is the exact sum of the rounded values, not a remainder.

#include <functional>
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
  Memory integers_;  ///< as the sum's words: two's complement
  std::uint64_t contributors_ = 0, weight_ = 0;
};

/// What a sum says of itself when it is consumed.
struct SumFacts {
  Grid grid;
  std::uint64_t contributors = 0, weight = 0;
};

/// Not thread-safe: one strand per round; `threads` only divides the work inside one call.
class Sum {
 public:
  /// Errors: Grid::make's. Holds 8 bytes for each element from the second update on, with the pages that the updates
  /// give back as they are added.
  static Result<Sum> make(std::shared_ptr<const UpdateFormat> format, const Bounds& bounds,
                          Kernels kernels = fastest_kernels(),
                          std::shared_ptr<Pages> pages = std::make_shared<Pages>());

  const std::shared_ptr<const UpdateFormat>& format() const { return format_; }
  const Grid& grid() const { return grid_; }
  std::string_view kernel_set() const { return kernels_.name; }
  std::uint64_t contributors() const { return contributors_; }
  std::uint64_t weight() const { return weight_; }

  /// Adds weight times the update. Errors leave the sum bit for bit as it was: a weight outside [1, weight_at_most],
  /// more contributors than the bounds allow, an update staged under another format.
  /// An update that is not in memory is read once more; if that fails half-way the sum is spoiled: it takes nothing
  /// more and reports nothing.
  Result<void> add(CompleteUpdate update, std::uint64_t weight, unsigned threads = 1);
  /// Has every update been added to words? The first one in memory is held as it is until there is a second.
  bool in_words() const { return static_cast<bool>(words_); }
  /// Takes over everything that `other` has. Errors leave both as they were.
  Result<void> merge(Sum&& other);

  bool can_report() const { return contributors_ >= bounds_.contributors_at_least; }
  /// Consumes the sum. Refused below contributors_at_least: nothing of a small cohort gets out.
  Result<Report> report() &&;
  /// The same for a sum that is read once, in order: `each` gets a run of integers of one tensor from an element on.
  /// What was read is given back on the way. An error of `each` ends it.
  using Run = std::function<Result<void>(std::size_t tensor, std::uint64_t from, std::span<const std::int64_t>)>;
  Result<void> consume(const std::function<void(const SumFacts&)>& facts, const Run& each) &&;
  /// SHA-256 over all words: equal sums have equal digests.
  base::Sha256 digest();

 private:
  Sum() = default;
  /// A term of the sum.
  struct Term {
    CompleteUpdate update;
    std::uint64_t weight = 1;
  };
  /// A run of elements of one tensor.
  struct Span {
    std::size_t tensor;
    std::uint64_t from, to, word;  ///< word: of `from`, in all words
  };
  Result<void> check(const CompleteUpdate& update, std::uint64_t weight) const;
  Result<void> reportable() const;
  template <class Work>
  Result<void> in_spans(std::uint64_t elements, Work work) const;
  Result<void> add_span(const Span& span, Term& term, std::uint64_t* words, unsigned threads);
  void settle();
  Result<void> into_words(std::vector<Term> terms, unsigned threads);
  std::uint64_t* words() { return reinterpret_cast<std::uint64_t*>(words_.data()); }
  std::uint64_t elements() const { return format_->schema.elements(); }

  std::shared_ptr<const UpdateFormat> format_;
  Bounds bounds_;
  Grid grid_;
  Kernels kernels_{};
  std::shared_ptr<Pages> pages_;
  Memory words_;                ///< none before there are two terms
  std::unique_ptr<Term> only_;  ///< the first term, while it is the only one
  bool spoiled_ = false;
  std::uint64_t contributors_ = 0, weight_ = 0;
};

}  // namespace cloister::aggregation

#pragma once
// Which updates are admitted, and the fixed-point grid on which they are summed without error (docs/how-it-works.md).
//
// A value x of a float tensor becomes the integer round(x * 2^f). f is the largest integer <= 40 for which no sum that
// the bounds allow can leave the ring's signed range, and no sum of squares a signed 128-bit integer:
//     N_max * w_max * ceil(R * 2^f) + t < 2^63   and   d * ceil(R * 2^f)^2 < 2^127
// An int64 tensor is summed as it is (f = 0) under the first rule.

#include "aggregation/schema.hpp"

namespace cloister::aggregation {

/// Closed: every value of a tensor must lie in it. R = max(|at_least|, |at_most|).
struct Range {
  double at_least = 0, at_most = 0;
  double magnitude() const;
  bool operator==(const Range&) const = default;
};

/// What an update of one task looks like: its schema and a range per tensor.
struct UpdateFormat {
  Schema schema;
  std::vector<Range> ranges;  ///< one per tensor
  bool operator==(const UpdateFormat&) const = default;
};

/// The format of a train task's update: float32 deltas (after minus before) with |delta| <= value_bound.
Result<UpdateFormat> train_format(const Schema& model, double value_bound);

/// What the charter and the round's task promise; a Sum refuses whatever would break it.
struct Bounds {
  std::uint64_t contributors_at_least = 1;  ///< the largest `at_least` of any owner, or the quorum where that is larger
  std::uint64_t contributors_at_most = 1;   ///< N_max: the charter's data owners
  std::uint64_t weight_at_most = 1;         ///< w_max of one contributor; 1 for statistics and evaluate
  std::uint64_t noise_tail = 0;             ///< t
};

struct TensorGrid {
  int fraction_bits = 0;          ///< f
  std::uint64_t magnitude = 0;    ///< ceil(R * 2^f)
  double rounding_error() const;  ///< of one value: 2^-(f+1)
  bool operator==(const TensorGrid&) const = default;
};

struct Grid {
  std::vector<TensorGrid> tensors;

  /// Refuses bounds that leave not even f = 0, with the numbers.
  static Result<Grid> make(const UpdateFormat& format, const Bounds& bounds);
  /// A sentence for people: "values are summed exactly after rounding to 2^-36; a value is off by at most 7.3e-12".
  std::string explain() const;
  bool operator==(const Grid&) const = default;
};

/// The rule above for one tensor. `d`: coordinates whose squares are added together. Nothing when f = 0 is too much.
Result<int> fraction_bits(double magnitude, std::uint64_t d, const Bounds& bounds);

}  // namespace cloister::aggregation

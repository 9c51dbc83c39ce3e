#pragma once
// The evaluate task: score histograms of test records, and the AUC of their sum (docs/formats.md, "Evaluate results").

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "aggregation/sum.hpp"

namespace cloister::aggregation {

/// int64 contributors[1], positives[bins], negatives[bins]. Bin i holds scores of [i/bins, (i+1)/bins), the last one 1
/// too. Refuses bins outside 2 to 65536.
Result<UpdateFormat> evaluate_format(std::uint32_t bins);

/// A site's scores in [0, 1] with their labels; below `minimum_count` records it sends zeros and does not contribute.
Bytes evaluate_update(std::uint32_t bins, std::span<const float> scores, std::span<const std::uint8_t> positive,
                      std::uint64_t minimum_count);

/// Area under the ROC curve: the share of (positive, negative) pairs that are in order, equal bins counted half.
/// Nothing when a class is empty. Both hold a count per bin.
std::optional<double> auc(std::span<const std::uint64_t> positives, std::span<const std::uint64_t> negatives);

struct Evaluation {
  std::uint64_t at_least = 1;  ///< contributors that were needed
  bool suppressed = true;      ///< fewer contributed: then the rest is zero or empty
  std::uint64_t contributors = 0;
  std::vector<std::uint64_t> positives, negatives;  ///< a count per bin

  /// Of a sum in evaluate_format.
  static Evaluation from(const Report& report, std::uint64_t at_least);
  static Result<Evaluation> parse(View bytes);
  Bytes serialize() const;
  base::Sha256 digest() const;
  std::string json() const;  ///< with the AUC, null when undefined
  std::optional<double> auc() const { return aggregation::auc(positives, negatives); }
  bool operator==(const Evaluation&) const = default;
};

}  // namespace cloister::aggregation

#pragma once
// The statistics task: what a site sends for each column, and what the enclave makes of the sum (docs/formats.md,
// "Statistics").
//
// A site below the minimum count of a published cell sends zeros and no contribution for it. A statistic with fewer
// contributors than the largest `at_least` is suppressed; a suppressed column leaves the model.

#include <optional>
#include <string>
#include <vector>

#include "aggregation/sum.hpp"

namespace cloister::aggregation {

struct Column {
  enum class Kind { number, category };
  std::string name;
  Kind kind = Kind::number;
  std::vector<std::string> categories;  ///< of a category, in the order of their features
};

/// The kinds that a manifest may name: "mean" and "variance" of numbers, "frequency" of categories.
const std::vector<std::string>& statistic_kinds();

struct StatisticsPlan {
  std::vector<Column> columns;
  bool mean = false, variance = false, frequency = false;

  /// Refuses an unknown kind, and a plan that asks for nothing of any column.
  static Result<StatisticsPlan> make(std::vector<Column> columns, const std::vector<std::string>& kinds);
  bool asks(const Column& column) const;
};

/// A number column: int64 contributors[1], count[1]; float64 sum[1], and square_sum[1] for a variance. A category
/// column: int64 contributors[1], cell_contributors[k], counts[k]. Names are "<column>.<what>".
UpdateFormat statistics_format(const StatisticsPlan& plan);

/// What one site counted in one column, before its minimum count.
struct SiteColumn {
  std::uint64_t count = 0;  ///< numbers that are not missing
  double sum = 0, square_sum = 0;
  std::vector<std::uint64_t> counts;  ///< of each category
};

/// The bytes of a site's update; `columns` follows plan.columns (one that the plan does not ask for is passed over).
/// Cells with fewer than `minimum_count` records are zero and do not contribute.
Bytes statistics_update(const StatisticsPlan& plan, const std::vector<SiteColumn>& columns,
                        std::uint64_t minimum_count);

struct CellStatistic {
  std::string category;
  bool suppressed = true;  ///< then the rest is zero
  std::uint64_t contributors = 0, count = 0;
  double frequency = 0;  ///< count / the column's count
  bool operator==(const CellStatistic&) const = default;
};

struct ColumnStatistic {
  std::string name;
  Column::Kind kind = Column::Kind::number;
  bool suppressed = true;  ///< then the rest is zero or empty, and the column leaves the model
  std::uint64_t contributors = 0, count = 0;
  std::optional<double> mean = {}, variance = {};  ///< of the population
  std::vector<CellStatistic> cells = {};
  bool operator==(const ColumnStatistic&) const = default;
};

/// The statistics in force for a run.
struct Statistics {
  std::uint64_t at_least = 1;  ///< contributors that each needed
  std::vector<ColumnStatistic> columns;

  /// Of a sum in the plan's format.
  static Statistics from(const StatisticsPlan& plan, const Report& report, std::uint64_t at_least);
  static Result<Statistics> parse(View bytes);
  Bytes serialize() const;
  base::Sha256 digest() const;
  std::string json() const;
  const ColumnStatistic* find(std::string_view column) const;
  bool operator==(const Statistics&) const = default;
};

}  // namespace cloister::aggregation

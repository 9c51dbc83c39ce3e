#pragma once
// The records of one site, read under the columns that the study's manifest declares.

#include <string>
#include <vector>

#include "aggregation/statistics.hpp"
#include "attest/manifest.hpp"

namespace cloister::participant::data {

/// What a manifest says of records.
struct Declaration {
  std::vector<attest::Column> columns;
  std::string label;                  ///< the column with the answer
  std::vector<std::string> positive;  ///< its cells that mean yes; every other one means no

  static Declaration of(const attest::Manifest& manifest);
  /// The columns as aggregation's statistics name them.
  std::vector<aggregation::Column> statistic_columns() const;
};

struct Table {
  /// A vector of cells for each declared column, in the manifest's order: a number, or the index of a category; NaN is
  /// a missing value. A column that the file lacks is missing in every record.
  std::vector<std::vector<double>> columns;
  std::vector<std::uint8_t> labels;  ///< 1: positive
  std::vector<std::string> lacking;  ///< declared columns that the file does not have
  std::size_t records() const { return labels.size(); }
};

/// Reads a CSV file. A first line in which a cell is the name of a declared column is a header: columns are then found
/// by name, in any order, others are passed over, and declared ones may be lacking (the label may not). Without a
/// header a record has the declared columns in the manifest's order, then the label.
///
/// A cell is compared with a category, a marker of missing values or a label as a number where both are numbers ("1.0"
/// is "1"), else as text. An empty cell is missing. Errors, up to ten at once, name file, line and column, never a
/// cell's content.
Result<Table> read_table(std::string_view csv, const Declaration& declaration, const std::string& file);

/// What the records `rows` of a table count to, for the statistics task: an entry per declared column.
std::vector<aggregation::SiteColumn> count(const Table& table, const Declaration& declaration,
                                           const std::vector<std::size_t>& rows);

}  // namespace cloister::participant::data

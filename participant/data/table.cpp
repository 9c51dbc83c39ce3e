#include "participant/data/table.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fmt/format.h>
#include <limits>
#include <optional>

#include "participant/data/csv.hpp"

namespace cloister::participant::data {
namespace {

constexpr double missing = std::numeric_limits<double>::quiet_NaN();
constexpr std::size_t mistakes_at_most = 10;

std::optional<double> number(std::string_view text) {
  if (text.starts_with('+')) text.remove_prefix(1);
  double v = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(v)) return std::nullopt;
  return v;
}

/// A declared cell, with its number where it is one.
struct Marker {
  std::string text;
  std::optional<double> value;
};

std::vector<Marker> markers(const std::vector<std::string>& texts) {
  std::vector<Marker> out;
  for (const std::string& text : texts) out.push_back({text, number(text)});
  return out;
}

/// Its index, or the number of markers.
std::size_t find(const std::vector<Marker>& among, std::string_view cell, const std::optional<double>& value) {
  for (std::size_t i = 0; i < among.size(); ++i)
    if (among[i].value && value ? *among[i].value == *value : among[i].text == cell) return i;
  return among.size();
}

struct ColumnReader {
  const attest::Column* declared;
  std::vector<Marker> absent, categories;
  std::optional<std::size_t> cell;  ///< its index in a record; none: the file lacks it

  /// The cell's content for a Table, or what was wanted.
  Result<double> read(std::string_view text) const {
    const auto value = number(text);
    if (text.empty() || find(absent, text, value) < absent.size()) return missing;
    if (declared->kind == "number") {
      if (value) return *value;
      return base::malformed("", "wanted a number or a marker of a missing value");
    }
    const std::size_t i = find(categories, text, value);
    if (i < categories.size()) return static_cast<double>(i);
    return base::malformed(
        "", fmt::format("wanted one of the {} declared categories or a marker of a missing value", categories.size()));
  }
};

class TableReader {
 public:
  TableReader(const Declaration& declaration, const std::string& file) : declaration_(declaration), file_(file) {
    for (const attest::Column& column : declaration.columns)
      columns_.push_back({&column, markers(column.missing), markers(column.categories), std::nullopt});
    positive_ = markers(declaration.positive);
  }

  Result<Table> run(std::string_view csv) {
    const auto records = parse_csv(csv, file_);
    if (!records) return records.error();
    if (records->empty()) return base::malformed(file_, "has no records");
    const bool header = is_header(records->front());
    if (header)
      find_columns(records->front());
    else
      declared_order();
    for (std::size_t i = header ? 1 : 0; i < records->size() && mistakes_.size() < mistakes_at_most; ++i)
      read((*records)[i]);
    if (!mistakes_.empty()) return all_mistakes();
    if (table_.records() == 0) return base::malformed(file_, "has a header and no records");
    return std::move(table_);
  }

 private:
  bool is_header(const CsvRecord& first) const {
    return std::any_of(first.cells.begin(), first.cells.end(), [&](const std::string& cell) {
      return cell == declaration_.label || std::any_of(columns_.begin(), columns_.end(),
                                                       [&](const ColumnReader& c) { return c.declared->name == cell; });
    });
  }

  std::optional<std::size_t> position(const CsvRecord& header, const std::string& name) {
    const auto found = std::find(header.cells.begin(), header.cells.end(), name);
    if (found == header.cells.end()) return std::nullopt;
    if (std::find(found + 1, header.cells.end(), name) != header.cells.end())
      mistake(header.line, name, "the header has this column twice");
    return found - header.cells.begin();
  }

  void find_columns(const CsvRecord& header) {
    cells_ = header.cells.size();
    for (ColumnReader& column : columns_) {
      column.cell = position(header, column.declared->name);
      if (!column.cell) table_.lacking.push_back(column.declared->name);
    }
    const auto label = position(header, declaration_.label);
    if (!label) mistake(header.line, declaration_.label, "the header lacks the label's column");
    label_ = label.value_or(0);
    table_.columns.resize(columns_.size());
  }

  void declared_order() {
    for (std::size_t i = 0; i < columns_.size(); ++i) columns_[i].cell = i;
    label_ = columns_.size();
    cells_ = columns_.size() + 1;
    table_.columns.resize(columns_.size());
  }

  void read(const CsvRecord& record) {
    if (record.cells.size() != cells_)
      return mistake(record.line, "", fmt::format("wanted {} cells, found {}", cells_, record.cells.size()));
    for (std::size_t i = 0; i < columns_.size(); ++i) {
      const ColumnReader& column = columns_[i];
      const auto value = column.cell ? column.read(record.cells[*column.cell]) : Result<double>(missing);
      if (!value) mistake(record.line, column.declared->name, value.error().what);
      table_.columns[i].push_back(value ? *value : missing);
    }
    const std::string& label = record.cells[label_];
    // Any other cell means no; where yes is a number, something else is a gap in the data and no answer.
    const bool numbers =
        std::all_of(positive_.begin(), positive_.end(), [](const Marker& m) { return m.value.has_value(); });
    if (label.empty() || (numbers && !number(label)))
      mistake(record.line, declaration_.label, "the record has no label");
    table_.labels.push_back(find(positive_, label, number(label)) < positive_.size());
  }

  void mistake(std::size_t line, const std::string& column, const std::string& what) {
    mistakes_.push_back(fmt::format("{}:{}: {}{}{}", file_, line, column, column.empty() ? "" : ": ", what));
  }

  Error all_mistakes() const {
    std::string all = mistakes_.front();
    for (std::size_t i = 1; i < mistakes_.size(); ++i) {
      all += '\n';
      all += mistakes_[i];
    }
    return base::malformed("", all);
  }

  const Declaration& declaration_;
  const std::string& file_;
  std::vector<ColumnReader> columns_;
  std::vector<Marker> positive_;
  std::size_t label_ = 0, cells_ = 0;
  Table table_;
  std::vector<std::string> mistakes_;
};

}  // namespace

Declaration Declaration::of(const attest::Manifest& manifest) {
  return {manifest.columns, manifest.label_column, manifest.label_positive};
}

std::vector<aggregation::Column> Declaration::statistic_columns() const {
  using Kind = aggregation::Column::Kind;
  std::vector<aggregation::Column> out;
  for (const attest::Column& c : columns)
    out.push_back({c.name, c.kind == "number" ? Kind::number : Kind::category, c.categories});
  return out;
}

Result<Table> read_table(std::string_view csv, const Declaration& declaration, const std::string& file) {
  return TableReader(declaration, file).run(csv);
}

std::vector<aggregation::SiteColumn> count(const Table& table, const Declaration& declaration,
                                           const std::vector<std::size_t>& rows) {
  std::vector<aggregation::SiteColumn> out(declaration.columns.size());
  for (std::size_t c = 0; c < out.size(); ++c) {
    out[c].counts.resize(declaration.columns[c].categories.size());
    for (const std::size_t row : rows) {
      const double v = table.columns[c][row];
      if (std::isnan(v)) continue;
      ++out[c].count;
      if (declaration.columns[c].kind == "category") {
        ++out[c].counts[static_cast<std::size_t>(v)];
      } else {
        out[c].sum += v;
        out[c].square_sum += v * v;
      }
    }
  }
  return out;
}

}  // namespace cloister::participant::data

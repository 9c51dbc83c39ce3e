#include "aggregation/statistics.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <fmt/format.h>

#include "base/encoding.hpp"
#include "base/log.hpp"

namespace cloister::aggregation {
namespace {

constexpr std::string_view version = "cloister statistics 1";
// Ranges that leave room for real columns: a million records with values near 60,000 stay inside all of them.
constexpr double count_at_most = 0x1p40, sum_at_most = 0x1p36, square_sum_at_most = 0x1p44;

bool is_number(const Column& column) {
  return column.kind == Column::Kind::number;
}

double number_at(const Report& report, const std::string& tensor) {
  return report.totals(report.schema().index(tensor)).front();
}
std::uint64_t count_at(const Report& report, const std::string& tensor, std::size_t i = 0) {
  return static_cast<std::uint64_t>(report.integers(report.schema().index(tensor))[i]);
}

void append(Bytes& out, std::uint64_t v) {
  for (int i = 0; i < 8; ++i) out.push_back(static_cast<std::uint8_t>(v >> (8 * i)));
}

ColumnStatistic number_statistic(const StatisticsPlan& plan, const Column& column, const Report& report) {
  ColumnStatistic s{.name = column.name, .kind = column.kind, .suppressed = false};
  s.contributors = count_at(report, column.name + ".contributors");
  s.count = count_at(report, column.name + ".count");
  const double n = static_cast<double>(s.count);
  const double mean = number_at(report, column.name + ".sum") / n;
  if (plan.mean) s.mean = mean;
  if (plan.variance) s.variance = std::max(0.0, number_at(report, column.name + ".square_sum") / n - mean * mean);
  return s;
}

ColumnStatistic category_statistic(const Column& column, const Report& report, std::uint64_t at_least) {
  ColumnStatistic s{.name = column.name, .kind = column.kind, .suppressed = false};
  s.contributors = count_at(report, column.name + ".contributors");
  // A suppressed cell is in no published number: else the column's count would give it away.
  for (std::size_t i = 0; i < column.categories.size(); ++i) {
    CellStatistic cell{.category = column.categories[i]};
    cell.suppressed = count_at(report, column.name + ".cell_contributors", i) < at_least;
    if (!cell.suppressed) {
      cell.contributors = count_at(report, column.name + ".cell_contributors", i);
      cell.count = count_at(report, column.name + ".counts", i);
      s.count += cell.count;
    }
    s.cells.push_back(cell);
  }
  for (CellStatistic& cell : s.cells)
    if (!cell.suppressed) cell.frequency = static_cast<double>(cell.count) / static_cast<double>(s.count);
  return s;
}

void write(base::Writer& w, const std::optional<double>& v) {
  w.u8(v.has_value()).u64(std::bit_cast<std::uint64_t>(v.value_or(0)));
}

bool read_flag(base::Reader& r, std::string_view field) {
  const std::uint8_t v = r.u8(field);
  if (v > 1) r.fail(field, fmt::format("wanted 0 or 1, found {}", v));
  return v == 1;
}

double read_number(base::Reader& r, std::string_view field) {
  const double v = std::bit_cast<double>(r.u64(field));
  if (!std::isfinite(v)) r.fail(field, "wanted a finite number");
  return v;
}

std::optional<double> read_optional(base::Reader& r, std::string_view field) {
  const bool given = read_flag(r, field);
  const double v = read_number(r, field);
  if (!given && std::bit_cast<std::uint64_t>(v) != 0) r.fail(field, "is absent, so its number must be zero");
  return given ? std::optional(v) : std::nullopt;
}

std::string to_json(const std::optional<double>& v) {
  return v ? fmt::format("{}", *v) : "null";
}

std::string to_json(const ColumnStatistic& s) {
  std::string out = fmt::format(R"({{"name":{},"kind":"{}","suppressed":{})", base::json_escape(s.name),
                                s.kind == Column::Kind::number ? "number" : "category", s.suppressed);
  if (s.suppressed) return out + "}";
  out += fmt::format(R"(,"contributors":{},"count":{})", s.contributors, s.count);
  if (s.kind == Column::Kind::number)
    return out + fmt::format(R"(,"mean":{},"variance":{}}})", to_json(s.mean), to_json(s.variance));
  out += R"(,"categories":[)";
  for (const CellStatistic& cell : s.cells) {
    out += &cell == s.cells.data() ? "" : ",";
    out += fmt::format(R"({{"category":{},"suppressed":{})", base::json_escape(cell.category), cell.suppressed);
    if (!cell.suppressed)
      out +=
          fmt::format(R"(,"contributors":{},"count":{},"frequency":{})", cell.contributors, cell.count, cell.frequency);
    out += "}";
  }
  return out + "]}";
}

}  // namespace

const std::vector<std::string>& statistic_kinds() {
  static const std::vector<std::string> kinds{"mean", "variance", "frequency"};
  return kinds;
}

Result<StatisticsPlan> StatisticsPlan::make(std::vector<Column> columns, const std::vector<std::string>& kinds) {
  StatisticsPlan plan{.columns = std::move(columns)};
  for (const std::string& kind : kinds) {
    if (kind != "mean" && kind != "variance" && kind != "frequency")
      return base::unsupported("statistics.kinds",
                               fmt::format("wanted mean, variance or frequency, found \"{}\"", kind));
    (kind == "mean" ? plan.mean : kind == "variance" ? plan.variance : plan.frequency) = true;
  }
  for (const Column& column : plan.columns)
    if (!is_number(column) && column.categories.empty())
      return base::malformed("columns." + column.name, "a category column wants at least one category");
  if (std::none_of(plan.columns.begin(), plan.columns.end(), [&](const Column& c) { return plan.asks(c); }))
    return base::malformed("statistics.kinds",
                           "asks for no statistic of any column: mean and variance are of number "
                           "columns, frequency of category columns");
  return plan;
}

bool StatisticsPlan::asks(const Column& column) const {
  return is_number(column) ? mean || variance : frequency;
}

UpdateFormat statistics_format(const StatisticsPlan& plan) {
  std::vector<Tensor> tensors;
  std::vector<Range> ranges;
  const auto add = [&](std::string name, std::uint64_t n, Dtype dtype, Range range) {
    tensors.push_back({std::move(name), {n}, dtype});
    ranges.push_back(range);
  };
  for (const Column& column : plan.columns) {
    if (!plan.asks(column)) continue;
    add(column.name + ".contributors", 1, Dtype::int64, {0, 1});
    if (is_number(column)) {
      add(column.name + ".count", 1, Dtype::int64, {0, count_at_most});
      add(column.name + ".sum", 1, Dtype::float64, {-sum_at_most, sum_at_most});
      if (plan.variance) add(column.name + ".square_sum", 1, Dtype::float64, {0, square_sum_at_most});
    } else {
      add(column.name + ".cell_contributors", column.categories.size(), Dtype::int64, {0, 1});
      add(column.name + ".counts", column.categories.size(), Dtype::int64, {0, count_at_most});
    }
  }
  return {Schema::make(std::move(tensors)).value(), std::move(ranges)};
}

Bytes statistics_update(const StatisticsPlan& plan, const std::vector<SiteColumn>& columns,
                        std::uint64_t minimum_count) {
  if (columns.size() != plan.columns.size()) std::abort();
  const std::uint64_t least = std::max<std::uint64_t>(minimum_count, 1);
  Bytes out;
  for (std::size_t c = 0; c < columns.size(); ++c) {
    const Column& column = plan.columns[c];
    const SiteColumn& site = columns[c];
    if (!plan.asks(column)) continue;
    if (is_number(column)) {
      const bool there = site.count >= least;
      append(out, there);
      append(out, there ? site.count : 0);
      append(out, std::bit_cast<std::uint64_t>(there ? site.sum : 0.0));
      if (plan.variance) append(out, std::bit_cast<std::uint64_t>(there ? site.square_sum : 0.0));
    } else {
      if (site.counts.size() != column.categories.size()) std::abort();
      append(out, std::any_of(site.counts.begin(), site.counts.end(), [&](std::uint64_t n) { return n >= least; }));
      for (const std::uint64_t n : site.counts) append(out, n >= least);
      for (const std::uint64_t n : site.counts) append(out, n >= least ? n : 0);
    }
  }
  return out;
}

Statistics Statistics::from(const StatisticsPlan& plan, const Report& report, std::uint64_t at_least) {
  Statistics out{.at_least = std::max<std::uint64_t>(at_least, 1), .columns = {}};
  for (const Column& column : plan.columns) {
    if (!plan.asks(column)) continue;
    if (count_at(report, column.name + ".contributors") < out.at_least)
      out.columns.push_back({.name = column.name, .kind = column.kind});
    else if (is_number(column) && count_at(report, column.name + ".count") > 0)
      out.columns.push_back(number_statistic(plan, column, report));
    else if (!is_number(column))
      out.columns.push_back(category_statistic(column, report, out.at_least));
    else  // contributors who counted nothing broke their promise; there is nothing to divide
      out.columns.push_back({.name = column.name, .kind = column.kind});
  }
  return out;
}

Bytes Statistics::serialize() const {
  base::Writer w;
  w.field(version).u64(at_least).u32(static_cast<std::uint32_t>(columns.size()));
  for (const ColumnStatistic& s : columns) {
    w.field(s.name).u8(s.kind == Column::Kind::category).u8(s.suppressed).u64(s.contributors).u64(s.count);
    write(w, s.mean);
    write(w, s.variance);
    w.u32(static_cast<std::uint32_t>(s.cells.size()));
    for (const CellStatistic& cell : s.cells)
      w.field(cell.category)
          .u8(cell.suppressed)
          .u64(cell.contributors)
          .u64(cell.count)
          .u64(std::bit_cast<std::uint64_t>(cell.frequency));
  }
  return std::move(w).bytes();
}

Result<Statistics> Statistics::parse(View bytes) {
  base::Reader r("statistics", bytes);
  if (const std::string found = r.string("version", 64); r.ok() && found != version)
    return base::unsupported("statistics.version", fmt::format("wanted \"{}\", found \"{}\"", version, found));
  Statistics out{.at_least = r.u64("at_least"), .columns = {}};
  const std::uint32_t n = r.u32("columns");
  for (std::uint32_t i = 0; i < n && r.ok(); ++i) {
    ColumnStatistic s{.name = r.string("name", 1024)};
    s.kind = read_flag(r, "kind") ? Column::Kind::category : Column::Kind::number;
    s.suppressed = read_flag(r, "suppressed");
    s.contributors = r.u64("contributors");
    s.count = r.u64("count");
    s.mean = read_optional(r, "mean");
    s.variance = read_optional(r, "variance");
    const std::uint32_t cells = r.u32("cells");
    for (std::uint32_t c = 0; c < cells && r.ok(); ++c) {
      CellStatistic cell{.category = r.string("category", 1024)};
      cell.suppressed = read_flag(r, "cell suppressed");
      cell.contributors = r.u64("cell contributors");
      cell.count = r.u64("cell count");
      cell.frequency = read_number(r, "frequency");
      s.cells.push_back(std::move(cell));
    }
    out.columns.push_back(std::move(s));
  }
  if (const auto end = r.finish(); !end) return end.error();
  return out;
}

base::Sha256 Statistics::digest() const {
  return base::sha256(serialize());
}

std::string Statistics::json() const {
  std::string out = fmt::format(R"({{"at_least":{},"columns":[)", at_least);
  for (const ColumnStatistic& s : columns) {
    if (&s != columns.data()) out += ',';
    out += to_json(s);
  }
  return out + "]}";
}

const ColumnStatistic* Statistics::find(std::string_view column) const {
  for (const ColumnStatistic& s : columns)
    if (s.name == column) return &s;
  return nullptr;
}

}  // namespace cloister::aggregation

#include "participant/data/features.hpp"

#include <cmath>
#include <fmt/format.h>

namespace cloister::participant::data {
namespace {

bool is_image(const attest::Manifest& manifest) {
  return manifest.architecture == "cnn";
}

bool same_kind(const attest::Column& declared, const aggregation::ColumnStatistic& statistic) {
  return (declared.kind == "category") == (statistic.kind == aggregation::Column::Kind::category);
}

}  // namespace

std::vector<std::string> feature_names(const attest::Manifest& manifest) {
  std::vector<std::string> out;
  for (const attest::Column& column : manifest.columns) {
    if (column.kind == "number") out.push_back(column.name);
    for (const std::string& category : column.categories) out.push_back(column.name + " = " + category);
    if (!is_image(manifest)) out.push_back(column.name + " missing");
  }
  return out;
}

Result<Features> Features::make(const attest::Manifest& manifest,
                                const std::optional<aggregation::Statistics>& statistics) {
  if (!statistics && !manifest.statistics_kinds.empty())
    return base::unavailable("statistics", "the manifest has a statistics task, and no statistics are in force yet");
  Features out;
  out.image_ = is_image(manifest);
  for (const attest::Column& declared : manifest.columns) {
    if (out.image_ && declared.kind != "number")
      return base::unsupported("data.columns." + declared.name, "the columns of an image are numbers, one per pixel");
    Column column{.category = declared.kind == "category", .categories = declared.categories.size()};
    const auto* statistic = statistics ? statistics->find(declared.name) : nullptr;
    if (statistic && !same_kind(declared, *statistic))
      return base::malformed("statistics." + declared.name, "has another kind than the manifest's column");
    if (statistic) {
      column.used = !statistic->suppressed;
      column.mean = statistic->mean.value_or(0);
      const double deviation = std::sqrt(statistic->variance.value_or(1));
      column.scale = deviation > 1e-9 ? 1 / deviation : 1;  // a constant column has no spread to divide by
    }
    if (!column.used) out.without_.push_back(declared.name);
    out.width_ += out.width_of(column);
    out.columns_.push_back(column);
  }
  return out;
}

std::size_t Features::width_of(const Column& column) const {
  return (column.category ? column.categories : 1) + (image_ ? 0 : 1);
}

void Features::write(const Column& column, double cell, float* out) const {
  if (!column.used) return;
  if (std::isnan(cell)) {
    if (!image_) out[width_of(column) - 1] = 1;
  } else if (column.category) {
    out[static_cast<std::size_t>(cell)] = 1;
  } else {
    out[0] = static_cast<float>((cell - column.mean) * column.scale);
  }
}

Matrix Features::of(const Table& table, std::span<const std::size_t> rows) const {
  Matrix out{rows.size(), width_, std::vector<float>(rows.size() * width_)};
  for (std::size_t r = 0; r < rows.size(); ++r) {
    float* at = out.values.data() + r * width_;
    for (std::size_t c = 0; c < columns_.size(); ++c) {
      write(columns_[c], table.columns[c][rows[r]], at);
      at += width_of(columns_[c]);
    }
  }
  return out;
}

}  // namespace cloister::participant::data

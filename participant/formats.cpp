#include "participant/formats.hpp"

#include <fmt/format.h>

#include "aggregation/evaluate.hpp"
#include "aggregation/statistics.hpp"

namespace cloister::participant {
namespace {

using aggregation::UpdateFormat;

Result<aggregation::Schema> model_schema(const attest::Manifest& manifest) {
  std::vector<aggregation::Tensor> tensors;
  for (const attest::Tensor& t : manifest.tensors) {
    const auto dtype = aggregation::parse_dtype(t.dtype);
    if (!dtype) return dtype.error();
    tensors.push_back({t.name, t.shape, *dtype});
  }
  return aggregation::Schema::make(std::move(tensors));
}

Result<UpdateFormat> statistics_format(const attest::Manifest& manifest) {
  std::vector<aggregation::Column> columns;
  for (const attest::Column& c : manifest.columns)
    columns.push_back({c.name,
                       c.kind == "category" ? aggregation::Column::Kind::category : aggregation::Column::Kind::number,
                       c.categories});
  const auto plan = aggregation::StatisticsPlan::make(std::move(columns), manifest.statistics_kinds);
  if (!plan) return plan.error();
  return aggregation::statistics_format(*plan);
}

// The int64 values of one tensor, in place; little endian, as an update is.
class Counts {
 public:
  Counts(const aggregation::Schema& schema, std::size_t tensor, Bytes& bytes)
      : at_(bytes.data() + schema.offset(tensor)), size_(schema.tensors()[tensor].elements()) {}
  std::size_t size() const { return size_; }
  std::uint64_t get(std::size_t i) const {
    std::uint64_t v = 0;
    for (std::size_t b = 8; b-- > 0;) v = v << 8 | at_[8 * i + b];
    return v;
  }
  void set(std::size_t i, std::uint64_t v) {
    for (std::size_t b = 0; b < 8; ++b) at_[8 * i + b] = static_cast<std::uint8_t>(v >> (8 * b));
  }

 private:
  std::uint8_t* at_;
  std::size_t size_;
};

void zero(const aggregation::Schema& schema, std::size_t tensor, Bytes& bytes) {
  std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(schema.offset(tensor)), schema.tensors()[tensor].bytes(),
              std::uint8_t{0});
}

std::string column_of(const std::string& tensor) {
  return tensor.substr(0, tensor.rfind('.'));
}

// A number column has a count, a category column counts of each cell (aggregation/statistics.hpp, statistics_format).
void withhold_statistics(const aggregation::Schema& schema, std::uint64_t minimum, Bytes& bytes) {
  const auto& tensors = schema.tensors();
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const std::string column = column_of(tensors[i].name);
    if (tensors[i].name == column + ".count") {
      if (Counts(schema, i, bytes).get(0) >= minimum) continue;
      for (std::size_t j = 0; j < tensors.size(); ++j)
        if (column_of(tensors[j].name) == column) zero(schema, j, bytes);
    } else if (tensors[i].name == column + ".counts") {
      Counts counts(schema, i, bytes), cells(schema, schema.index(column + ".cell_contributors"), bytes);
      bool any = false;
      for (std::size_t c = 0; c < counts.size(); ++c) {
        if (counts.get(c) >= minimum) {
          any = true;
          continue;
        }
        counts.set(c, 0);
        cells.set(c, 0);
      }
      if (!any) zero(schema, schema.index(column + ".contributors"), bytes);
    }
  }
}

void withhold_evaluation(const aggregation::Schema& schema, std::uint64_t minimum, Bytes& bytes) {
  std::uint64_t records = 0;
  for (const char* name : {"positives", "negatives"}) {
    const Counts counts(schema, schema.index(name), bytes);
    for (std::size_t i = 0; i < counts.size(); ++i) {
      const std::uint64_t n = counts.get(i);
      records = n > ~records ? ~std::uint64_t{0} : records + n;
    }
  }
  if (records < minimum) std::fill(bytes.begin(), bytes.end(), std::uint8_t{0});
}

}  // namespace

Result<Formats> update_formats(const attest::Manifest& manifest) {
  Formats out;
  const auto add = [&](const char* task, Result<UpdateFormat> format) -> Result<void> {
    if (!format) return format.error();
    out.emplace(task, std::move(*format));
    return {};
  };
  const auto schema = model_schema(manifest);
  if (!schema) return schema.error();
  if (auto r = add("train", aggregation::train_format(*schema, manifest.value_bound)); !r) return r.error();
  if (!manifest.statistics_kinds.empty())
    if (auto r = add("statistics", statistics_format(manifest)); !r) return r.error();
  if (!manifest.evaluate_kinds.empty())
    if (auto r = add("evaluate", aggregation::evaluate_format(manifest.evaluate_bins)); !r) return r.error();
  return out;
}

protocols::round::Shapes shapes(const Formats& formats) {
  protocols::round::Shapes out;
  for (const auto& [task, format] : formats)
    out.emplace(task, protocols::round::Shape{format.schema.digest(), format.schema.bytes()});
  return out;
}

std::uint64_t minimum_count(const std::string& task, const attest::Manifest& manifest,
                            const attest::DataPolicy& policy) {
  const auto larger = [](std::uint32_t charter, const std::optional<attest::TaskExact>& own) {
    return std::max<std::uint64_t>({charter, own ? own->minimum_count : 0, 1});
  };
  if (task == "statistics") return larger(manifest.statistics_minimum_count, policy.statistics);
  if (task == "evaluate") return larger(manifest.evaluate_minimum_count, policy.evaluate);
  return 0;
}

Result<Bytes> apply_minimum_count(const std::string& task, const UpdateFormat& format, std::uint64_t minimum,
                                  View update) {
  if (update.size() != format.schema.bytes())
    return base::malformed("trainer", fmt::format("wanted an update of {} bytes for a {} task, found {}",
                                                  format.schema.bytes(), task, update.size()));
  Bytes out = base::copy(update);
  if (task == "statistics") withhold_statistics(format.schema, minimum, out);
  if (task == "evaluate") withhold_evaluation(format.schema, minimum, out);
  return out;
}

}  // namespace cloister::participant

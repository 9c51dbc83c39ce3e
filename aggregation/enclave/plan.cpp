#include "aggregation/enclave/plan.hpp"

#include "aggregation/evaluate.hpp"
#include "protocols/round/receipt.hpp"

namespace cloister::enclave {
namespace {

using aggregation::UpdateFormat;

Result<aggregation::Schema> schema_of(const attest::Manifest& manifest) {
  std::vector<aggregation::Tensor> tensors;
  for (const auto& t : manifest.tensors) {
    const auto dtype = aggregation::parse_dtype(t.dtype);
    if (!dtype) return dtype.error();
    tensors.push_back({t.name, t.shape, *dtype});
  }
  return aggregation::Schema::make(std::move(tensors));
}

Result<aggregation::StatisticsPlan> statistics_of(const attest::Manifest& manifest) {
  std::vector<aggregation::Column> columns;
  for (const auto& c : manifest.columns) {
    const auto kind = c.kind == "number" ? aggregation::Column::Kind::number : aggregation::Column::Kind::category;
    columns.push_back({c.name, kind, c.categories});
  }
  return aggregation::StatisticsPlan::make(std::move(columns), manifest.statistics_kinds);
}

Result<void> add(Plan& plan, std::string task, UpdateFormat format, std::uint64_t weight_at_most,
                 std::uint64_t contributors_at_most) {
  const aggregation::Bounds bounds{.contributors_at_least = plan.at_least,
                                   .contributors_at_most = contributors_at_most,
                                   .weight_at_most = weight_at_most};
  if (const auto grid = aggregation::Grid::make(format, bounds); !grid) return grid.error();
  plan.bounds.emplace(task, bounds);
  plan.formats.emplace(std::move(task), std::make_shared<const UpdateFormat>(std::move(format)));
  return {};
}

}  // namespace

protocols::round::Shapes Plan::shapes() const {
  protocols::round::Shapes out;
  for (const auto& [task, format] : formats)
    out.emplace(task, protocols::round::Shape{format->schema.digest(), format->schema.bytes()});
  return out;
}

Result<Plan> make_plan(const attest::Charter& charter) {
  const attest::Manifest& manifest = charter.manifest;
  auto model = schema_of(manifest);
  if (!model) return model.error();
  const auto algorithm = aggregation::find_algorithm(manifest.algorithm);
  if (!algorithm) return algorithm.error();
  Plan plan{.model = *model, .algorithm = *algorithm, .statistics = {}, .formats = {}, .bounds = {}};
  plan.at_least = protocols::round::minimum_contributors(charter).at_least;
  const std::uint64_t sites = manifest.data_owners().size();

  auto train = aggregation::train_format(*model, manifest.value_bound);
  if (!train) return train.error();
  if (auto ok = add(plan, "train", std::move(*train), manifest.weight_at_most, sites); !ok) return ok.error();
  if (!manifest.statistics_kinds.empty()) {
    auto statistics = statistics_of(manifest);
    if (!statistics) return statistics.error();
    plan.statistics = std::move(*statistics);
    if (auto ok = add(plan, "statistics", aggregation::statistics_format(*plan.statistics), 1, sites); !ok)
      return ok.error();
  }
  if (!manifest.evaluate_kinds.empty()) {
    auto evaluate = aggregation::evaluate_format(manifest.evaluate_bins);
    if (!evaluate) return evaluate.error();
    if (auto ok = add(plan, "evaluate", std::move(*evaluate), 1, sites); !ok) return ok.error();
  }
  return plan;
}

}  // namespace cloister::enclave

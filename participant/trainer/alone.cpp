#include "participant/trainer/alone.hpp"

#include <algorithm>
#include <fmt/format.h>

#include "aggregation/evaluate.hpp"
#include "base/file.hpp"

namespace cloister::participant::trainer {
namespace {

constexpr std::size_t file_at_most = std::size_t{4} << 30;

std::uint64_t split_of(const attest::Settings& settings) {
  return static_cast<std::uint64_t>(settings.at("split"));
}

/// All tables under one another.
data::Table pooled(const std::vector<File>& files, std::uint64_t split, std::vector<std::size_t>& train) {
  data::Table out;
  out.columns.resize(files.front().table.columns.size());
  for (const File& file : files) {
    for (const std::size_t row : data::split_records(file.table.records(), split).train)
      train.push_back(out.records() + row);
    for (std::size_t c = 0; c < out.columns.size(); ++c)
      out.columns[c].insert(out.columns[c].end(), file.table.columns[c].begin(), file.table.columns[c].end());
    out.labels.insert(out.labels.end(), file.table.labels.begin(), file.table.labels.end());
  }
  return out;
}

/// The statistics task with one contributor, by the code that sums many.
Result<std::optional<aggregation::Statistics>> own_statistics(const attest::Manifest& manifest,
                                                              const data::Table& table,
                                                              const std::vector<std::size_t>& train,
                                                              const std::set<std::string>& suppress) {
  if (manifest.statistics_kinds.empty()) return std::optional<aggregation::Statistics>();
  const auto declaration = data::Declaration::of(manifest);
  const auto plan = aggregation::StatisticsPlan::make(declaration.statistic_columns(), manifest.statistics_kinds);
  if (!plan) return plan.error();
  const Bytes update =
      aggregation::statistics_update(*plan, data::count(table, declaration, train), manifest.statistics_minimum_count);
  const auto format = std::make_shared<const aggregation::UpdateFormat>(aggregation::statistics_format(*plan));
  aggregation::StagedUpdate slot(format);
  if (const auto fed = slot.feed(update); !fed) return fed.error();
  auto sum = aggregation::Sum::make(format, {}).value();
  sum.add(std::move(slot).complete(base::sha256(update)).value(), 1).value();
  auto out = aggregation::Statistics::from(*plan, std::move(sum).report().value(), 1);
  for (aggregation::ColumnStatistic& column : out.columns)
    if (suppress.count(column.name) != 0) column = {.name = column.name, .kind = column.kind};
  return std::optional(std::move(out));
}

}  // namespace

Result<File> load(const attest::Manifest& manifest, const std::string& path) {
  const auto bytes = base::read_file(path, file_at_most);
  if (!bytes) return bytes.error();
  auto table = data::read_table(base::text(*bytes), data::Declaration::of(manifest), path);
  if (!table) return table.error();
  return File{path, std::move(*table)};
}

Result<Alone> train_alone(const attest::Manifest& manifest, const attest::Settings& settings,
                          const std::vector<File>& files, const AloneOptions& options) {
  for (const std::string& name : options.suppress)
    if (std::none_of(manifest.columns.begin(), manifest.columns.end(), [&](const auto& c) { return c.name == name; }))
      return base::malformed("--suppress", fmt::format("the manifest has no column \"{}\"", name));
  const auto architecture = Architecture::of(manifest);
  if (!architecture) return architecture.error();
  std::vector<std::size_t> train;
  const data::Table table = pooled(files, split_of(settings), train);
  auto statistics = own_statistics(manifest, table, train, options.suppress);
  if (!statistics) return statistics.error();
  const auto features = data::Features::make(manifest, *statistics);
  if (!features) return features.error();
  Training training = training_of(settings, 0);
  training.epochs *= static_cast<std::uint32_t>(settings.at("rounds"));
  training.mu = 0;  // there is no round's model to stay near
  Network network(*architecture, options.seed);
  network.train(features->of(table, train).values, labels_of(table, train), training);
  auto schema = aggregation::Schema::make(architecture->tensors());
  if (!schema) return schema.error();
  return Alone{{std::move(*schema), network.values()}, std::move(*statistics), features->without()};
}

Result<std::vector<Score>> score(const attest::Manifest& manifest, const attest::Settings& settings,
                                 const aggregation::Model& model,
                                 const std::optional<aggregation::Statistics>& statistics,
                                 const std::vector<File>& files) {
  const auto architecture = Architecture::of(manifest);
  if (!architecture) return architecture.error();
  if (model.schema.tensors() != architecture->tensors())
    return base::malformed("model", "has other tensors than the manifest's architecture");
  const auto features = data::Features::make(manifest, statistics);
  if (!features) return features.error();
  Network network(*architecture, 0);
  network.load(model.values);
  std::vector<Score> out;
  for (std::size_t f = 0; f < files.size(); ++f) {
    const auto rows = data::split_records(files[f].table.records(), split_of(settings)).test;
    const auto scores = network.scores(features->of(files[f].table, rows).values);
    for (std::size_t i = 0; i < rows.size(); ++i) out.push_back({f, files[f].table.labels[rows[i]], scores[i]});
  }
  return out;
}

std::optional<double> auc(std::vector<Score> scores) {
  std::sort(scores.begin(), scores.end(), [](const Score& a, const Score& b) { return a.score < b.score; });
  std::vector<std::uint64_t> positives, negatives;  // a bin for each different score
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (i == 0 || scores[i].score != scores[i - 1].score) positives.push_back(0), negatives.push_back(0);
    ++(scores[i].label ? positives : negatives).back();
  }
  return aggregation::auc(positives, negatives);
}

}  // namespace cloister::participant::trainer

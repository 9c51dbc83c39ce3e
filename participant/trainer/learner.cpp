#include "participant/trainer/learner.hpp"

#include <cstring>
#include <fmt/format.h>

#include "aggregation/evaluate.hpp"
#include "aggregation/update.hpp"
#include "base/encoding.hpp"

namespace cloister::participant::trainer {
namespace {

using aggregation::UpdateFormat;

/// The enclave's own check of an update, made before it leaves.
Result<SiteUpdate> checked(SiteUpdate update, UpdateFormat format) {
  aggregation::StagedUpdate slot(std::make_shared<const UpdateFormat>(std::move(format)));
  if (const auto fed = slot.feed(update.bytes); !fed) return fed.error();
  if (!slot.whole()) return base::malformed("update", "is shorter than its format");
  return update;
}

double setting(const attest::Settings& settings, const std::string& name, double otherwise) {
  const auto found = settings.find(name);
  return found == settings.end() ? otherwise : found->second;
}

std::uint64_t shuffle_seed(std::uint64_t split, std::uint32_t round) {
  const auto digest = base::sha256(base::Writer().field("cloister shuffle 1").u64(split).u32(round).bytes());
  return base::Reader("seed", digest).u64("seed");
}

}  // namespace

Training training_of(const attest::Settings& settings, std::uint32_t round) {
  const auto split = static_cast<std::uint64_t>(setting(settings, "split", 0));
  return {.epochs = static_cast<std::uint32_t>(setting(settings, "local_epochs", 1)),
          .batch_size = static_cast<std::uint32_t>(setting(settings, "batch_size", 0)),
          .learning_rate = setting(settings, "learning_rate", 0.1),
          .weight_decay = setting(settings, "weight_decay", 0),
          .mu = setting(settings, "mu", 0),
          .seed = shuffle_seed(split, round)};
}

std::vector<std::uint8_t> labels_of(const data::Table& table, const std::vector<std::size_t>& rows) {
  std::vector<std::uint8_t> out;
  for (const std::size_t row : rows) out.push_back(table.labels[row]);
  return out;
}

Learner::Learner(attest::Manifest manifest, attest::Settings settings, Architecture architecture,
                 aggregation::Schema schema, data::Table table)
    : manifest_(std::move(manifest)),
      settings_(std::move(settings)),
      architecture_(std::move(architecture)),
      schema_(std::move(schema)),
      table_(std::move(table)),
      split_(data::split_records(table_.records(), static_cast<std::uint64_t>(setting(settings_, "split", 0)))) {}

Result<Learner> Learner::make(const attest::Manifest& manifest, const attest::Settings& settings, std::string_view csv,
                              const std::string& name) {
  auto complete = attest::complete_settings(manifest, settings);
  if (!complete) return complete.error();
  auto architecture = Architecture::of(manifest);
  if (!architecture) return architecture.error();
  auto schema = pinned_schema(*architecture, manifest);
  if (!schema) return schema.error();
  auto table = data::read_table(csv, data::Declaration::of(manifest), name);
  if (!table) return table.error();
  return Learner(manifest, std::move(*complete), std::move(*architecture), std::move(*schema), std::move(*table));
}

Result<SiteUpdate> Learner::statistics() const {
  const auto declaration = data::Declaration::of(manifest_);
  auto plan = aggregation::StatisticsPlan::make(declaration.statistic_columns(), manifest_.statistics_kinds);
  if (!plan) return plan.error();
  const auto columns = data::count(table_, declaration, split_.train);
  return checked({aggregation::statistics_update(*plan, columns, manifest_.statistics_minimum_count), 1},
                 aggregation::statistics_format(*plan));
}

Result<aggregation::Model> Learner::parse(View bytes) const {
  auto model = aggregation::parse_model(bytes);
  if (!model) return model.error();
  if (!(model->schema == schema_))
    return base::malformed("model",
                           fmt::format("wanted the manifest's schema {}, found {}", base::digest_text(schema_.digest()),
                                       base::digest_text(model->schema.digest())));
  return model;
}

Result<SiteUpdate> Learner::train(std::uint32_t round, const std::optional<aggregation::Statistics>& statistics,
                                  View bytes) const {
  const auto model = parse(bytes);
  if (!model) return model.error();
  if (split_.train.empty())
    return base::unavailable("records", fmt::format("none of {} is a training record", table_.records()));
  const auto features = data::Features::make(manifest_, statistics);
  if (!features) return features.error();
  auto format = aggregation::train_format(schema_, manifest_.value_bound);
  if (!format) return format.error();
  Network network(architecture_, 0);
  network.load(model->values);
  network.train(features->of(table_, split_.train).values, labels_of(table_, split_.train),
                training_of(settings_, round));
  std::vector<float> delta = network.values();
  for (std::size_t i = 0; i < delta.size(); ++i) delta[i] -= model->values[i];
  SiteUpdate out{Bytes(delta.size() * sizeof(float)), split_.train.size()};
  std::memcpy(out.bytes.data(), delta.data(), out.bytes.size());
  return checked(std::move(out), std::move(*format));
}

Result<SiteUpdate> Learner::evaluate(const std::optional<aggregation::Statistics>& statistics, View bytes) const {
  const auto model = parse(bytes);
  if (!model) return model.error();
  const auto features = data::Features::make(manifest_, statistics);
  if (!features) return features.error();
  auto format = aggregation::evaluate_format(manifest_.evaluate_bins);
  if (!format) return format.error();
  Network network(architecture_, 0);
  network.load(model->values);
  const auto scores = network.scores(features->of(table_, split_.test).values);
  return checked({aggregation::evaluate_update(manifest_.evaluate_bins, scores, labels_of(table_, split_.test),
                                               manifest_.evaluate_minimum_count),
                  1},
                 std::move(*format));
}

}  // namespace cloister::participant::trainer

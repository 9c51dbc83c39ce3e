#include "aggregation/enclave/reducer.hpp"

#include "aggregation/evaluate.hpp"

namespace cloister::enclave {

Result<Reducer> Reducer::make(std::shared_ptr<const Plan> plan, const attest::Manifest& manifest,
                              const attest::Settings& settings, View model) {
  if (const auto found = base::sha256(model); found != manifest.initial_model)
    return base::untrusted("initial model", "wanted the charter's " + base::digest_text(manifest.initial_model) +
                                                ", found " + base::digest_text(found) +
                                                "; send the file that the owners signed");
  auto parsed = aggregation::parse_model(model);
  if (!parsed) return parsed.error();
  if (!(parsed->schema == plan->model))
    return base::malformed("initial model.schema",
                           "wanted the manifest's tensors, found others; found a new charter with the right digest");
  const auto checked = aggregation::check_settings(*plan->algorithm, settings);
  if (!checked) return checked.error();
  Reducer out;
  out.optimizer_ = plan->algorithm->optimizer(*checked, plan->model);
  out.model_ = std::make_unique<aggregation::Model>(std::move(*parsed));
  out.plan_ = std::move(plan);
  return out;
}

Result<void> Reducer::begin(const std::string& task) {
  complete_.clear();
  sum_.reset();
  auto sum = aggregation::Sum::make(plan_->formats.at(task), plan_->bounds.at(task), kernels_);
  if (!sum) return sum.error();
  sum_ = std::move(*sum);
  return {};
}

Result<base::Sha256> Reducer::complete(const std::string& owner, WholeUpdate update) {
  auto complete = update.complete();
  if (!complete) return complete.error();
  const base::Sha256 digest = complete->digest();
  complete_.erase(owner);
  complete_.emplace(owner, Complete{std::move(*complete), std::move(update)});
  return digest;
}

Result<void> Reducer::add(const std::string& owner, std::uint64_t weight) {
  const auto it = complete_.find(owner);
  if (it == complete_.end() || !sum_)
    return base::unavailable("update of " + owner, "it was dropped before it was added");
  auto added = sum_->add(it->second.update, weight);
  complete_.erase(it);
  return added;
}

Result<Reduced> Reducer::reduce(const std::string& task) {
  complete_.clear();
  auto sum = std::exchange(sum_, std::nullopt);
  if (!sum) return base::unavailable("sum of task " + task, "it was never begun");
  const auto report = std::move(*sum).report();
  if (!report) return report.error();
  if (task == "train") return train(*report);
  Reduced out;
  if (task == "statistics")
    out.value = aggregation::Statistics::from(*plan_->statistics, *report, plan_->at_least).serialize();
  if (task == "evaluate") out.value = aggregation::Evaluation::from(*report, plan_->at_least).serialize();
  return out;
}

Result<Reduced> Reducer::train(const aggregation::Report& report) {
  if (auto ok = aggregation::apply(*optimizer_, report, *model_); !ok) return ok.error();
  Reduced out;
  out.model = std::make_shared<const Bytes>(model_->serialize());
  out.model_digest = base::sha256(*out.model);
  if (!optimizer_->state().empty()) out.optimizer = aggregation::state_digest(*optimizer_);
  return out;
}

}  // namespace cloister::enclave

#include "aggregation/enclave/reducer.hpp"

#include "aggregation/evaluate.hpp"

namespace cloister::enclave {

Result<Reducer> Reducer::make(std::shared_ptr<const Plan> plan, const attest::Manifest& manifest,
                              const attest::Settings& settings, std::shared_ptr<const aggregation::ModelFile> model) {
  if (model->digest() != manifest.initial_model)
    return base::untrusted("initial model", "wanted the charter's " + base::digest_text(manifest.initial_model) +
                                                ", found " + base::digest_text(model->digest()) +
                                                "; send the file that the owners signed");
  if (!base::equal(model->bytes().first(model->header().size()), model->header()))
    return base::malformed("initial model.schema",
                           "wanted the manifest's tensors, found others; found a new charter with the right digest");
  if (const auto ok = model->check(); !ok) return ok.error();
  const auto checked = aggregation::check_settings(*plan->algorithm, settings);
  if (!checked) return checked.error();
  Reducer out;
  out.optimizer_ = plan->algorithm->optimizer(*checked, plan->model);
  out.model_ = std::move(model);
  out.plan_ = std::move(plan);
  return out;
}

Result<void> Reducer::begin(const std::string& task) {
  complete_.clear();
  waiting_.clear();
  sum_.reset();
  in_words_.clear();
  auto sum = aggregation::Sum::make(plan_->formats.at(task), plan_->bounds.at(task), kernels_, model_->pages());
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
  auto node = complete_.extract(owner);
  if (!node || !sum_) return base::unavailable("update of " + owner, "it was dropped before it was added");
  node.mapped().weight = weight;
  // Words need the memory of two slots, and two updates that stand in slots bring it.
  if (!node.mapped().update.in_memory() && !sum_->in_words()) {
    waiting_.push_back(std::move(node.mapped()));
    return {};
  }
  if (auto added = add(std::move(node.mapped())); !added) return added;
  return sum_->in_words() ? add_waiting() : Result<void>();
}

Result<void> Reducer::add(Complete complete) {
  if (auto added = sum_->add(std::move(complete.update), complete.weight); !added) return added;
  if (complete.lease.in_memory() && in_words_.size() < 2) in_words_.push_back(std::move(complete.lease));
  return {};
}

Result<void> Reducer::add_waiting() {
  for (Complete& complete : std::exchange(waiting_, {}))
    if (auto added = add(std::move(complete)); !added) return added;
  return {};
}

Result<Reduced> Reducer::reduce(const std::string& task) {
  complete_.clear();
  if (!sum_) return base::unavailable("sum of task " + task, "it was never begun");
  if (auto added = add_waiting(); !added) return added.error();
  if (task == "train") return train();
  const auto report = std::move(*std::exchange(sum_, std::nullopt)).report();
  in_words_.clear();
  if (!report) return report.error();
  Reduced out;
  if (task == "statistics")
    out.value = aggregation::Statistics::from(*plan_->statistics, *report, plan_->at_least).serialize();
  if (task == "evaluate") out.value = aggregation::Evaluation::from(*report, plan_->at_least).serialize();
  return out;
}

Result<Reduced> Reducer::train() {
  aggregation::Sum sum = std::move(*std::exchange(sum_, std::nullopt));
  auto next = std::make_shared<aggregation::ModelFile>(plan_->model, model_->pages());
  const auto made = aggregation::apply(*optimizer_, std::move(sum), *model_, *next);
  in_words_.clear();
  if (!made) return made.error();
  model_ = next;
  return Reduced{.model = std::move(next), .optimizer = optimizer_->state(), .value = {}};
}

}  // namespace cloister::enclave

#include "coordinator/rules.hpp"

#include "attest/judge.hpp"

namespace cloister::coordinator {

using attest::Decision;
using attest::Finding;

namespace {

const attest::Policy& model_policy(const attest::Charter& charter) {
  const attest::Policy* policy = charter.policy(charter.manifest.model_owner().owner);
  if (!policy || !policy->model()) throw Exception(base::malformed("charter", "it has no policy of the model owner"));
  return *policy;
}

Finding of_charter(bool met, std::string requirement, std::string wanted, std::string found, std::string remedy) {
  return {met, "charter", std::move(requirement), std::move(wanted), std::move(found), std::move(remedy)};
}

}  // namespace

Decision judge_submission(const Submission& submission, const attest::Charter& charter, const Usage& usage, Time at) {
  const attest::Policy& policy = model_policy(charter);
  const attest::RunOrder& order = submission.order;
  Decision out = attest::judge_submission(order, charter, usage.runs_of_submitter);
  out.add({.met = order.submitter == submission.connected_as,
           .owner = policy.owner_text(),
           .requirement = "submitters." + submission.connected_as,
           .wanted = "a submission by " + submission.connected_as + ", whose key opened the connection",
           .found = "a submission by " + order.submitter,
           .remedy = "connect with the key that signs the submission"});
  out.add(of_charter(usage.next_run <= charter.manifest.runs, "runs.at_most",
                     "a run from 1 to " + std::to_string(charter.manifest.runs),
                     "run " + std::to_string(usage.next_run), "found a successor charter that covers more runs"));
  // The charter's period, and the model owner's own validity and [study] bounds; the other owners' gates judge for
  // themselves (docs/how-it-works.md).
  attest::Study study{.charter = charter, .at = at, .dry_run = true};
  out.add(attest::judge(nullptr, study, policy));
  return out;
}

Decision judge_cancel(const Run& run, const std::string& connected_as, const attest::Charter& charter) {
  Decision out;
  out.add({.met = run.submitter == connected_as,
           .owner = model_policy(charter).owner_text(),
           .requirement = "submitters." + connected_as,
           .wanted = "the submitter of run " + std::to_string(run.id.run) + ", " + run.submitter,
           .found = connected_as,
           .remedy = "ask " + run.submitter + " to cancel it"});
  return out;
}

}  // namespace cloister::coordinator

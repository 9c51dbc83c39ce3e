#include "participant/gate.hpp"

#include <fmt/format.h>

namespace cloister::participant {
namespace {

using attest::Decision;
using attest::Finding;
using protocols::round::OfferedTask;

void judge_own(Decision& d, const OfferedTask& offered, const GateInputs& in, const std::string& owner_text) {
  const base::Sha256& wanted = in.charter.manifest.trainer;
  d.add({in.trainer == wanted, "charter", "training.trainer", base::digest_text(wanted), base::digest_text(in.trainer),
         "install the trainer that the charter names"});
  d.add({!in.withdrawn, owner_text, "withdrawal", "none in force", in.withdrawn ? "in force" : "none in force",
         "the hospital takes it back (cloister participant withdraw --undo) before an instance has seen it, or stays "
         "out"});
  const RunId run{in.charter.digest, offered.order.run};
  const bool known = in.ledger.begun(run);
  const auto successor = in.ledger.successor(in.charter.digest);
  // By rule: a quorum of witnesses "refuse new runs under the old one from then on; a running run finishes or fails".
  d.add({!successor || known, owner_text, "charter", "the charter in force here",
         successor ? fmt::format("one that {} has succeeded", base::digest_text(*successor))
                   : "the charter in force here",
         "order new runs under the successor"});
}

}  // namespace

Decision judge_task(const OfferedTask& offered, const GateInputs& in) {
  Decision d;
  const attest::Policy* policy = in.charter.policy(in.owner);
  if (policy == nullptr || policy->data() == nullptr) {
    d.add({false, "charter", "party", "a data owner of the charter", in.owner,
           "found a charter that names this hospital"});
    return d;
  }
  const std::string owner_text = policy->owner_text();
  d.add(attest::still_founded(in.charter, in.at));
  if (!in.order_allowed) d.add(attest::judge_order(offered.order, in.charter));
  const RoundId id{in.charter.digest, offered.order.run, offered.round};
  attest::Study study{.charter = in.charter, .at = in.at};
  study.host_data = in.host_data;
  study.settings = offered.settings;
  study.spent = in.ledger.spent(in.charter.manifest.study, id);
  study.task = attest::Task{.kind = offered.task,
                            .cohort = offered.cohort,
                            .trainer = in.trainer,
                            .algorithm = in.charter.manifest.algorithm};
  if (offered.task == "train") study.task->weight = in.train_records;
  d.add(attest::judge(in.claims, study, *policy));
  judge_own(d, offered, in, owner_text);
  return d;
}

}  // namespace cloister::participant

#include "tests/attest/requirements.hpp"

#define FOUND(change) [](Asked& a) { change; }

namespace cloister::tests {
// A row is a line.
// clang-format off
const std::vector<Row>& requirements() {
  static const std::vector<Row> table = {
      // What all signed
      {"usz", "not_after", By::aggregator, {}, FOUND(a.about.at = a.study.charter.not_after), "a time before", "T", "charter"},
      {"usz", "policy", By::aggregator, {}, {}, "", "", "charter"},
      {"usz", "aggregator.measurement", By::aggregator, {}, FOUND(a.claims.measurement.assign(48, 7)), "", "0707", "charter"},
      {"usz", "host_data", By::aggregator, {}, FOUND(a.claims.host_data[0] ^= 1), "00", "01", "charter"},
      {"cloudco", "aggregator.memory", By::launch, {}, FOUND(a.about.launch->memory *= 2), "at most 512 MiB", "1 GiB", "charter"},
      {"cloudco", "aggregator.connections", By::launch, {}, FOUND(a.about.launch->connections = 17), "at most 16", "17", "charter"},
      {"cloudco", "aggregator.duration", By::launch, {}, FOUND(a.about.launch->duration *= 2), "at most 4h", "8h", "charter"},
      {"usz", "settings", By::train, {}, FOUND((*a.about.settings)["rounds"] = 21), "ranges", "rounds: wanted an integer from 1 to 20, found 21", "charter"},
      {"usz", "settings.rounds", By::train, {}, FOUND(a.about.spent->rounds = 10), "at most 10", "train task 11", "charter"},
      {"usz", "tasks", By::train, {}, FOUND(a.about.task->kind = "inspect"), "a task of the manifest", "inspect", "charter"},
      {"usz", "training.trainer", By::train, {}, FOUND(a.about.task->trainer = {}), "sha256:", "sha256:00000000", "charter"},
      {"usz", "training.algorithm", By::train, {}, FOUND(a.about.task->algorithm = "fedprox"), "fedavg", "fedprox", "charter"},
      // Every policy
      {"charite", "signers.at_least", By::dry_run, {{"manifest", "signers = { at_least = 2", "signers = { at_least = 1"}}, {}, "at least 2", "1"},
      {"charite", "signers.among", By::dry_run, {{"charite", "signers = { at_least = 2, among = [\"dpo\", \"it\"] }", "signers = { at_least = 2, among = [\"dpo\", \"it\", \"ceo\"] }"}}, {}, "dpo, it, ceo", "dpo, it"},
      {"usz", "valid.from", By::aggregator, {}, FOUND(a.about.at -= std::chrono::days(2)), "not before", "T"},
      {"usz", "valid.until", By::aggregator, {}, FOUND(a.about.at += std::chrono::days(365)), "before", "T"},
      // [aggregator], of each role
      {"usz", "aggregator.tee", By::aggregator, {}, FOUND(a.claims.kind = "tdx"), "simulated", "tdx"},
      {"usz", "aggregator.tee", By::aggregator, {{"usz", "tee = [\"simulated\"]", "tee = [\"tdx\", \"sev-snp\"]"}}, {}, "tdx, sev-snp", "simulated"},
      {"usz", "aggregator.simulated", By::aggregator, {{"usz", "simulated = true", "simulated = false"}}, {}, "false", "true"},
      {"usz", "aggregator.simulated", By::aggregator, {{"usz", "simulated = true", ""}}, {}, "false", "true"},
      {"usz", "aggregator.measurement", By::aggregator, {}, FOUND(a.claims.measurement.clear()), "", "nothing"},
      {"acme", "aggregator.measurement", By::aggregator, {}, FOUND(a.claims.measurement.back() ^= 1), "", ""},
      {"cloudco", "aggregator.measurement", By::launch, {}, FOUND(a.about.launch->measurement[0] ^= 1), "", ""},
      {"usz", "aggregator.tcb", By::aggregator, {}, FOUND(a.claims.tcb_status = "out-of-date"), "up-to-date", "out-of-date"},
      {"usz", "aggregator.tcb", By::aggregator, {}, FOUND(a.claims.tcb_status.clear()), "up-to-date", "nothing"},
      {"usz", "aggregator.tcb.date", By::aggregator, {}, FOUND(a.claims.tcb_date = Time{}), "not before", "1970-01-01"},
      {"usz", "aggregator.tcb.advisories", By::aggregator, {}, FOUND(a.claims.advisories.push_back("INTEL-SA-00837")), "none but INTEL-SA-00001", "INTEL-SA-00837"},
      {"usz", "aggregator.debug", By::aggregator, {}, FOUND(a.claims.debug = true), "false", "true"},
      {"usz", "aggregator.debug", By::aggregator, {{"usz", "debug = false", "debug = true"}}, FOUND(a.claims.debug.reset()), "true or false", "nothing"},
      {"cloudco", "aggregator.platforms", By::aggregator, {}, FOUND(a.claims.platform[0] ^= 1), "simulated:", "simulated:"},
      {"cloudco", "aggregator.platforms", By::aggregator, {}, FOUND(a.claims.platform.clear()), "simulated:", "nothing"},
      {"usz", "aggregator.tee", By::train, {}, FOUND(a.claims.kind.clear()), "simulated", "nothing"},
      // Contradictions between policies
      {"usz", "aggregator.tee", By::dry_run, {{"usz", "tee = [\"simulated\"]", "tee = [\"tdx\"]"}}, {}, "one that every policy accepts", "usz (data): tdx", "charter"},
      {"usz", "aggregator.tcb", By::dry_run, {{"usz", "status = \"up-to-date\"", "status = \"newest\""}}, {}, "one that every policy accepts", "usz (data): newest", "charter"},
      {"usz", "aggregator.platforms", By::dry_run, {{"usz", "platforms = [\"simulated:", "platforms = [\"simulated:ff"}}, {}, "one that every policy accepts", "usz (data): simulated:ff", "charter"},
      {"usz", "aggregator.simulated", By::dry_run, {{"usz", "simulated = true", ""}}, {}, "false", "true: no TEE with hardware is accepted by all"},
      // Study bounds, of the model owner and of a data owner
      {"acme", "study.participants.at_least", By::dry_run, {{"acme", "at_least = 3", "at_least = 5"}}, {}, "at least 5", "4 data owners in the manifest"},
      {"usz", "study.participants.at_least", By::dry_run, {{"usz", "at_least = 3", "at_least = 4"}}, {}, "at least 4", "settings.quorum 3"},
      {"usz", "study.participants.at_least", By::train, {}, FOUND(a.about.task->cohort = 2), "at least 3", "a cohort of 2"},
      {"usz", "study.participants.at_least", By::train, {{"manifest", "quorum = { from = 3", "quorum = { from = 1"}}, FOUND((*a.about.settings)["quorum"] = 2), "at least 3", "settings.quorum 2"},
      {"usz", "study.participants.among", By::dry_run, {{"usz", ", \"va\"]", "]"}}, {}, "charite, usz, ccf", "va"},
      {"acme", "study.participants.among", By::dry_run, {{"acme", "among = [\"charite\"", "among = [\"nobody\""}}, {}, "nobody, usz", "charite"},
      {"usz", "study.runs.at_most", By::dry_run, {{"usz", "runs = { at_most = 20 }", "runs = { at_most = 9 }"}}, {}, "at most 9", "runs.at_most 10"},
      {"usz", "study.runs.at_most", By::train, {}, FOUND(a.about.spent->runs = 20), "at most 20", "run 21 of this study"},
      {"usz", "study.rounds.at_most", By::dry_run, {{"usz", "rounds = { at_most = 50 }", "rounds = { at_most = 5 }"}}, {}, "at most 5", "settings.rounds 20"},
      {"usz", "study.rounds.at_most", By::train, {{"usz", "rounds = { at_most = 50 }", "rounds = { at_most = 5 }"}}, {}, "at most 5", "settings.rounds 10"},
      {"usz", "study.rounds.at_most", By::train, {}, FOUND(a.about.spent->rounds = 50), "at most 50", "train task 51 of this run"},
      {"usz", "study.publish.model", By::dry_run, {{"usz", "model = \"final\"", "model = \"never\""}}, {}, "never", "final"},
      {"usz", "study.publish.model", By::dry_run, {{"manifest", "model = \"final\"", "model = \"every-round\""}}, {}, "at most final", "every-round"},
      {"acme", "study.publish.evaluate", By::dry_run, {{"acme", "evaluate = \"every-round\"", "evaluate = \"final\""}}, {}, "at most final", "every-round"},
      {"usz", "study.publish.statistics", By::dry_run, {{"usz", "statistics = \"cohort\"", "statistics = \"never\""}}, {}, "never", "cohort"},
      // The data owner
      {"usz", "purpose", By::dry_run, {{"usz", "cardiac risk", "cardiac  risk"}}, {}, "cardiac  risk", "cardiac risk"},
      {"usz", "data.columns", By::dry_run, {{"usz", "\"cp\", ", ""}}, {}, "age, sex, num", "cp"},
      {"usz", "data.columns", By::dry_run, {{"usz", ", \"num\"", ""}}, {}, "age, sex, cp", "num"},
      {"usz", "data.records.at_most", By::train, {}, FOUND(a.about.task->weight = 501), "at most 500", "more"},
      {"usz", "data.records.at_most", By::train, {{"manifest", "weight_at_most = 1000", "weight_at_most = 100"}}, FOUND(a.about.task->weight = 101), "at most 100", "more"},
      {"usz", "data.records.at_most", By::train, {}, FOUND(a.about.task->weight = 0), "at most 500", "none"},
      {"usz", "tasks.train", By::dry_run, {{"usz", "train = {", "# train = {"}}, {}, "no train task", "train"},
      {"usz", "tasks.train.trainer", By::dry_run, {{"usz", base::digest_text(base::sha256(base::view("trainer"))), "sha256:" + std::string(64, '0')}}, {}, "sha256:00", "sha256:"},
      {"usz", "tasks.train.trainer", By::train, {}, FOUND(a.about.task->trainer = {}), "sha256:", "sha256:00"},
      {"usz", "tasks.train.algorithms", By::dry_run, {{"usz", "\"fedavg\", ", ""}}, {}, "fedprox, fedadam", "fedavg"},
      {"usz", "tasks.train.algorithms", By::train, {}, FOUND(a.about.task->algorithm = "fedsgd"), "fedavg", "fedsgd"},
      {"usz", "tasks.statistics", By::dry_run, {{"usz", "statistics = { kinds", "# statistics = { kinds"}}, {}, "no statistics task", "statistics"},
      {"usz", "tasks.statistics.kinds", By::dry_run, {{"usz", "\"variance\", ", ""}}, {}, "mean, frequency", "variance"},
      {"usz", "tasks.statistics.minimum_count", By::dry_run, {{"usz", "minimum_count = 10", "minimum_count = 11"}}, {}, "at least 11", "10"},
      {"usz", "tasks.statistics.at_most", By::statistics, {}, FOUND(a.about.spent->statistics = 2), "at most 2", "statistics task 3 of this run"},
      {"usz", "tasks.statistics.exact", By::dry_run, {{"usz", "at_most = 2, exact = true", "at_most = 2"}, {"usz", "unit = \"none\"", "unit = \"patient\"\nepsilon = 4.0\ndelta = 1e-6"}}, {}, "true under an epsilon", "false"},
      {"usz", "tasks.evaluate", By::dry_run, {{"usz", "evaluate = { kinds", "# evaluate = { kinds"}}, {}, "no evaluate task", "evaluate"},
      {"usz", "tasks.evaluate.kinds", By::dry_run, {{"usz", "kinds = [\"auc\"]", "kinds = [\"calibration\"]"}}, {}, "calibration", "auc"},
      {"usz", "tasks.evaluate.minimum_count", By::evaluate, {{"manifest", "bins = 1000\nminimum_count = 10", "bins = 1000\nminimum_count = 9"}}, {}, "at least 10", "9"},
      {"usz", "tasks.evaluate.at_most", By::dry_run, {{"usz", "minimum_count = 10, at_most = 50", "minimum_count = 10, at_most = 19"}}, {}, "at most 19", "20 in one run"},
      {"usz", "tasks.evaluate.at_most", By::evaluate, {}, FOUND(a.about.spent->evaluate = 50), "at most 50", "evaluate task 51 of this run"},
      {"usz", "tasks.evaluate.exact", By::dry_run, {{"usz", "at_most = 50, exact = true", "at_most = 50, exact = false"}, {"usz", "unit = \"none\"", "unit = \"site\"\nepsilon = 4\ndelta = 1e-6"}}, {}, "true under an epsilon", "false"},
      {"usz", "privacy.unit", By::dry_run, {{"usz", "unit = \"none\"", "unit = \"patient\"\nepsilon = 4.0\ndelta = 1e-6"}}, {}, "patient (epsilon 4, delta 1e-06)", "algorithm fedavg without noise"},
      // The compute owner
      {"cloudco", "launch.model_owners", By::launch, {{"cloudco", "model_owners = [\"acme\"]", "model_owners = [\"other\"]"}}, {}, "other", "acme"},
      {"cloudco", "launch.connect", By::launch, {{"cloudco", ", \"va\"]", "]"}}, {}, "charite, usz, ccf", "va"},
      {"cloudco", "launch.memory.at_most", By::launch, {}, FOUND(a.about.launch->memory = std::uint64_t{4} << 30), "at most 2 GiB", "4 GiB"},
      {"cloudco", "launch.memory.at_most", By::dry_run, {{"manifest", "memory = \"512 MiB\"", "memory = \"3 GiB\""}}, {}, "at most 2 GiB", "3 GiB"},
      {"cloudco", "launch.connections.at_most", By::launch, {}, FOUND(a.about.launch->connections = 65), "at most 64", "65"},
      {"cloudco", "launch.duration.at_most", By::launch, {}, FOUND(a.about.launch->duration = std::chrono::hours(13)), "at most 12h", "13h"},
      // The model owner: participants
      {"acme", "submitters", By::dry_run, {{"acme", "alice = {", "# alice = {"}}, {}, "at least one submitter", "none"},
      {"acme", "party", By::participant, {}, FOUND(a.about.participant = "cloudco"), "a data owner of the charter", "cloudco", "charter"},
      {"usz", "participants", By::participant, {}, {}, "the model owner's policy", "another"},
      {"acme", "participants.attested", By::participant, {}, FOUND(a.claims = {}; a.claims.kind = "absent"), "true", "false"},
      {"acme", "participants.tee", By::participant, {}, FOUND(a.claims.kind = "sgx"), "simulated", "sgx"},
      {"acme", "participants.simulated", By::participant, {{"acme", "debug = false\nsimulated = true\n\n[submitters]", "debug = false\n\n[submitters]"}}, {}, "false", "true"},
      {"acme", "participants.measurement", By::participant, {}, FOUND(a.claims.measurement[0] ^= 1), "", ""},
      {"acme", "participants.tcb", By::participant, {}, FOUND(a.claims.tcb_status = "revoked"), "up-to-date", "revoked"},
      {"acme", "participants.tcb.date", By::participant, {}, FOUND(a.claims.tcb_date = {}), "not before", "1970"},
      {"acme", "participants.tcb.advisories", By::participant, {}, FOUND(a.claims.advisories = {"X"}), "none but", "X"},
      {"acme", "participants.debug", By::participant, {}, FOUND(a.claims.debug = true), "false", "true"},
      {"acme", "node.platforms", By::participant, {}, FOUND(a.claims.platform[0] ^= 1), "simulated:", "simulated:", "usz (data)"},
      {"acme", "node.platforms", By::dry_run_attested, {{"usz", "\n[node]\nplatforms", "\n[node]\nplatforms = [\"simulated:00\"]\n#"}, {"usz", "\n[node]\nplatforms = [\"simulated:00\"]", ""}}, {}, "asks for attested participants", "none", "usz (data)"},
  };
  return table;
}
// clang-format on

bool attested_by(const Row& row) {
  return row.by == By::participant || row.by == By::dry_run_attested;
}

attest::Decision decide(const Row& row, const Study& study, bool broken) {
  Asked a{study,
          row.by == By::participant ? study.participant_claims("usz") : study.claims(),
          {.charter = study.charter, .at = study.at}};
  const auto task = [&](const char* kind) {
    a.about.task = study.task(kind);
    a.about.settings = attest::complete_settings(study.charter.manifest, {}).value();
    a.about.spent.emplace();
    if (std::string_view(kind) == "train") a.about.task->weight = 100;
  };
  switch (row.by) {
    case By::dry_run:
    case By::dry_run_attested:
      return attest::check(study.charter, study.at);
    case By::aggregator:
      a.about.host_data.emplace();
      break;
    case By::participant:
      a.about.claims_of_participant = true, a.about.participant = "usz";
      break;
    case By::launch:
      a.about.launch = study.launch();
      break;
    case By::train:
      task("train");
      break;
    case By::statistics:
      task("statistics");
      break;
    case By::evaluate:
      task("evaluate");
      break;
  }
  if (broken && row.breaks) row.breaks(a);
  const bool none = row.by == By::launch || a.claims.kind == "absent";
  if (row.requirement == "policy" && broken) {
    attest::Policy other = study.policy(row.owner);
    other.digest[0] ^= 1;
    return attest::judge(&a.claims, a.about, other);
  }
  return attest::judge(none ? nullptr : &a.claims, a.about, study.policy(row.owner));
}

std::string owner_of(const Row& row, const Study& study) {
  return row.finding_owner.empty() ? study.policy(row.owner).owner_text() : row.finding_owner;
}

}  // namespace cloister::tests

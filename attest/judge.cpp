#include "attest/judge.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <set>

#include "attest/findings.hpp"

namespace cloister::attest {
namespace {

using base::text;

std::string at_most(std::uint64_t n) {
  return fmt::format("at most {}", n);
}
std::string at_least(std::uint64_t n) {
  return fmt::format("at least {}", n);
}

bool contains(const std::vector<std::string>& in, std::string_view what) {
  return std::find(in.begin(), in.end(), what) != in.end();
}

std::vector<std::string> not_in(const std::vector<std::string>& allowed, const std::vector<std::string>& asked) {
  std::vector<std::string> out;
  for (const std::string& a : asked)
    if (!contains(allowed, a)) out.push_back(a);
  return out;
}

std::vector<std::string> not_admitted(const std::vector<std::string>& among, const Manifest& m) {
  constexpr std::size_t enough = 16;  // to see what is wrong
  std::vector<std::string> out;
  if (among == std::vector<std::string>{"anyone"}) return out;
  const std::set<std::string_view> admitted(among.begin(), among.end());
  for (const Party& p : m.parties)
    if (p.role == Role::data && out.size() < enough && !admitted.contains(p.owner)) out.push_back(p.owner);
  return out;
}

// "never" < "final", "cohort" < "every-round": how much is let out.
int rank(std::string_view publish) {
  return publish == "never" ? 0 : publish == "every-round" ? 2 : 1;
}

// The run's own setting, or the manifest's default for it; in a dry run the end of the range that asks most of a
// policy.
std::optional<double> setting(const Study& s, const std::string& name, bool lowest = false) {
  const auto range = s.charter.manifest.settings.find(name);
  if (range == s.charter.manifest.settings.end()) return {};
  if (s.settings) {
    const auto chosen = s.settings->find(name);
    return chosen != s.settings->end() ? chosen->second : range->second.otherwise;
  }
  if (!s.dry_run) return {};
  return lowest ? range->second.from : range->second.to;
}

void judge_common(Findings out, const Study& study, const Policy& policy) {
  const Party& party = *study.charter.manifest.party(policy.owner);
  out.add(party.signers_at_least >= policy.signers_at_least, "signers.at_least", at_least(policy.signers_at_least),
          fmt::format("{}", party.signers_at_least), "raise this party's signers.at_least in the manifest");
  std::vector<std::string> named;
  for (const auto& [name, key] : party.signers) named.push_back(name);
  out.add(not_in(policy.signers_among, named).empty() && not_in(named, policy.signers_among).empty(), "signers.among",
          list(policy.signers_among), list(named), "name the same signers in manifest and policy");
  out.add(study.at >= policy.valid_from, "valid.from", "not before " + text(policy.valid_from), text(study.at),
          "wait until the policy is in force");
  out.add(study.at < policy.valid_until, "valid.until", "before " + text(policy.valid_until), text(study.at),
          "the owner signs a new policy, and all sign the charter that holds it");
  out.add(study.charter.not_after <= policy.valid_until, "valid.until",
          "a charter that ends by " + text(policy.valid_until), "one that ends at " + text(study.charter.not_after),
          "shorten the charter or prolong the policy");
}

void judge_bounds(Findings out, const Study& study, const StudyBounds& b) {
  const Manifest& m = study.charter.manifest;
  const std::uint32_t owners = m.data_count();
  out.add(owners >= b.participants_at_least, "study.participants.at_least", at_least(b.participants_at_least),
          fmt::format("{} data owners in the manifest", owners), "invite more data owners");
  if (const auto quorum = setting(study, "quorum", true))
    out.add(*quorum >= b.participants_at_least, "study.participants.at_least", at_least(b.participants_at_least),
            fmt::format("settings.quorum {}", *quorum), "raise settings.quorum: a round may close with that few");
  if (study.task)
    out.add(study.task->cohort >= b.participants_at_least, "study.participants.at_least",
            at_least(b.participants_at_least), fmt::format("a cohort of {}", study.task->cohort),
            "wait until more participants are there");
  const auto strangers = not_admitted(b.participants_among, m);
  out.add(strangers.empty(), "study.participants.among", list(b.participants_among),
          strangers.empty() ? "only those" : list(strangers), "leave them out, or name them in this policy");
  out.add(m.runs <= b.runs_at_most, "study.runs.at_most", at_most(b.runs_at_most),
          fmt::format("runs.at_most {}", m.runs), "lower runs.at_most in the manifest");
  if (study.spent)
    out.add(study.spent->runs < b.runs_at_most, "study.runs.at_most", at_most(b.runs_at_most),
            fmt::format("run {} of this study", study.spent->runs + 1u),
            "the runs are spent: the owner signs a policy that allows more");
  if (const auto rounds = setting(study, "rounds"))
    out.add(*rounds <= b.rounds_at_most, "study.rounds.at_most", at_most(b.rounds_at_most),
            fmt::format("settings.rounds {}", *rounds),
            "choose fewer rounds, or ask the owner for a policy that allows them");
  if (study.spent && study.task && study.task->kind == "train")
    out.add(study.spent->rounds < b.rounds_at_most, "study.rounds.at_most", at_most(b.rounds_at_most),
            fmt::format("train task {} of this run", study.spent->rounds + 1u), "the run has had its rounds");
  const auto publish = [&](const char* what, const std::string& allowed, const std::string& asked) {
    out.add(rank(asked) <= rank(allowed), fmt::format("study.publish.{}", what),
            allowed == "never" ? "never" : "at most " + allowed, asked,
            "publish less, or ask the owner for a policy that allows it");
  };
  publish("model", b.publish_model, m.publish_model);
  publish("evaluate", b.publish_evaluate, m.publish_evaluate);
  publish("statistics", b.publish_statistics, m.publish_statistics);
}

void judge_train(Findings& out, const Study& study, const DataPolicy& p) {
  const Manifest& m = study.charter.manifest;
  out.add(p.train.has_value(), "tasks.train", "no train task unless the policy has [tasks] train", "train",
          "add train to the policy's [tasks]");
  if (!p.train) return;
  const bool train = study.task && study.task->kind == "train";
  const base::Sha256& trainer = train ? study.task->trainer : m.trainer;
  std::vector<std::string> known;
  for (const base::Sha256& t : p.train->trainer) known.push_back(base::digest_text(t));
  out.add(contains(known, base::digest_text(trainer)), "tasks.train.trainer", list(known), base::digest_text(trainer),
          "install a trainer that the policy lists, or review this one and list it");
  const std::string& algorithm = train ? study.task->algorithm : m.algorithm;
  out.add(contains(p.train->algorithms, algorithm), "tasks.train.algorithms", list(p.train->algorithms), algorithm,
          "choose an algorithm that the policy lists");
}

struct Asked {  // what manifest and run ask of a task with exact results
  const std::vector<std::string>& kinds;
  std::uint32_t minimum_count;
  std::optional<std::uint64_t> tasks;  // of one run
  std::uint32_t spent;
};

void judge_exact(Findings& out, const Study& study, const std::string& kind, const std::optional<TaskExact>& allowed,
                 const Asked& asked, bool budget) {
  const std::string key = "tasks." + kind;
  if (asked.kinds.empty() && !(study.task && study.task->kind == kind)) return;
  out.add(allowed.has_value(), key, fmt::format("no {0} task unless the policy has [tasks] {0}", kind), kind,
          fmt::format("add {} to the policy's [tasks]", kind));
  if (!allowed) return;
  const auto extra = not_in(allowed->kinds, asked.kinds);
  out.add(extra.empty(), key + ".kinds", list(allowed->kinds), extra.empty() ? list(asked.kinds) : list(extra),
          "ask for less");
  out.add(asked.minimum_count >= allowed->minimum_count, key + ".minimum_count", at_least(allowed->minimum_count),
          fmt::format("{}", asked.minimum_count), fmt::format("raise {}.minimum_count in the manifest", kind));
  if (asked.tasks)
    out.add(*asked.tasks <= allowed->at_most, key + ".at_most", at_most(allowed->at_most),
            fmt::format("{} in one run", *asked.tasks),
            kind == "evaluate" ? "evaluate less often (evaluate.every) or choose fewer rounds"
                               : "ask the owner for a policy that allows it");
  if (study.spent && study.task && study.task->kind == kind)
    out.add(asked.spent < allowed->at_most, key + ".at_most", at_most(allowed->at_most),
            fmt::format("{} task {} of this run", kind, asked.spent + 1u), "the run has had them");
  if (budget)
    out.add(allowed->exact, key + ".exact", "true under an epsilon: these results get no noise", "false",
            "write exact = true, or leave this task out");
}

void judge_data(Findings out, const Study& study, const DataPolicy& p) {
  const Manifest& m = study.charter.manifest;
  out.add(p.purpose == m.purpose, "purpose", fmt::format("\"{}\"", p.purpose), fmt::format("\"{}\"", m.purpose),
          "one purpose, word for word, in manifest and policy");
  std::vector<std::string> columns{m.label_column};
  for (const Column& c : m.columns) columns.push_back(c.name);
  const auto extra = not_in(p.columns, columns);
  out.add(extra.empty(), "data.columns", list(p.columns), extra.empty() ? "only those" : list(extra),
          "leave them out of the manifest, or list them in this policy");
  if (study.task && study.task->weight) {
    const std::uint64_t bound = std::min(p.records_at_most, m.weight_at_most);
    out.add(*study.task->weight >= 1 && *study.task->weight <= bound, "data.records.at_most", at_most(bound),
            *study.task->weight > bound ? "more"
            : *study.task->weight == 0  ? "none"
                                        : "no more",
            "train on fewer records, or raise the bound in policy and manifest");
  }
  judge_train(out, study, p);
  const bool budget = p.privacy_unit != "none";
  const Spent spent = study.spent.value_or(Spent{});
  judge_exact(out, study, "statistics", p.statistics,
              {m.statistics_kinds, m.statistics_minimum_count, 1, spent.statistics}, budget);
  std::optional<std::uint64_t> evaluations;
  if (const auto rounds = setting(study, "rounds"))
    evaluations = static_cast<std::uint64_t>(*rounds) / m.evaluate_every;
  judge_exact(out, study, "evaluate", p.evaluate,
              {m.evaluate_kinds, m.evaluate_minimum_count, evaluations, spent.evaluate}, budget);
  // By rule: noise belongs to the algorithm. This engine has none that adds it, so every budget is refused.
  out.add(!budget, "privacy.unit",
          budget ? fmt::format("{} (epsilon {}, delta {})", p.privacy_unit, p.epsilon, p.delta) : "none",
          budget ? fmt::format("algorithm {} without noise", m.algorithm) : "none",
          "no algorithm here adds noise: unit = \"none\" says so aloud, or stay out of the study");
  judge_bounds(out, study, p.study);
}

void judge_compute(Findings out, const Study& study, const ComputePolicy& p) {
  const Manifest& m = study.charter.manifest;
  const std::string& owner = m.model_owner().owner;
  const Launch asked =
      study.launch.value_or(Launch{m.aggregator_measurement, m.launch_memory, m.launch_connections, m.launch_duration});
  out.add(admits(p.model_owners, owner), "launch.model_owners", list(p.model_owners), owner,
          "agree with the compute owner on a policy that names this model owner");
  const auto strangers = not_admitted(p.connect_among, m);
  out.add(strangers.empty(), "launch.connect", list(p.connect_among),
          strangers.empty() ? "only those" : list(strangers), "name them in the compute owner's policy");
  out.add(asked.memory <= p.memory_at_most && asked.memory > 0, "launch.memory.at_most",
          "at most " + base::size_text(p.memory_at_most), base::size_text(asked.memory), "ask for less memory");
  out.add(asked.connections <= p.connections_at_most && asked.connections > 0, "launch.connections.at_most",
          at_most(p.connections_at_most), fmt::format("{}", asked.connections), "ask for fewer connections");
  out.add(asked.duration <= p.duration_at_most && asked.duration.count() > 0, "launch.duration.at_most",
          "at most " + text(p.duration_at_most), text(asked.duration), "ask for less time");
}

// What all owners signed binds every judge alike.
void judge_charter(Findings out, const Claims* claims, const Study& study) {
  const Manifest& m = study.charter.manifest;
  out.add(study.at < study.charter.not_after, "not_after", "a time before " + text(study.charter.not_after),
          text(study.at), "found a successor");
  const auto same_measurement = [&](View found) {
    out.add(base::equal(found, m.aggregator_measurement), "aggregator.measurement", base::hex(m.aggregator_measurement),
            found.empty() ? "nothing" : base::hex(found), "start the build that the charter names");
  };
  if (claims != nullptr && !study.claims_of_participant) {
    same_measurement(claims->measurement);
    if (study.host_data)
      out.add(claims->host_data == *study.host_data, "host_data", base::hex(*study.host_data),
              base::hex(claims->host_data), "connect to the instance that was started under this charter");
  }
  if (study.launch) {
    same_measurement(study.launch->measurement);
    out.add(study.launch->memory <= m.launch_memory, "aggregator.memory", "at most " + base::size_text(m.launch_memory),
            base::size_text(study.launch->memory), "ask for what the charter says");
    out.add(study.launch->connections <= m.launch_connections, "aggregator.connections", at_most(m.launch_connections),
            fmt::format("{}", study.launch->connections), "ask for what the charter says");
    out.add(study.launch->duration <= m.launch_duration, "aggregator.duration", "at most " + text(m.launch_duration),
            text(study.launch->duration), "ask for what the charter says");
  }
  if (study.settings) {
    const auto complete = complete_settings(m, *study.settings);
    out.add(complete.has_value(), "settings", "settings inside the manifest's ranges",
            complete ? "those" : complete.error().what, "choose other settings");
  }
  if (!study.task) return;
  const Task& t = *study.task;
  const bool known = t.kind == "train" || (t.kind == "statistics" && !m.statistics_kinds.empty()) ||
                     (t.kind == "evaluate" && !m.evaluate_kinds.empty());
  out.add(known, "tasks", "a task of the manifest", t.kind, "offer only what the manifest declares");
  if (t.kind != "train") return;
  out.add(t.trainer == m.trainer, "training.trainer", base::digest_text(m.trainer), base::digest_text(t.trainer),
          "use the trainer that the charter names");
  out.add(t.algorithm == m.algorithm, "training.algorithm", m.algorithm, t.algorithm,
          "use the algorithm that the charter names");
  if (const auto rounds = setting(study, "rounds"); rounds && study.spent)
    out.add(study.spent->rounds < *rounds, "settings.rounds", fmt::format("at most {}", *rounds),
            fmt::format("train task {}", study.spent->rounds + 1u), "the run has had its rounds");
}

void judge_aggregator(Findings out, const Claims* claims, const Study& study, const Policy& policy) {
  const Manifest& m = study.charter.manifest;
  if (claims != nullptr) return judge_tee(out, "aggregator", policy.aggregator, *claims, study.charter);
  judge_measurement(out, "aggregator", policy.aggregator,
                    study.launch ? study.launch->measurement : m.aggregator_measurement, study.charter);
  if (!study.dry_run && !study.launch)
    out.add(false, "aggregator.tee", list(policy.aggregator.tee), "no evidence", "ask the aggregator for evidence");
}

void judge_participant(Decision& d, Findings out, const Claims* claims, const Study& study, const ModelPolicy& p) {
  const Party* party = study.charter.manifest.party(study.participant);
  const bool known = party != nullptr && party->role == Role::data;
  d.add({known, "charter", "party", "a data owner of the charter", study.participant, "found a charter that names it"});
  const bool met = !p.participants_attested || claims != nullptr;
  out.add(met, "participants.attested", p.participants_attested ? "true" : "false (anyone's machine)",
          claims != nullptr ? "true" : "false",
          fmt::format("run {0}'s node in a TEE that {0}'s policy lists under [node]", study.participant));
  if (!p.participants_attested || claims == nullptr || !known) return;
  judge_tee(out, "participants", *p.participants, *claims, study.charter);
  // An attested hospital's platforms stand in its own policy: nobody else can vouch for its machines.
  const Policy& own = *study.charter.policy(study.participant);
  const auto& listed = own.data()->node_platforms;
  d.add({contains(listed, claims->platform_text()), own.owner_text(), "node.platforms", list(listed),
         claims->platform_text(), "run the node on a machine that its owner's policy lists"});
}

}  // namespace

Decision judge(const Claims* claims, const Study& study, const Policy& policy) {
  Decision d;
  Findings out{d, policy.owner_text()};
  // Judged is only a policy of this very charter: another one of the same owner was not agreed to.
  const Policy* agreed = study.charter.policy(policy.owner);
  d.add({agreed != nullptr && agreed->digest == policy.digest, "charter", "policy",
         agreed == nullptr ? "an owner of this charter" : base::digest_text(agreed->digest),
         agreed == nullptr ? policy.owner : base::digest_text(policy.digest), "found a charter with this policy"});
  if (agreed == nullptr || agreed->role != policy.role) return d;
  judge_charter({d, "charter"}, claims, study);
  judge_common(out, study, policy);
  if (study.claims_of_participant) {
    if (policy.model() != nullptr)
      judge_participant(d, out, claims, study, *policy.model());
    else
      out.add(false, "participants", "the model owner's policy", "another",
              "only the model owner's policy judges participants");
  } else {
    judge_aggregator(out, claims, study, policy);
  }
  if (const ModelPolicy* p = policy.model()) judge_bounds(out, study, p->study);
  if (const DataPolicy* p = policy.data()) judge_data(out, study, *p);
  if (const ComputePolicy* p = policy.compute()) judge_compute(out, study, *p);
  return d;
}

}  // namespace cloister::attest

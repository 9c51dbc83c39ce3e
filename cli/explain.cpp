// A policy in sentences. Whoever signs it reads this beside the TOML; a requirement that is missing here is a bug.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/time.hpp"
#include "cli/owner.hpp"

namespace cloister::cli {
namespace {

using namespace attest;

std::string names(const std::vector<std::string>& list) {
  if (list == std::vector<std::string>{"anyone"}) return "anyone at all";
  return list.empty() ? "nobody" : fmt::format("{}", fmt::join(list, ", "));
}

std::string yes(bool b, const char* if_true, const char* if_false) {
  return b ? if_true : if_false;
}

void explain_tee(std::string& out, const TeeRequirements& t, const char* what) {
  out += fmt::format("- {} must run in one of these kinds of TEE: {}.\n", what, names(t.tee));
  for (const AcceptedMeasurement& m : t.measurement)
    out += m.named.empty() ? fmt::format("- Accepted program: the one that measures {}.\n", base::hex(m.value))
                           : fmt::format("- Accepted program: what {} signs as \"{}\".\n", m.signed_by.text(), m.named);
  out += fmt::format("- The platform's security status must be: {}{}.\n", fmt::join(t.tcb, " or "),
                     t.tcb_date ? ", of a level not older than " + base::text(*t.tcb_date) : std::string());
  out += t.advisories.empty() ? "- No open security advisory is tolerated.\n"
                              : fmt::format("- Tolerated security advisories: {}; any other one denies.\n",
                                            fmt::join(t.advisories, ", "));
  out += yes(t.debug, "- DEBUG MODE IS ALLOWED: whoever runs the machine may then read its memory.\n",
             "- Debug mode is refused.\n");
  out += yes(t.simulated, "- SIMULATED EVIDENCE IS ALLOWED: no hardware protects anything. For experiments only.\n",
             "- Simulated evidence, without hardware behind it, is refused.\n");
  if (t.platforms) out += fmt::format("- Only on these machines: {}.\n", names(*t.platforms));
  if (t.renew.count() > 0)
    out += fmt::format("- Its evidence is judged at every connection; a hospital's node asks for it again every {}.\n",
                       base::text(t.renew));
}

std::string_view publishes(std::string_view how) {
  return how == "never"         ? "is never published"
         : how == "final"       ? "may be published at the end of a run"
         : how == "every-round" ? "may be published after every round"
                                : "may be shown to the participants of the round";
}

void explain_study(std::string& out, const StudyBounds& b) {
  out += "\nThe study\n";
  out += fmt::format("- Nothing happens with fewer than {} participants, drawn from: {}.\n", b.participants_at_least,
                     names(b.participants_among));
  out += fmt::format("- At most {} runs, each of at most {} training rounds.\n", b.runs_at_most, b.rounds_at_most);
  out += fmt::format("- The model {}; evaluation results: {}; statistics: {}.\n", publishes(b.publish_model),
                     publishes(b.publish_evaluate), publishes(b.publish_statistics));
}

void explain_exact(std::string& out, const char* what, const std::optional<TaskExact>& t, const char* counted) {
  if (!t) {
    out += fmt::format("- {}: not allowed.\n", what);
    return;
  }
  out += fmt::format("- {}: {} only, at most {} a run, and nothing that rests on fewer than {} {}.{}\n", what,
                     fmt::join(t->kinds, ", "), t->at_most, t->minimum_count, counted,
                     t->exact ? " The results are exact: no noise is added." : "");
}

void explain_of(std::string& out, const DataPolicy& p) {
  out +=
      fmt::format("\nWhat may be done with the data set \"{}\"\n- Only for this purpose: {}.\n", p.data_set, p.purpose);
  out += fmt::format("- Only these columns: {}.\n- In training this site counts for at most {} records.\n",
                     fmt::join(p.columns, ", "), p.records_at_most);
  if (p.train) {
    out += fmt::format("- Training: allowed with these algorithms: {}.\n", fmt::join(p.train->algorithms, ", "));
    for (const base::Sha256& t : p.train->trainer)
      out += fmt::format("- Accepted training program: {}.\n", base::digest_text(t));
  } else {
    out += "- Training: not allowed.\n";
  }
  explain_exact(out, "Statistics", p.statistics, "records at this site");
  explain_exact(out, "Evaluation", p.evaluate, "test records at this site");
  explain_study(out, p.study);
  out += "\nPrivacy\n";
  if (p.privacy_unit == "none")
    out +=
        "- NO DIFFERENTIAL PRIVACY: published results may disclose something about a patient or this site. Every "
        "report says so.\n";
  else
    out += fmt::format("- Each {} is protected with epsilon {} and delta {}.\n", p.privacy_unit, p.epsilon, p.delta);
  if (!p.node_platforms.empty()) out += fmt::format("\nThis site's own TEE machines: {}.\n", names(p.node_platforms));
}

void explain_of(std::string& out, const ModelPolicy& p) {
  out += "\nWho may see the model\n";
  if (p.participants_attested)
    explain_tee(out, *p.participants, "A participant's node");
  else
    out += "- EVERY PARTICIPANT SEES THE MODEL IT TRAINS: none has to prove what runs on its machine.\n";
  out += "\nWho may submit runs\n";
  for (const Submitter& s : p.submitters)
    out += fmt::format("- {}, with the key {}, at most {} runs.\n", s.name, s.key.text(), s.runs_at_most);
  if (p.submitters.empty()) out += "- Nobody.\n";
  explain_study(out, p.study);
}

void explain_of(std::string& out, const ComputePolicy& p) {
  out += "\nWhat may be started on our machines\n";
  out += fmt::format("- For these model owners: {}.\n- These data owners may connect: {}.\n", names(p.model_owners),
                     names(p.connect_among));
  out += fmt::format("- At most {} of memory, {} connections, for {}.\n", base::size_text(p.memory_at_most),
                     p.connections_at_most, base::text(p.duration_at_most));
}

}  // namespace

std::string explain(const attest::Policy& p) {
  std::string out = fmt::format("The trust policy of {}, {} owner\n", p.owner, name(p.role));
  out += fmt::format("- Signed by at least {} of: {}.\n- In force from {} until {}.\n", p.signers_at_least,
                     names(p.signers_among), base::text(p.valid_from), base::text(p.valid_until));
  out += p.role == Role::model  ? "\nWhich aggregator may hold the model\n"
         : p.role == Role::data ? "\nWhich aggregator gets our updates\n"
                                : "\nWhich aggregator we start\n";
  explain_tee(out, p.aggregator, "The aggregator");
  std::visit([&](const auto& of) { explain_of(out, of); }, p.of);
  return out + "\nWhat is not allowed here is refused.\n";
}

}  // namespace cloister::cli

// `cloister charter check`: what can be known before anything starts.

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <functional>
#include <set>

#include "attest/findings.hpp"

namespace cloister::attest {
namespace {

using Names = std::vector<std::string>;

// Is there one thing that every owner who says something about it accepts? Otherwise no settings can mend it.
void shared(Findings out, const Charter& c, const std::string& requirement,
            const std::function<const Names*(const Policy&)>& of, const char* remedy) {
  std::optional<Names> common;
  Names texts;
  for (const Policy& p : c.policies) {
    const Names* names = of(p);
    if (names == nullptr) continue;
    texts.push_back(fmt::format("{}: {}", p.owner_text(), list(*names)));
    if (!common) common = *names;
    std::erase_if(*common,
                  [&](const std::string& n) { return std::find(names->begin(), names->end(), n) == names->end(); });
  }
  if (common)
    out.add(!common->empty(), requirement, "one that every policy accepts",
            common->empty() ? fmt::format("{}", fmt::join(texts, "; ")) : list(*common), remedy);
}

void check_evidence(Findings out, const Charter& c) {
  shared(
      out, c, "aggregator.tee", [](const Policy& p) { return &p.aggregator.tee; }, "agree on a kind of TEE");
  shared(
      out, c, "aggregator.tcb", [](const Policy& p) { return &p.aggregator.tcb; }, "agree on a TCB status");
  shared(
      out, c, "aggregator.platforms",
      [](const Policy& p) { return p.aggregator.platforms ? &*p.aggregator.platforms : nullptr; },
      "agree on the machines: cloister launcher identity");
  // Where "simulated" is the only kind that all accept, each must have said that no hardware is fine.
  const bool hardware = std::any_of(
      c.policies.front().aggregator.tee.begin(), c.policies.front().aggregator.tee.end(), [&](const std::string& kind) {
        return kind != "simulated" && std::all_of(c.policies.begin(), c.policies.end(), [&](const Policy& p) {
                 return std::find(p.aggregator.tee.begin(), p.aggregator.tee.end(), kind) != p.aggregator.tee.end();
               });
      });
  for (const Policy& p : c.policies)
    Findings{out.decision, p.owner_text()}.add(hardware || p.aggregator.simulated, "aggregator.simulated",
                                               p.aggregator.simulated ? "true or false" : "false",
                                               hardware ? "false" : "true: no TEE with hardware is accepted by all",
                                               "agree on a TEE with hardware, or write simulated = true");
}

// A model owner who wants attested participants needs each of them to list its machines.
void check_nodes(Findings out, const Charter& c) {
  const Policy& model = *c.policy(c.manifest.model_owner().owner);
  out.add(!model.model()->submitters.empty(), "submitters", "at least one submitter",
          model.model()->submitters.empty() ? "none" : fmt::format("{}", model.model()->submitters.size()),
          "nobody could submit a run: name a submitter and its key in the model owner's policy");
  if (!model.model()->participants_attested) return;
  for (const Party* p : c.manifest.data_owners()) {
    const Policy& own = *c.policy(p->owner);
    Findings{out.decision, own.owner_text()}.add(
        !own.data()->node_platforms.empty(), "node.platforms",
        fmt::format("its TEE platforms, since {} asks for attested participants", model.owner_text()),
        list(own.data()->node_platforms), "list the machine's identity under [node], or stay out of the study");
  }
}

}  // namespace

Decision check(const Charter& charter, Time at) {
  Decision d;
  Study study{.charter = charter, .at = at};
  study.dry_run = true;
  std::set<std::string> seen;  // what all signed is judged with every policy, and said once
  for (const Policy& p : charter.policies)
    for (Finding& f : judge(nullptr, study, p).findings)
      if (f.owner != "charter" || seen.insert(f.text()).second) d.add(std::move(f));
  Findings all{d, "charter"};
  check_evidence(all, charter);
  check_nodes({d, charter.policy(charter.manifest.model_owner().owner)->owner_text()}, charter);
  return d;
}

}  // namespace cloister::attest

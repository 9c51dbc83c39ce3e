#include "attest/decision.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace cloister::attest {

std::string Finding::text() const {
  std::string out = fmt::format("{} {}: {}: wanted {}, found {}{}{}", met ? "met for" : "denied by", owner, requirement,
                                wanted, found, met || remedy.empty() ? "" : "; ", met ? "" : remedy);
  // What was found may be a peer's words: it must not end the line or move a terminal's cursor.
  for (char& c : out)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  return out;
}

std::string Finding::json() const {
  using base::json_escape;
  return fmt::format(R"({{"met": {}, "owner": {}, "requirement": {}, "wanted": {}, "found": {}, "remedy": {}}})", met,
                     json_escape(owner), json_escape(requirement), json_escape(wanted), json_escape(found),
                     json_escape(remedy));
}

bool Decision::allowed() const {
  return !findings.empty() && std::all_of(findings.begin(), findings.end(), [](const Finding& f) { return f.met; });
}

std::vector<Finding> Decision::refusals() const {
  std::vector<Finding> out;
  std::copy_if(findings.begin(), findings.end(), std::back_inserter(out), [](const Finding& f) { return !f.met; });
  return out;
}

std::string Decision::explain() const {
  if (findings.empty()) return "denied: no requirement was evaluated";
  if (allowed()) return fmt::format("allowed: {} requirements met", findings.size());
  std::string out;
  for (const Finding& f : refusals()) out += (out.empty() ? "" : "\n") + f.text();
  return out;
}

std::string Decision::json() const {
  std::string list;
  for (const Finding& f : findings) list += (list.empty() ? "" : ", ") + f.json();
  return fmt::format(R"({{"allowed": {}, "findings": [{}]}})", allowed(), list);
}

void log_refusals(base::Log& log, const Decision& decision, std::string_view about) {
  if (decision.findings.empty())
    log.event("refusal", fmt::format("{}: {}", about, decision.explain()), {{"about", about}});
  for (const Finding& f : decision.refusals())
    log.event("refusal", fmt::format("{}: {}", about, f.text()),
              {{"about", about},
               {"owner", f.owner},
               {"requirement", f.requirement},
               {"wanted", f.wanted},
               {"found", f.found},
               {"remedy", f.remedy}});
}

}  // namespace cloister::attest

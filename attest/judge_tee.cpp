#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "attest/findings.hpp"

namespace cloister::attest {
namespace {

bool contains(const std::vector<std::string>& in, std::string_view what) {
  return std::find(in.begin(), in.end(), what) != in.end();
}

std::string text(const AcceptedMeasurement& m, const Charter& charter) {
  if (m.named.empty()) return base::hex(m.value);
  const Bytes* value = charter.reference(m.named, m.signed_by);
  return fmt::format("\"{}\" signed by {} ({})", m.named, m.signed_by.text(),
                     value == nullptr ? "the charter has no such reference value" : base::hex(*value));
}

void judge_tcb(Findings& out, const std::string& section, const TeeRequirements& wanted, const Claims& found) {
  out.add(contains(wanted.tcb, found.tcb_status), section + ".tcb", list(wanted.tcb),
          found.tcb_status.empty() ? "nothing" : found.tcb_status,
          "update the platform's firmware and microcode, or accept this status with its date and advisories");
  if (wanted.tcb_date)
    out.add(found.tcb_date >= *wanted.tcb_date, section + ".tcb.date", "not before " + base::text(*wanted.tcb_date),
            base::text(found.tcb_date), "update the platform to a newer TCB level");
  std::vector<std::string> open;
  for (const std::string& a : found.advisories)
    if (!contains(wanted.advisories, a)) open.push_back(a);
  out.add(open.empty(), section + ".tcb.advisories",
          wanted.advisories.empty() ? "none" : "none but " + list(wanted.advisories), list(open),
          "update the platform, or tolerate the advisory by name");
}

}  // namespace

std::string list(const std::vector<std::string>& names) {
  return names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", "));
}

bool accepts(const TeeRequirements& requirements, View measurement, const Charter& charter) {
  if (measurement.empty()) return false;
  return std::any_of(
      requirements.measurement.begin(), requirements.measurement.end(), [&](const AcceptedMeasurement& m) {
        const Bytes* value = m.named.empty() ? &m.value : charter.reference(m.named, m.signed_by);
        return value != nullptr && std::equal(value->begin(), value->end(), measurement.begin(), measurement.end());
      });
}

void judge_measurement(Findings out, const std::string& section, const TeeRequirements& wanted, View found,
                       const Charter& charter) {
  std::vector<std::string> texts;
  for (const AcceptedMeasurement& m : wanted.measurement) texts.push_back(text(m, charter));
  out.add(accepts(wanted, found, charter), section + ".measurement", list(texts),
          found.empty() ? "nothing" : base::hex(found),
          "start a build that this policy lists, or review the other one and list it");
}

void judge_tee(Findings out, const std::string& section, const TeeRequirements& wanted, const Claims& found,
               const Charter& charter) {
  out.add(contains(wanted.tee, found.kind), section + ".tee", list(wanted.tee),
          found.kind.empty() ? "nothing" : found.kind, "run in a TEE that this policy lists");
  out.add(wanted.simulated || !found.simulated, section + ".simulated", wanted.simulated ? "true or false" : "false",
          found.simulated ? "true" : "false",
          "run in a TEE; or, where nothing needs protection, write simulated = true");
  judge_measurement(out, section, wanted, found.measurement, charter);
  judge_tcb(out, section, wanted, found);
  out.add(found.debug.has_value() && (wanted.debug || !*found.debug), section + ".debug",
          wanted.debug ? "true or false" : "false",
          !found.debug   ? "nothing"
          : *found.debug ? "true"
                         : "false",
          "start the TEE without its debug bit");
  if (wanted.platforms)
    out.add(!found.platform.empty() && contains(*wanted.platforms, found.platform_text()), section + ".platforms",
            list(*wanted.platforms), found.platform.empty() ? "nothing" : found.platform_text(),
            "run on a listed machine, or list this one: cloister launcher identity");
}

}  // namespace cloister::attest

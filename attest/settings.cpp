#include <cmath>
#include <fmt/format.h>

#include "attest/manifest.hpp"
#include "base/config.hpp"

namespace cloister::attest {

using base::denied;

const std::vector<SettingRule>& setting_rules() {
  static const std::vector<SettingRule> rules = {
      {"rounds", true, 1, 1'000'000, {}, "", "train tasks of a run"},
      {"quorum", true, 1, 1'000'000, 0.0, "", "contributors that may close a round before its deadline"},
      {"local_epochs", true, 1, 10'000, {}, "", "passes over a site's records in one train task"},
      {"batch_size", true, 1, 1'000'000, {}, "", "records of one optimizer step"},
      {"learning_rate", false, 1e-12, 1e6, {}, "", "of the site's optimizer"},
      {"weight_decay", false, 0, 1e6, 0.0, "", "of the site's optimizer"},
      {"mu", false, 0, 1e6, {}, "fedprox", "weight of the proximal term (Li et al. 2020)"},
      {"server_learning_rate", false, 1e-12, 1e6, 1.0, "", "factor on the mean update"},
      {"beta1", false, 0, 0.999999, {}, "fedadam", "decay of the first moment (Reddi et al. 2021)"},
      {"beta2", false, 0, 0.999999, {}, "fedadam", "decay of the second moment"},
      {"tau", false, 1e-12, 1e6, {}, "fedadam", "adaptivity: added to the root of the second moment"},
      {"split", true, 0, 4'294'967'295, 0.0, "", "which third of the records tests"},
  };
  return rules;
}

const std::vector<std::string>& setting_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> out;
    for (const SettingRule& r : setting_rules()) out.emplace_back(r.name);
    return out;
  }();
  return names;
}

Result<Settings> complete_settings(const Manifest& manifest, const Settings& chosen) {
  Settings out;
  for (const auto& [name, range] : manifest.settings) out[name] = range.otherwise;
  std::string wrong;
  const auto complain = [&](std::string text) { wrong += (wrong.empty() ? "" : "; ") + text; };
  for (const auto& [name, value] : chosen) {
    const auto range = manifest.settings.find(name);
    if (range == manifest.settings.end()) {
      std::vector<std::string> known;
      for (const auto& [k, r] : manifest.settings) known.push_back(k);
      const std::string close = base::nearest(name, known);
      complain(fmt::format("{}: no such setting of {}{}", name, manifest.algorithm,
                           close.empty() ? "" : fmt::format("; did you mean {}?", close)));
      continue;
    }
    const auto& [from, to, otherwise] = range->second;
    bool integer = false;
    for (const SettingRule& r : setting_rules()) integer = integer || (r.name == name && r.integer);
    if (!(value >= from && value <= to) || (integer && value != std::floor(value)))
      complain(fmt::format("{}: wanted {} from {} to {}, found {}", name, integer ? "an integer" : "a number", from, to,
                           value));
    out[name] = value;
  }
  if (!wrong.empty()) return denied("settings", wrong);
  return out;
}

}  // namespace cloister::attest

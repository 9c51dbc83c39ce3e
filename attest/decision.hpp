#pragma once
// A decision with all its reasons.

#include <string>
#include <string_view>
#include <vector>

#include "base/log.hpp"

namespace cloister::attest {

/// One requirement of one owner's policy, evaluated.
struct Finding {
  bool met = false;
  std::string owner{};        ///< "charite (data)"; "charter" for what all signed
  std::string requirement{};  ///< "aggregator.debug": the key in the policy
  std::string wanted{};
  std::string found{};   ///< about data: the check, never a value
  std::string remedy{};  ///< what would admit it

  /// "denied by charite (data): aggregator.debug: wanted false, found true; start the TEE without its debug bit"
  std::string text() const;
  std::string json() const;  ///< an object with the members' names
};

/// Every requirement that was evaluated. Nothing evaluated is a denial.
struct Decision {
  std::vector<Finding> findings;

  bool allowed() const;
  std::vector<Finding> refusals() const;  ///< the findings that are not met
  std::string explain() const;            ///< a line per refusal, or "allowed: N requirements met"
  std::string json() const;               ///< {"allowed": …, "findings": […]}
  void add(Finding finding) { findings.push_back(std::move(finding)); }
  void add(const Decision& other) { findings.insert(findings.end(), other.findings.begin(), other.findings.end()); }
};

/// Logs each refusal as an event "refusal" with owner, requirement, wanted, found, remedy and `about` (who or what was
/// refused).
void log_refusals(base::Log& log, const Decision& decision, std::string_view about);

}  // namespace cloister::attest

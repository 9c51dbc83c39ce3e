#pragma once
// How the parts of judge() report: one owner's findings, and the parts themselves.

#include <string>

#include "attest/judge.hpp"

namespace cloister::attest {

/// Adds findings in one owner's name.
struct Findings {
  Decision& decision;
  std::string owner;

  void add(bool met, std::string requirement, std::string wanted, std::string found, std::string remedy) {
    decision.add({met, owner, std::move(requirement), std::move(wanted), std::move(found), std::move(remedy)});
  }
};

std::string list(const std::vector<std::string>& names);  ///< "a, b", or "none"

/// Is `measurement` one that `requirements` accepts? A named one is resolved through the charter's references and the
/// named signer's key only.
bool accepts(const TeeRequirements& requirements, View measurement, const Charter& charter);
/// requirement `section`.measurement.
void judge_measurement(Findings out, const std::string& section, const TeeRequirements& wanted, View found,
                       const Charter& charter);
/// Every requirement of [aggregator] or [participants] against what evidence says.
void judge_tee(Findings out, const std::string& section, const TeeRequirements& wanted, const Claims& found,
               const Charter& charter);

}  // namespace cloister::attest

#pragma once
// The table of requirements: whose policy, which requirement, how it is asked about, what breaks it, and the reason to
// expect.

#include <functional>
#include <string>
#include <vector>

#include "tests/support/study.hpp"

namespace cloister::tests {

/// What the owner's process has at hand when it judges.
enum class By { dry_run, dry_run_attested, aggregator, participant, launch, train, statistics, evaluate };

struct Asked {
  const Study& study;
  attest::Claims claims;
  attest::Study about;
};

struct Row {
  std::string owner;  ///< whose policy judges
  std::string requirement;
  By by;
  std::vector<Edit> edits;             ///< before founding
  std::function<void(Asked&)> breaks;  ///< what is found, after founding
  std::string wanted, found;           ///< parts of the finding's text
  std::string finding_owner{};         ///< when it is not the owner's own text: "charter"
};

const std::vector<Row>& requirements();

/// Does the row need a study whose model owner asks for attested participants?
bool attested_by(const Row& row);
/// What the row's owner decides over `study`; with `broken`, after row.breaks.
attest::Decision decide(const Row& row, const Study& study, bool broken);
/// Whose finding the row expects, as Finding::owner.
std::string owner_of(const Row& row, const Study& study);

}  // namespace cloister::tests

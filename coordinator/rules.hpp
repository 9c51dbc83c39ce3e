#pragma once
// What the coordinator accepts: pure functions, no clock, no I/O, no database.

#include "attest/decision.hpp"
#include "attest/run_order.hpp"
#include "coordinator/store.hpp"

namespace cloister::coordinator {

/// A submission as it came: `submission` has run = 0 and no order signature. `connected_as`: the submitter's name that
/// the connection's pinned key stands for.
struct Submission {
  attest::RunOrder order;
  std::string connected_as;
};

/// May this submission become the next run? Every requirement is evaluated: the charter it names, the charter's and the
/// policy's validity, who submits and whose signature it carries, the submitter's quota, the charter's number of runs,
/// the settings' ranges, and the model owner's own [study] bounds. Every one of the other owners' gates judges for
/// itself later.
attest::Decision judge_submission(const Submission& submission, const attest::Charter& charter, const Usage& usage,
                                  Time at);

/// May this submitter cancel that run? Every submitter sees all runs of its studies and cancels its own.
attest::Decision judge_cancel(const Run& run, const std::string& connected_as, const attest::Charter& charter);

}  // namespace cloister::coordinator

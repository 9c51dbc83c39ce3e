#pragma once
// The one function that decides. Pure: no clock, no I/O, no state. It runs in each owner's own process, in the enclave,
// in `cloister charter check`, and in tests.

#include <optional>
#include <string>

#include "attest/charter.hpp"
#include "attest/claims.hpp"

namespace cloister::attest {

/// What a data owner's ledger says has left already, for the run and charter at hand.
struct Spent {
  std::uint32_t runs = 0;        ///< other runs under this charter's data set and study
  std::uint32_t rounds = 0;      ///< train tasks of this run
  std::uint32_t statistics = 0;  ///< statistics tasks of this run
  std::uint32_t evaluate = 0;    ///< evaluate tasks of this run
};

/// A task that is about to be done for a run.
struct Task {
  std::string kind{};                     ///< "train", "evaluate", "statistics"
  std::uint32_t cohort = 0;               ///< how many participants the round may still count on
  base::Sha256 trainer{};                 ///< train: what would compute the update
  std::string algorithm{};                ///< train
  std::optional<std::uint64_t> weight{};  ///< what the site would claim, once it knows: its training records
};

/// What somebody asks the launcher to start.
struct Launch {
  Bytes measurement;
  std::uint64_t memory = 0;
  std::uint32_t connections = 0;
  std::chrono::milliseconds duration{};
};

/// What is asked of a policy. What is absent is not judged: a dry run has no claims, a launch has no task.
struct Study {
  const Charter& charter;
  Time at{};                             ///< the judging owner's own clock
  std::optional<Array<32>> host_data{};  ///< what the peer's host data must be
  std::optional<Settings> settings{};    ///< of the run
  std::optional<Task> task{};
  std::optional<Spent> spent{};    ///< with `task`
  std::optional<Launch> launch{};  ///< compute owner
  bool dry_run = false;  ///< nothing has started: no claims are expected, settings are judged over their whole ranges
  bool claims_of_participant =
      false;                  ///< `claims` are a participant's (the model owner's [participants]), not the aggregator's
  std::string participant{};  ///< which one
};

/// Evaluates every requirement of `policy` that `study` and `claims` touch: validity; [aggregator] or [participants]
/// against the claims; [study], [tasks], [data], [privacy] against manifest, settings and task; [launch] against the
/// launch. `claims` null: an unattested participant with `claims_of_participant`; not yet there in a dry run and for a
/// `launch`; otherwise a refusal, since who has no evidence is nobody's aggregator. Thread-safe.
Decision judge(const Claims* claims, const Study& study, const Policy& policy);

/// The dry run: judge() of every policy without claims, and the contradictions that no settings could mend: a TEE kind,
/// status, platform or time that no two owners' policies share. Owners come in the manifest's order.
Decision check(const Charter& charter, Time at);

}  // namespace cloister::attest

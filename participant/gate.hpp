#pragma once
// The gate: may this hospital do what it is offered? Every requirement is evaluated and explained. Pure.

#include "attest/judge.hpp"
#include "participant/ledger.hpp"
#include "protocols/round/participant.hpp"

namespace cloister::participant {

/// What the gate knows besides the offer.
struct GateInputs {
  const attest::Charter& charter;
  const std::string& owner;
  Time at{};                               ///< this hospital's own clock, never before what its ledger has seen
  const attest::Claims* claims = nullptr;  ///< what the channel proved of the aggregator
  std::optional<Array<32>> host_data;      ///< what the grant says that they must carry
  const LedgerState& ledger;
  base::Sha256 trainer{};           ///< digest of the trainer that is installed here
  std::uint64_t train_records = 0;  ///< that this hospital would claim as its weight
  bool withdrawn = false;           ///< a withdrawal is in force
  /// attest::judge_order allowed this very order under this charter before: signatures do not change. False: judge.
  bool order_allowed = false;
};

/// The charter is founded and valid; the run order carries both signatures; this owner's policy allows task, settings
/// and aggregator with what the ledger says was spent; the cohort names data owners, this one among them, each once;
/// the installed trainer is the charter's; no withdrawal is in force; the charter has no successor that this node
/// adopted or its witness key has signed, or the run had begun here before.
attest::Decision judge_task(const protocols::round::OfferedTask& offered, const GateInputs& inputs);

}  // namespace cloister::participant

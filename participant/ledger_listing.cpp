// The ledger as people and programs read it.
#include <fmt/format.h>

#include "base/log.hpp"
#include "participant/ledger.hpp"

namespace cloister::participant {
namespace {

struct Tally {
  std::uint32_t statistics = 0, train = 0, evaluate = 0, refunded = 0, receipts = 0, updates = 0;
  std::uint64_t update_bytes = 0;
  Time first{}, last{};
};

Tally tally(const LedgerState& state, const RunId& id) {
  Tally t;
  for (auto it = state.rounds.lower_bound({id.charter, id.run, 0}); it != state.rounds.end() && it->first.of() == id;
       ++it) {
    const LedgerRound& round = it->second;
    t.receipts += round.receipt ? 1 : 0;
    if (round.update) {
      ++t.updates;
      t.update_bytes += round.update->length;
    }
    if (!round.charge) continue;
    if (t.first == Time{}) t.first = round.charged;
    t.last = std::max(t.last, round.charged);
    if (round.refunded) {
      ++t.refunded;
    } else {
      ++(round.charge->task == "train" ? t.train : round.charge->task == "statistics" ? t.statistics : t.evaluate);
    }
  }
  return t;
}

std::string study_of(const LedgerState& state, const base::Sha256& charter) {
  if (const auto it = state.studies.find(charter); it != state.studies.end()) return it->second;
  for (const auto& [id, round] : state.rounds)
    if (id.charter == charter && round.charge) return round.charge->study;
  return {};
}

// Every run that any record names.
std::map<RunId, LedgerRun> all_runs(const LedgerState& state) {
  std::map<RunId, LedgerRun> runs = state.runs;
  for (const auto& [id, round] : state.rounds) runs.try_emplace(id.of());
  return runs;
}

std::string round_json(const RoundId& id, const LedgerRound& round) {
  std::string out = fmt::format("{{\"round\":{}", id.round);
  if (round.charge)
    out += fmt::format(",\"task\":{},\"charged\":{},\"refunded\":{}", base::json_escape(round.charge->task),
                       base::json_escape(base::text(round.charged)), round.refunded);
  if (round.update)
    out += fmt::format(",\"update\":{},\"update_bytes\":{},\"weight\":{}",
                       base::json_escape(base::digest_text(round.update->digest)), round.update->length,
                       round.update->weight);
  if (round.receipt) out += fmt::format(",\"receipt\":{}", base::json_escape(base::digest_text(*round.receipt)));
  return out + "}";
}

}  // namespace

std::string LedgerState::text() const {
  std::string out = fmt::format("Ledger of data set {}\n", data_set);
  const auto listed = all_runs(*this);
  if (listed.empty()) return out + "  nothing has been charged\n";
  for (const auto& [id, run] : listed) {
    const Tally t = tally(*this, id);
    out += fmt::format("  {} (charter sha256:{}…) run {}: {}\n", study_of(*this, id.charter),
                       base::hex(View(id.charter).first(6)), id.run,
                       run.outcome.empty()  ? "not ended"
                       : run.reason.empty() ? run.outcome
                                            : run.outcome + ": " + run.reason);
    out += fmt::format("    charged: {} train, {} statistics, {} evaluate", t.train, t.statistics, t.evaluate);
    if (t.refunded > 0) out += fmt::format(" ({} refunded, nothing had left)", t.refunded);
    out += fmt::format("; {} updates of {} in all; {} receipts signed\n", t.updates, base::size_text(t.update_bytes),
                       t.receipts);
    if (t.first != Time{}) out += fmt::format("    from {} to {}\n", base::text(t.first), base::text(t.last));
  }
  return out;
}

std::string LedgerState::json() const {
  std::string out = fmt::format("{{\"data_set\":{},\"runs\":[", base::json_escape(data_set));
  bool first_run = true;
  for (const auto& [id, run] : all_runs(*this)) {
    out += fmt::format(
        "{}{{\"study\":{},\"charter\":{},\"run\":{},\"outcome\":{},\"reason\":{},\"receipt_key\":{},\"rounds\":[",
        first_run ? "" : ",", base::json_escape(study_of(*this, id.charter)),
        base::json_escape(base::digest_text(id.charter)), id.run, base::json_escape(run.outcome),
        base::json_escape(run.reason), run.receipt_key ? base::json_escape(run.receipt_key->text()) : "null");
    first_run = false;
    bool first_round = true;
    for (auto it = rounds.lower_bound({id.charter, id.run, 0}); it != rounds.end() && it->first.of() == id; ++it) {
      out += (first_round ? "" : ",") + round_json(it->first, it->second);
      first_round = false;
    }
    out += "]}";
  }
  return out + "]}";
}

}  // namespace cloister::participant

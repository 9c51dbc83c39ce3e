#include "participant/ledger.hpp"

#include <cctype>
#include <filesystem>
#include <fmt/format.h>
#include <set>

#include "base/encoding.hpp"
#include "base/file.hpp"

namespace cloister::participant {
namespace {

using base::Writer;

RunId read_run(base::Reader& r) {
  RunId id;
  id.charter = r.array<32>("charter");
  id.run = r.u64("run");
  return id;
}

RoundId read_round(base::Reader& r) {
  const RunId run = read_run(r);
  return {run.charter, run.run, r.u32("round")};
}

constexpr std::size_t name_cap = 4096;

void read_charge(base::Reader& r, Time at, LedgerState& state) {
  Charge c;
  c.id = read_round(r);
  c.study = r.string("study", name_cap);
  c.task = r.string("task", name_cap);
  c.offer = r.array<32>("offer");
  c.order = r.array<32>("order");
  for (std::uint32_t n = r.u32("withdrawn"); n > 0 && r.ok(); --n) c.withdrawn.push_back(r.string("owner", name_cap));
  LedgerRound& round = state.rounds[c.id];
  round.charge = std::move(c);
  round.charged = at;
  state.seen = std::max(state.seen, at);
  round.refunded = false;
}

void read_update(base::Reader& r, LedgerState& state) {
  const RoundId id = read_round(r);
  StoredUpdate u;
  u.digest = r.array<32>("digest");
  u.length = r.u64("length");
  u.weight = r.u64("weight");
  state.rounds[id].update = u;
}

void read_receipt(base::Reader& r, LedgerState& state) {
  const RoundId id = read_round(r);
  LedgerRound& round = state.rounds[id];
  round.receipt = r.array<32>("digest");
  auto& kept = state.runs[id.of()].receipts;
  kept[id.round] = base::copy(r.field("receipt", ledger_record_cap));
  if (kept.size() > 2) kept.erase(kept.begin());
}

void read_commit(base::Reader& r, LedgerState& state) {
  const RoundId id = read_round(r);
  r.array<32>("digest");
  for (std::uint32_t n = r.u32("acknowledgements"); n > 0 && r.ok(); --n) r.field("acknowledgement", ledger_record_cap);
  state.rounds[id].committed = true;
}

// By rule: "never refunded once a byte has left". Before its update is recorded nothing leaves, and after its end no
// round of the run is done.
void read_end(base::Reader& r, LedgerState& state) {
  const RunId id = read_run(r);
  LedgerRun& run = state.runs[id];
  run.outcome = r.string("outcome", name_cap);
  run.reason = r.string("reason", ledger_record_cap);
  run.receipts.clear();
  for (auto it = state.rounds.lower_bound({id.charter, id.run, 0}); it != state.rounds.end() && it->first.of() == id;
       ++it)
    it->second.refunded = it->second.charge && !it->second.update;
}

void read_adopt(base::Reader& r, LedgerState& state) {
  const auto charter = r.array<32>("charter");
  state.studies[charter] = r.string("study", name_cap);
  const View previous = r.field("previous", 32);
  if (previous.size() == 32) state.successors[base::array<32>(previous)] = charter;
}

void read_agreement(base::Reader& r, LedgerState& state) {
  const auto charter = r.array<32>("charter");
  state.agreed[charter] = r.array<32>("successor");
}

Result<void> apply_record(View payload, LedgerState& state) {
  base::Reader r("ledger", payload);
  const Time at{std::chrono::seconds(static_cast<std::int64_t>(r.u64("time")))};
  const std::string kind = r.string("kind", 64);
  if (kind == "data set") {
    state.data_set = r.string("data set", name_cap);
  } else if (kind == "charter") {
    read_adopt(r, state);
  } else if (kind == "succession") {
    read_agreement(r, state);
  } else if (kind == "serve") {
    const RunId id = read_run(r);
    state.runs[id].receipt_key = base::PublicKey{r.array<32>("receipt key")};
  } else if (kind == "charge") {
    read_charge(r, at, state);
  } else if (kind == "update") {
    read_update(r, state);
  } else if (kind == "receipt") {
    read_receipt(r, state);
  } else if (kind == "committed") {
    read_commit(r, state);
  } else if (kind == "run end") {
    read_end(r, state);
  } else if (r.ok()) {
    return base::unsupported("ledger",
                             fmt::format("a record of the unknown kind \"{}\": written by a newer version?", kind));
  }
  return r.finish();
}

Error refused(const RoundId& id, std::string what) {
  return base::denied("ledger: " + id.text(), std::move(what));
}

std::string short_hex(const base::Sha256& digest) {
  return base::hex(View(digest).first(8));
}

}  // namespace

std::string RoundId::text() const {
  return fmt::format("run {} round {}", run, round);
}

std::string ledger_file_name(const std::string& data_set) {
  std::string out;
  for (const char c : data_set) {
    const bool plain =
        std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' || (c == '.' && !out.empty());
    out += plain ? std::string(1, c) : fmt::format("%{:02x}", static_cast<unsigned>(static_cast<unsigned char>(c)));
  }
  return out + ".ledger";
}

attest::Spent LedgerState::spent(const std::string& study, const RoundId& id) const {
  attest::Spent out;
  std::set<RunId> others;
  for (const auto& [at, round] : rounds) {
    if (!round.charge || round.refunded || at == id) continue;
    if (at.of() != id.of()) {
      if (round.charge->study == study) others.insert(at.of());
    } else if (round.charge->task == "train") {
      ++out.rounds;
    } else if (round.charge->task == "statistics") {
      ++out.statistics;
    } else if (round.charge->task == "evaluate") {
      ++out.evaluate;
    }
  }
  out.runs = static_cast<std::uint32_t>(others.size());
  return out;
}

const LedgerRound* LedgerState::round(const RoundId& id) const {
  const auto it = rounds.find(id);
  return it == rounds.end() ? nullptr : &it->second;
}

const LedgerRun* LedgerState::run(const RunId& id) const {
  const auto it = runs.find(id);
  return it == runs.end() ? nullptr : &it->second;
}

std::optional<base::Sha256> LedgerState::successor(const base::Sha256& charter) const {
  for (const auto* known : {&successors, &agreed})
    if (const auto it = known->find(charter); it != known->end()) return it->second;
  return {};
}

bool LedgerState::begun(const RunId& id) const {
  const auto first = rounds.lower_bound({id.charter, id.run, 0});
  return runs.contains(id) || (first != rounds.end() && first->first.of() == id);
}

const std::pair<const RoundId, LedgerRound>* LedgerState::last_receipt(const RunId& id) const {
  return last(id, [](const LedgerRound& round) { return round.receipt.has_value(); });
}

Result<std::unique_ptr<Ledger>> Ledger::open(const std::string& folder, const std::string& data_set, base::Log& log,
                                             std::function<Time()> clock) {
  if (auto made = base::make_folder(folder, 0700); !made) return made.error();
  const std::string path = (std::filesystem::path(folder) / ledger_file_name(data_set)).string();
  LedgerState state;
  Result<LedgerFile> file = LedgerFile::open(path, [&](View payload) { return apply_record(payload, state); });
  if (!file) return file.error();
  if (!file->repaired().empty())
    log.event("ledger_repaired", fmt::format("{}: {}", path, file->repaired()),
              {{"path", path}, {"what", file->repaired()}});
  std::unique_ptr<Ledger> ledger(new Ledger(std::move(*file), std::move(state), std::move(clock)));
  if (ledger->state_.data_set.empty()) {
    if (!ledger->state_.rounds.empty()) return base::malformed(path, "its first record does not name the data set");
    if (auto r = ledger->append({ledger->record("data set").field(data_set).bytes()}); !r) return r.error();
  }
  if (ledger->state_.data_set != data_set)
    return base::denied(path, fmt::format("wanted the ledger of data set \"{}\", found that of \"{}\"", data_set,
                                          ledger->state_.data_set));
  return ledger;
}

Result<LedgerState> Ledger::read(const std::string& folder, const std::string& data_set) {
  LedgerState state;
  const std::string path = (std::filesystem::path(folder) / ledger_file_name(data_set)).string();
  const auto r = LedgerFile::read(path, [&](View payload) { return apply_record(payload, state); });
  if (!r) return r.error();
  if (state.data_set.empty()) state.data_set = data_set;
  return state;
}

Result<std::vector<LedgerReceipt>> Ledger::read_receipts(const std::string& folder, const std::string& data_set) {
  std::vector<LedgerReceipt> out;
  std::map<RoundId, Bytes> waiting;  // signed, and not committed yet
  const std::string path = (std::filesystem::path(folder) / ledger_file_name(data_set)).string();
  const auto on_record = [&](View payload) -> Result<void> {
    base::Reader r("ledger", payload);
    r.u64("time");
    const std::string kind = r.string("kind", 64);
    if (kind != "receipt" && kind != "committed") return {};
    LedgerReceipt one;
    one.id = read_round(r);
    one.digest = r.array<32>("digest");
    if (kind == "receipt") {
      waiting[one.id] = base::copy(r.field("receipt", ledger_record_cap));
      return r.finish();
    }
    one.receipt = std::move(waiting[one.id]);
    waiting.erase(one.id);
    for (std::uint32_t n = r.u32("acknowledgements"); n > 0 && r.ok(); --n)
      one.acknowledgements.push_back(base::copy(r.field("acknowledgement", ledger_record_cap)));
    out.push_back(std::move(one));
    return r.finish();
  };
  if (const auto read = LedgerFile::read(path, on_record); !read) return read.error();
  return out;
}

// Every payload: u64 time ‖ field(kind) ‖ what the kind says (docs/formats.md, "Ledger").
Writer Ledger::record(std::string_view kind) const {
  Writer w;
  w.u64(static_cast<std::uint64_t>(clock_().time_since_epoch().count())).field(kind);
  return w;
}

Writer Ledger::record(std::string_view kind, const RunId& id) const {
  return std::move(record(kind).raw(id.charter).u64(id.run));
}
Writer Ledger::record(std::string_view kind, const RoundId& id) const {
  return std::move(record(kind, id.of()).u32(id.round));
}

// The state changes only by what a reader of the file would see.
Result<void> Ledger::append(std::initializer_list<Payload> payloads, LedgerFile::Until durable) {
  std::vector<Bytes> records;
  for (const Payload& payload : payloads)
    if (payload) records.push_back(*payload);
  if (records.empty()) return {};
  if (auto r = file_.append(records, durable); !r) return r;
  for (const Bytes& payload : records)
    if (auto r = apply_record(payload, state_); !r) return r;
  return {};
}

Result<void> Ledger::adopt(const base::Sha256& charter, const std::string& study,
                           std::optional<base::Sha256> previous) {
  if (const auto it = state_.successors.find(charter); it != state_.successors.end())
    return base::denied(
        "ledger",
        fmt::format("this node has adopted charter sha256:{}… as the successor of this one; start it with that charter",
                    short_hex(it->second)));
  if (state_.studies.contains(charter)) return {};
  Writer w = record("charter");
  w.raw(charter).field(study);
  w.field(previous ? View(*previous) : View{});
  return append({w.bytes()});
}

Result<void> Ledger::agree(const base::Sha256& charter, const base::Sha256& successor) {
  if (const auto it = state_.agreed.find(charter); it != state_.agreed.end()) {
    if (it->second == successor) return {};
    return base::denied("ledger", fmt::format("this witness agreed that charter sha256:{}… succeeds sha256:{}…: not a "
                                              "second one",
                                              short_hex(it->second), short_hex(charter)));
  }
  return append({record("succession").raw(charter).raw(successor).bytes()});
}

// By rule: a predecessor's witnesses "refuse new runs under the old one from then on; a running run finishes or fails".
Result<void> Ledger::not_succeeded(const RunId& id) const {
  const auto successor = state_.successor(id.charter);
  if (!successor || state_.begun(id)) return {};
  return base::denied(fmt::format("ledger: run {}", id.run),
                      fmt::format("charter sha256:{}… has succeeded this one; no new run is served under the old one",
                                  short_hex(*successor)));
}

Result<Ledger::Payload> Ledger::serve_record(const RunId& id, const base::PublicKey& receipt_key) const {
  if (const LedgerRun* run = state_.run(id)) {
    if (!run->outcome.empty())
      return base::denied(fmt::format("ledger: run {}", id.run),
                          fmt::format("the run has ended ({}); its number is used once", run->outcome));
    if (run->receipt_key) {
      if (*run->receipt_key == receipt_key) return Payload();
      return base::denied(
          fmt::format("ledger: run {}", id.run),
          fmt::format("wanted receipt key {}, which this run was served before, found {}; a participant "
                      "serves one per run: order "
                      "a new run",
                      run->receipt_key->text(), receipt_key.text()));
    }
  }
  if (auto fresh = not_succeeded(id); !fresh) return fresh.error();
  return Payload(record("serve", id).raw(receipt_key.bytes).bytes());
}

Result<void> Ledger::serve(const RunId& id, const base::PublicKey& receipt_key) {
  auto served = serve_record(id, receipt_key);
  if (!served) return served.error();
  return append({std::move(*served)});
}

Result<Ledger::Payload> Ledger::charge_record(const Charge& charge) const {
  const RoundId& id = charge.id;
  if (const LedgerRun* run = state_.run(id.of()); run != nullptr && !run->outcome.empty())
    return refused(id, fmt::format("the run has ended ({}); its number is used once", run->outcome));
  if (const auto* last = state_.last_receipt(id.of()); last != nullptr && last->first.round >= id.round)
    return refused(id, fmt::format("round {} has its receipt already; a round number is used once", last->first.round));
  if (const LedgerRound* round = state_.round(id); round != nullptr && round->charge) {
    // Another offer under a number that was charged would be a second answer to one round.
    if (round->charge->offer != charge.offer)
      return refused(id, "charged already for another offer; a round number is used once");
    return Payload();
  }
  Writer w = record("charge", id);
  w.field(charge.study).field(charge.task).raw(charge.offer).raw(charge.order);
  w.u32(static_cast<std::uint32_t>(charge.withdrawn.size()));
  for (const std::string& owner : charge.withdrawn) w.field(owner);
  return Payload(w.bytes());
}

Result<void> Ledger::charge(const Charge& charge) {
  auto charged = charge_record(charge);
  if (!charged) return charged.error();
  return append({std::move(*charged)}, LedgerFile::Until::next_append);
}

Result<void> Ledger::charge(const Charge& charge, const base::PublicKey& receipt_key) {
  auto served = serve_record(charge.id.of(), receipt_key);
  if (!served) return served.error();
  auto charged = charge_record(charge);
  if (!charged) return charged.error();
  return append({std::move(*served), std::move(*charged)}, LedgerFile::Until::next_append);
}

Result<void> Ledger::record_update(const RoundId& id, const StoredUpdate& update) {
  const LedgerRound* round = state_.round(id);
  if (round == nullptr || !round->charge || round->refunded)
    return refused(id, "not charged; an update leaves only after its charge");
  if (round->update) {
    if (*round->update == update) return {};
    return refused(id, "another update was recorded for it; a round is answered once");
  }
  return append({record("update", id).raw(update.digest).u64(update.length).u64(update.weight).bytes()});
}

Result<Ledger::Payload> Ledger::receipt_record(const RoundId& id, const base::Sha256& digest,
                                               View signed_receipt) const {
  if (const LedgerRound* round = state_.round(id); round != nullptr && round->receipt) {
    if (*round->receipt == digest) return Payload();
    return refused(id, fmt::format("wanted receipt sha256:{}…, which this witness signed, found sha256:{}…; a witness "
                                   "signs one receipt per round",
                                   short_hex(*round->receipt), short_hex(digest)));
  }
  if (auto fresh = not_succeeded(id.of()); !fresh) return fresh.error();
  return Payload(record("receipt", id).raw(digest).field(signed_receipt).bytes());
}

Result<void> Ledger::sign_receipt(const RoundId& id, const base::Sha256& digest, View signed_receipt) {
  auto receipt = receipt_record(id, digest, signed_receipt);
  if (!receipt) return receipt.error();
  return append({std::move(*receipt)});
}

Result<void> Ledger::sign_receipt(const RoundId& id, const base::Sha256& digest, View signed_receipt,
                                  const base::PublicKey& receipt_key) {
  auto served = serve_record(id.of(), receipt_key);
  if (!served) return served.error();
  auto receipt = receipt_record(id, digest, signed_receipt);
  if (!receipt) return receipt.error();
  return append({std::move(*served), std::move(*receipt)});
}

Result<void> Ledger::commit(const RoundId& id, const base::Sha256& digest, View signed_receipt,
                            const std::vector<Bytes>& acknowledgements) {
  if (const LedgerRound* round = state_.round(id); round != nullptr && round->committed && round->receipt == digest)
    return {};
  auto receipt = receipt_record(id, digest, signed_receipt);
  if (!receipt) return receipt.error();
  Writer w = record("committed", id);
  w.raw(digest).u32(static_cast<std::uint32_t>(acknowledgements.size()));
  for (const Bytes& a : acknowledgements) w.field(a);
  const auto durable = *receipt ? LedgerFile::Until::power_cut : LedgerFile::Until::next_append;
  return append({std::move(*receipt), w.bytes()}, durable);
}

Result<void> Ledger::end_run(const RunId& id, const std::string& outcome, const std::string& reason) {
  if (const LedgerRun* run = state_.run(id); run != nullptr && !run->outcome.empty()) return {};
  return append({record("run end", id).field(outcome).field(reason).bytes()});
}

}  // namespace cloister::participant

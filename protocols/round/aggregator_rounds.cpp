// The aggregator from round to round: whom it asks, when it closes, what it shows and when.

#include <fmt/format.h>

#include "base/encoding.hpp"
#include "protocols/round/aggregator.hpp"
#include "protocols/round/aggregator_state.hpp"

namespace cloister::protocols::round {

using base::Sha256;

namespace {

/// How much a word of [study.publish] lets out. An unknown word lets out nothing.
int openness(std::string_view word) {
  if (word == "every-round") return 2;
  if (word == "final" || word == "cohort") return 1;
  return 0;
}

/// The least that manifest and policies agree to publish.
int publication(const attest::Charter& charter, std::string attest::Manifest::*stated,
                std::string attest::StudyBounds::*bound) {
  int out = openness(charter.manifest.*stated);
  for (const attest::Policy& policy : charter.policies) {
    if (policy.data() != nullptr) out = std::min(out, openness(policy.data()->study.*bound));
    if (policy.model() != nullptr) out = std::min(out, openness(policy.model()->study.*bound));
  }
  return out;
}

MemberState receipt_state(Progress progress) {
  switch (progress) {
    case Progress::stored:
      return MemberState::contributed;
    case Progress::declined:
      return MemberState::declined;
    case Progress::refused:
      return MemberState::refused;
    case Progress::late:
      return MemberState::late;
    case Progress::withdrawn:
      return MemberState::withdrawn;
    default:
      return MemberState::absent;
  }
}

}  // namespace

int publication(const attest::Charter& charter, std::string_view kind) {
  using M = attest::Manifest;
  using B = attest::StudyBounds;
  if (kind == "model") return publication(charter, &M::publish_model, &B::publish_model);
  if (kind == "evaluate") return publication(charter, &M::publish_evaluate, &B::publish_evaluate);
  return publication(charter, &M::publish_statistics, &B::publish_statistics);
}

std::string_view name(Progress progress) {
  switch (progress) {
    case Progress::absent:
      return "absent";
    case Progress::offered:
      return "offered";
    case Progress::accepted:
      return "accepted";
    case Progress::downloading:
      return "downloading";
    case Progress::training:
      return "training";
    case Progress::uploading:
      return "uploading";
    case Progress::stored:
      return "stored";
    case Progress::declined:
      return "declined";
    case Progress::refused:
      return "refused";
    case Progress::late:
      return "late";
    case Progress::withdrawn:
      return "withdrawn";
  }
  return "unknown";
}

// --- Rounds ----------------------------------------------------------------------------------------------------------

void Aggregator::Impl::begin_round() {
  if (round == tasks.size()) return finish(Outcome::done, "");
  if (!granted) {  // By rule: "an expired grant means no new offers"
    phase = Phase::waiting;
    out.emplace_back(SetDeadline{std::string(grant_deadline), charter.manifest.channel_deadline});
    return;
  }
  ++round;
  pending.reset();
  members.clear();
  for (const attest::Party* p : charter.manifest.data_owners()) {
    Member& m = members[p->owner];
    if (withdrawn.contains(p->owner)) m.progress = Progress::withdrawn, m.reason = "its withdrawal is in force";
  }
  // By rule: the cohort is drawn from the charter's list before looking who is connected; the absent count as
  // dropped.
  const std::vector<std::string> drawn = cohort();
  if (drawn.size() < minimum.at_least)
    return finish(
        Outcome::failed,
        fmt::format("round {}: {}: study.participants.at_least: wanted {} contributors, {} are left after withdrawals",
                    round, minimum.owner, minimum.at_least, drawn.size()));
  offer = make_offer(drawn);
  phase = Phase::collecting;
  out.emplace_back(BeginTask{round, task().task, task().train_round, drawn,
                             task().task == "statistics" ? std::nullopt : model, shape()});
  out.emplace_back(SetDeadline{std::string(round_deadline), charter.manifest.round_deadline});
  for (const std::string& owner : drawn)
    if (peers[owner].greeted) set(owner, Progress::offered), send(owner, offer);
}

messages::Offer Aggregator::Impl::make_offer(const std::vector<std::string>& drawn) const {
  messages::Offer o;
  o.set_order(base::text(setup.order.serialize()));
  o.set_round(round);
  o.set_task(task().task);
  o.set_train_round(task().train_round);
  if (task().task != "statistics") {
    o.set_model(base::text(*model));
    o.set_model_length(setup.model_length);
  }
  o.set_statistics(base::text(statistics));
  for (const std::string& owner : drawn) o.add_cohort(owner);
  if (!committed.empty()) {
    o.set_last_receipt(base::text(committed.back().receipt.serialize()));
    for (const auto& [witness, bytes] : committed.back().acknowledgements)
      o.add_last_acknowledgements(base::text(bytes));
  }
  o.set_deadline_ms(static_cast<std::uint64_t>(charter.manifest.round_deadline.count()));
  o.set_receipt_key(base::text(setup.receipt_key.public_key().bytes));
  o.set_schema(base::text(shape().schema));
  for (const auto& [owner, w] : withdrawn) o.add_withdrawals(base::text(w.serialize()));
  return o;
}

void Aggregator::Impl::close_if_ready() {
  if (phase != Phase::collecting) return;
  const std::vector<std::string> drawn = cohort();
  const std::size_t have = stored().size();
  const auto open = static_cast<std::size_t>(std::ranges::count_if(
      drawn, [&](const std::string& owner) { return may_still_contribute(members[owner].progress); }));
  const std::size_t enough = quorum == 0 ? drawn.size() : std::min<std::size_t>(quorum, drawn.size());
  // By rule: close at quorum or deadline; also when nobody is left to wait for, or the rest could not be enough.
  if (have >= enough || open == 0 || have + open < minimum.at_least) close();
}

void Aggregator::Impl::close() {
  out.emplace_back(ClearDeadline{std::string(round_deadline)});
  for (const std::string& owner : cohort()) {
    Member& m = members[owner];
    if (!may_still_contribute(m.progress)) continue;
    drop_slot(owner);
    if (m.progress == Progress::absent)
      m.reason = "not connected while the round was open";
    else if (m.progress == Progress::offered)
      m.progress = Progress::absent, m.reason = "did not answer the offer";
    else
      set(owner, Progress::late, fmt::format("still {} when the round closed", name(m.progress)));
  }
  const std::vector<std::string> contributors = stored();
  if (contributors.size() < minimum.at_least) {
    std::string missing;
    for (const std::string& owner : cohort())
      if (members[owner].progress != Progress::stored)
        missing += fmt::format("; {} {}: {}", owner, name(members[owner].progress), members[owner].reason);
    return finish(Outcome::failed,
                  fmt::format("round {} ({}): {}: study.participants.at_least: wanted {} contributors, found {}{}",
                              round, task().task, minimum.owner, minimum.at_least, contributors.size(), missing));
  }
  phase = Phase::closing;
  out.emplace_back(Reduce{round, task().task, task().train_round, contributors});
}

void Aggregator::Impl::reduced(Reduction reduction) {
  const bool train = task().task == "train";
  if (train ? !reduction.model : reduction.value.empty())
    return finish(Outcome::failed, fmt::format("round {}: the reduction of a {} task gave no {}", round, task().task,
                                               train ? "model" : "value"));
  Round next;
  next.contributors = stored();
  for (const std::string& owner : next.contributors)
    next.entries.push_back(leaf_entry(leaf_random(owner, round), *members[owner].update));
  next.value = std::move(reduction.value);
  next.model = train ? reduction.model : model;
  Receipt receipt = make_receipt(reduction);
  receipt.updates = merkle_root(next.entries);
  if (!train) receipt.result = base::sha256(next.value);
  // From here on this is the one receipt of the round: it is kept and never made again.
  next.receipt = SignedReceipt::sign(std::move(receipt), setup.receipt_key);
  pending = std::move(next);
  phase = Phase::witnessing;
  out.emplace_back(SetDeadline{std::string(witness_deadline), charter.manifest.round_deadline});
  for (const auto& [owner, peer] : peers)
    if (peer.greeted) send_receipt(owner, *pending);
}

Receipt Aggregator::Impl::make_receipt(const Reduction& reduction) const {
  Receipt r;
  r.charter = charter.digest;
  r.run = setup.order.run;
  r.round = round;
  r.task = task().task;
  r.train_round = task().train_round;
  r.order = base::sha256(setup.order.serialize());
  r.settings = settings;
  for (const attest::Party* p : charter.manifest.data_owners()) {
    const Member& m = members.at(p->owner);
    r.members.push_back({p->owner, receipt_state(m.progress), m.progress == Progress::stored ? "" : m.reason});
  }
  r.algorithm = charter.manifest.algorithm;
  if (r.task != "statistics") r.model_in = r.model_out = model;
  r.optimizer = optimizer;
  if (r.task == "train") r.model_out = reduction.model, r.optimizer = reduction.optimizer;
  if (!statistics.empty()) r.statistics = base::sha256(statistics);
  r.kernel_set = setup.kernel_set;
  r.evidence = setup.evidence;
  r.simulated = setup.simulated;
  if (!committed.empty()) r.previous = committed.back().receipt.digest;
  return r;
}

void Aggregator::Impl::send_receipt(const std::string& owner, const Round& of) {
  messages::Receipt m;
  m.set_receipt(base::text(of.receipt.serialize()));
  const auto at = std::ranges::find(of.contributors, owner);
  if (at != of.contributors.end()) {
    const auto index = static_cast<std::size_t>(at - of.contributors.begin());
    m.set_leaf_random(base::text(leaf_random(owner, of.receipt.receipt.round)));
    for (const Sha256& hash : merkle_path(of.entries, index)) m.add_path(base::text(hash));
    m.set_leaf_index(static_cast<std::uint32_t>(index));
    m.set_leaf_count(static_cast<std::uint32_t>(of.entries.size()));
  }
  send(owner, std::move(m));
}

void Aggregator::Impl::acknowledge(const std::string& owner, const messages::Acknowledge& message) {
  auto a = Acknowledgement::parse(base::view(message.acknowledgement()));
  if (!a) return unexpected(owner, a.error().text());
  if (a->run < setup.order.run || (a->run == setup.order.run && a->round <= committed.size()))
    return;  // again, or after q
  if (phase != Phase::witnessing) return unexpected(owner, fmt::format("Acknowledge of round {}", a->round));
  Result<void> ok = verify_acknowledgement(*a, pending->receipt, charter);
  if (ok && a->witness != owner)
    ok = base::untrusted("acknowledgement", fmt::format("wanted one of {}, found one of {}", owner, a->witness));
  if (!ok) return unexpected(owner, ok.error().text());
  pending->acknowledgements.emplace(owner, a->serialize());
  members[owner].acknowledged = true;
  if (pending->acknowledgements.size() >= charter.manifest.witness_quorum()) commit();
}

void Aggregator::Impl::commit() {
  out.emplace_back(ClearDeadline{std::string(witness_deadline)});
  committed.push_back(std::move(*pending));
  pending.reset();
  const Round& now = committed.back();
  const Receipt& receipt = now.receipt.receipt;
  if (receipt.task == "train") model = now.model, optimizer = receipt.optimizer;
  if (receipt.task == "statistics") statistics = now.value;

  Record record{{}, committed.size() == 1};
  record.record.set_receipt(base::text(now.receipt.serialize()));
  for (const auto& [witness, bytes] : now.acknowledgements) record.record.add_acknowledgements(base::text(bytes));
  out.emplace_back(std::move(record));
  for (const auto& [owner, peer] : peers)
    if (peer.greeted) send(owner, committed_for(owner, now));
  if (receipt.task != "statistics" && publishes_now(receipt.task == "train" ? "model" : "evaluate")) {
    messages::Result result;
    result.set_run(setup.order.run);
    result.set_round(round);
    result.set_kind(receipt.task == "train" ? "model" : "evaluate");
    result.set_value(base::text(now.value));
    result.set_digest(base::text(receipt.task == "train" ? *now.model : *receipt.result));
    out.emplace_back(PublishResult{std::move(result)});
  }
  begin_round();
}

/// [study.publish]: "final" is the last of its kind in the run's schedule.
bool Aggregator::Impl::publishes_now(std::string_view kind) const {
  const int most = publication(charter, kind);
  if (most != 1) return most == 2;
  const std::string_view wanted = kind == "model" ? "train" : kind;
  return std::none_of(tasks.begin() + round, tasks.end(), [&](const ScheduledTask& t) { return t.task == wanted; });
}

messages::Committed Aggregator::Impl::committed_for(const std::string& owner, const Round& of) const {
  const Receipt& receipt = of.receipt.receipt;
  messages::Committed m;
  m.set_receipt(base::text(of.receipt.serialize()));
  for (const auto& [witness, bytes] : of.acknowledgements) m.add_acknowledgements(base::text(bytes));
  const std::vector<std::string> drawn = receipt.cohort();
  const int most = publication(charter, receipt.task);
  const auto last = std::ranges::find_if(tasks.rbegin(), tasks.rend(),
                                         [&](const ScheduledTask& t) { return t.task == receipt.task; });
  const bool final = static_cast<std::size_t>(tasks.rend() - last) == receipt.round;
  const bool out_now =
      receipt.task == "statistics" ? most >= 1 : receipt.task == "evaluate" && (most == 2 || (most == 1 && final));
  if (out_now && std::ranges::find(drawn, owner) != drawn.end()) {
    m.set_kind(receipt.task);
    m.set_value(base::text(of.value));
  }
  return m;
}

void Aggregator::Impl::finish(Outcome how, std::string why) {
  for (const auto& [owner, m] : members) drop_slot(owner);
  for (std::string_view d : {round_deadline, witness_deadline, grant_deadline})
    out.emplace_back(ClearDeadline{std::string(d)});
  phase = Phase::finished;
  outcome = how;
  reason = std::move(why);
  for (const auto& [owner, peer] : peers)
    if (peer.greeted) send(owner, run_end());
  out.emplace_back(Report{status()});
  reported = status().SerializeAsString();
  out.emplace_back(Finish{outcome, reason});
}

messages::RunEnd Aggregator::Impl::run_end() const {
  messages::RunEnd end;
  end.set_run(setup.order.run);
  end.set_outcome(std::string(name(outcome)));
  end.set_reason(reason);
  if (outcome == Outcome::done && publication(charter, "model") > 0) end.set_final_model(base::text(*model));
  return end;
}

// --- Connections -----------------------------------------------------------------------------------------------------

void Aggregator::Impl::greet(const std::string& owner, const messages::ParticipantHello& hello) {
  const std::uint32_t known = hello.run() == setup.order.run ? hello.round() : 0;
  if (known > committed.size())
    return unexpected(
        owner, fmt::format("ParticipantHello with round {} of run {} committed; this instance committed {}", known,
                           setup.order.run, committed.size()));
  peers[owner].greeted = true;
  if (!hello.withdrawal().empty()) withdraw(owner, base::view(hello.withdrawal()));
  if (peers[owner].greeted) replay(owner, known);
}

void Aggregator::Impl::replay(const std::string& owner, std::uint32_t from) {
  for (std::size_t i = from; i < committed.size(); ++i) {
    // A contributor gets its leaf's path too, so that it can check its own update.
    if (std::ranges::count(committed[i].contributors, owner) != 0) send_receipt(owner, committed[i]);
    messages::MissedReceipts missed;
    *missed.add_committed() = committed_for(owner, committed[i]);
    send(owner, std::move(missed));
  }
  if (phase == Phase::finished) return send(owner, run_end());
  if (phase == Phase::witnessing) return send_receipt(owner, *pending);
  if (phase != Phase::collecting) return;
  const Progress p = members[owner].progress;
  if (p > Progress::stored) return;
  if (p == Progress::absent) set(owner, Progress::offered);
  send(owner, offer);
  if (p != Progress::stored) return;
  messages::UpdateStored done;
  done.set_round(round);
  done.set_digest(base::text(*members[owner].update));
  send(owner, std::move(done));
}

std::string Aggregator::Impl::awaited(const std::string& owner) const {
  const auto peer = peers.find(owner);
  if (peer == peers.end() || !peer->second.greeted) return "ParticipantHello";
  if (phase == Phase::witnessing) return "Acknowledge";
  if (phase != Phase::collecting) return "nothing";
  const Progress p = members.at(owner).progress;
  if (p == Progress::offered) return "Accept or Decline";
  if (p == Progress::accepted) return "ModelRequest";
  if (p < Progress::uploading) return "Update";
  return p == Progress::uploading ? "the update" : "nothing";
}

void Aggregator::Impl::unexpected(const std::string& owner, std::string_view what) {
  out.emplace_back(Refuse{owner, fmt::format("got {} while waiting for {}", what, awaited(owner))});
  peers[owner].greeted = false;  // nothing more goes there or counts from there until it has dialled again
  peers[owner].connected = false;
}

// --- Shared ----------------------------------------------------------------------------------------------------------

bool Aggregator::Impl::knows(const std::string& owner) const {
  const attest::Party* party = charter.manifest.party(owner);
  return party != nullptr && party->role == attest::Role::data;
}

std::vector<std::string> Aggregator::Impl::cohort() const {
  std::vector<std::string> drawn;
  for (const attest::Party* p : charter.manifest.data_owners())
    if (members.at(p->owner).progress != Progress::withdrawn) drawn.push_back(p->owner);
  return drawn;
}

std::vector<std::string> Aggregator::Impl::stored() const {
  std::vector<std::string> out_owners;
  for (const attest::Party* p : charter.manifest.data_owners())
    if (members.at(p->owner).progress == Progress::stored) out_owners.push_back(p->owner);
  return out_owners;
}

Array<32> Aggregator::Impl::leaf_random(const std::string& owner, std::uint32_t of_round) const {
  const Bytes info = base::Writer().field("cloister leaf 1").u64(setup.order.run).u32(of_round).field(owner).bytes();
  return base::array<32>(base::hkdf_sha256(setup.leaf_secret, charter.digest, info, 32));
}

void Aggregator::Impl::send(const std::string& owner, Message message) {
  out.emplace_back(SendTo{owner, std::move(message)});
}

void Aggregator::Impl::set(const std::string& owner, Progress progress, std::string why) {
  members[owner].progress = progress;
  members[owner].reason = std::move(why);
}

void Aggregator::Impl::drop_slot(const std::string& owner) {
  if (!members[owner].slot) return;
  members[owner].slot = false;
  out.emplace_back(DropSlot{owner, round});
}

messages::RunStatus Aggregator::Impl::status() const {
  messages::RunStatus s;
  s.set_run(setup.order.run);
  s.set_round(round);
  if (round > 0) s.set_task(task().task);
  s.set_reason(reason);
  switch (phase) {
    case Phase::waiting:
      s.set_state("waiting");
      break;
    case Phase::collecting:
      s.set_state("offered");
      break;
    case Phase::closing:
      s.set_state("closing");
      break;
    case Phase::witnessing:
      s.set_state("witnessing");
      break;
    case Phase::finished:
      s.set_state(std::string(name(outcome)));
      break;
  }
  for (const attest::Party* p : charter.manifest.data_owners()) {
    const auto at = members.find(p->owner);
    if (at == members.end()) continue;
    const Member& m = at->second;
    if (phase == Phase::collecting && m.progress > Progress::offered) s.set_state("collecting");
    messages::Member& out_member = *s.add_members();
    out_member.set_owner(p->owner);
    out_member.set_state(m.acknowledged ? "acknowledged" : std::string(name(m.progress)));
    out_member.set_reason(m.reason);
  }
  return s;
}

/// Hands the steps out, with a report when the picture for the coordinator changed.
AggregatorSteps Aggregator::Impl::take() {
  messages::RunStatus now = status();
  std::string bytes = now.SerializeAsString();
  if (bytes != reported) {
    reported = std::move(bytes);
    out.emplace_back(Report{std::move(now)});
  }
  return std::exchange(out, {});
}

}  // namespace cloister::protocols::round

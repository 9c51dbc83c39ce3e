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
  if (round == rounds) return finish(Outcome::done, "");
  if (!granted) {  // By rule: "an expired grant means no new offers"
    phase = Phase::waiting;
    changed = true;
    out.emplace_back(SetDeadline{std::string(grant_deadline), charter.manifest.channel_deadline});
    return;
  }
  ++round;
  task = *scheduled(charter.manifest, settings, round);
  pending.reset();
  members.assign(owners.size(), {});
  counts = {};
  counts[static_cast<std::size_t>(Progress::absent)] = static_cast<std::uint32_t>(members.size());
  for (const auto& [owner, w] : withdrawn) set(owner, Progress::withdrawn, "its withdrawal is in force");
  // By rule: the cohort is drawn from the charter's list before looking who is connected; the absent count as
  // dropped.
  if (cohort() < minimum.at_least)
    return finish(
        Outcome::failed,
        fmt::format("round {}: {}: study.participants.at_least: wanted {} contributors, {} are left after withdrawals",
                    round, minimum.owner, minimum.at_least, cohort()));
  offer = std::make_shared<const Message>(make_offer());
  phase = Phase::collecting;
  changed = true;
  std::vector<std::string> drawn;
  for (std::size_t place = 0; place < owners.size(); ++place)
    if (members[place].progress != Progress::withdrawn) drawn.push_back(owners[place]);
  out.emplace_back(
      BeginTask{round, task.task, task.train_round, drawn, task.task == "statistics" ? std::nullopt : model, shape()});
  out.emplace_back(SetDeadline{std::string(round_deadline), charter.manifest.round_deadline});
  for (const std::string& owner : drawn)
    if (const auto peer = peers.find(owner); peer != peers.end() && peer->second.greeted)
      set(owner, Progress::offered), out.emplace_back(SendTo{owner, offer});
}

messages::Offer Aggregator::Impl::make_offer() const {
  messages::Offer o;
  o.set_order(base::text(setup.order.serialize()));
  o.set_round(round);
  o.set_task(task.task);
  o.set_train_round(task.train_round);
  if (task.task != "statistics") {
    o.set_model(base::text(*model));
    o.set_model_length(setup.model_length);
  }
  o.set_statistics(base::text(statistics));
  if (last) o.set_last_receipt(base::text(last->receipt.digest));
  o.set_deadline_ms(static_cast<std::uint64_t>(charter.manifest.round_deadline.count()));
  o.set_receipt_key(base::text(setup.receipt_key.public_key().bytes));
  o.set_schema(base::text(shape().schema));
  for (const auto& [owner, w] : withdrawn) o.add_withdrawals(base::text(w.serialize()));
  return o;
}

void Aggregator::Impl::close_if_ready() {
  if (phase != Phase::collecting) return;
  const std::uint32_t have = count(Progress::stored);
  const std::uint32_t enough = quorum == 0 ? cohort() : std::min(quorum, cohort());
  // By rule: close at quorum or deadline; also when nobody is left to wait for, or the rest could not be enough.
  if (have >= enough || open() == 0 || have + open() < minimum.at_least) close();
}

std::uint32_t Aggregator::Impl::open() const {
  std::uint32_t sum = 0;
  for (std::size_t p = 0; p < static_cast<std::size_t>(Progress::stored); ++p) sum += counts[p];
  return sum;
}

void Aggregator::Impl::close() {
  out.emplace_back(ClearDeadline{std::string(round_deadline)});
  for (std::size_t place = 0; place < owners.size(); ++place) {
    Member& m = members[place];
    if (!may_still_contribute(m.progress)) continue;
    drop_slot(owners[place]);
    if (m.progress == Progress::absent)
      m.reason = "not connected while the round was open";
    else if (m.progress == Progress::offered)
      set(m, Progress::absent, "did not answer the offer");
    else
      set(m, Progress::late, fmt::format("still {} when the round closed", name(m.progress)));
  }
  changed = true;
  if (count(Progress::stored) < minimum.at_least) {
    constexpr std::size_t named = 16;
    std::string missing;
    std::size_t more = 0;
    for (std::size_t place = 0, n = 0; place < owners.size(); ++place) {
      const Member& m = members[place];
      if (m.progress == Progress::stored || m.progress == Progress::withdrawn) continue;
      if (++n > named)
        ++more;
      else
        missing += fmt::format("; {} {}: {}", owners[place], name(m.progress), m.reason);
    }
    if (more > 0) missing += fmt::format("; and {} more", more);
    return finish(Outcome::failed,
                  fmt::format("round {} ({}): {}: study.participants.at_least: wanted {} contributors, found {}{}",
                              round, task.task, minimum.owner, minimum.at_least, count(Progress::stored), missing));
  }
  phase = Phase::closing;
  out.emplace_back(Reduce{round, task.task, task.train_round, stored()});
}

void Aggregator::Impl::reduced(Reduction reduction) {
  const bool train = task.task == "train";
  if (train ? !reduction.model : reduction.value.empty())
    return finish(Outcome::failed, fmt::format("round {}: the reduction of a {} task gave no {}", round, task.task,
                                               train ? "model" : "value"));
  Round next;
  for (std::size_t place = 0; place < owners.size(); ++place)
    if (members[place].progress == Progress::stored)
      next.entries.push_back(leaf_entry(leaf_random(owners[place], round), *members[place].update));
  next.tree.emplace(next.entries);
  next.value = std::move(reduction.value);
  next.model = train ? reduction.model : model;
  Receipt receipt = make_receipt(reduction);
  receipt.updates = next.tree->root();
  if (!train) receipt.result = base::sha256(next.value);
  // From here on this is the one receipt of the round: it is kept and never made again.
  next.receipt = SignedReceipt::sign(std::move(receipt), setup.receipt_key);
  next.bytes = next.receipt.serialize();
  next.published =
      task.task == "statistics" ? publish_statistics >= 1 : task.task == "evaluate" && published_now(publish_evaluate);
  pending = std::move(next);
  phase = Phase::witnessing;
  changed = true;
  out.emplace_back(SetDeadline{std::string(witness_deadline), charter.manifest.round_deadline});
  for (const auto& [owner, peer] : peers)
    if (peer.greeted) send_receipt(owner, *pending);
}

Receipt Aggregator::Impl::make_receipt(const Reduction& reduction) const {
  Receipt r;
  r.charter = charter.digest;
  r.run = setup.order.run;
  r.round = round;
  r.task = task.task;
  r.train_round = task.train_round;
  r.order = base::sha256(setup.order.serialize());
  r.settings = settings;
  r.members = Members(static_cast<std::uint32_t>(owners.size()));
  for (std::uint32_t place = 0; place < members.size(); ++place) {
    const MemberState state = receipt_state(members[place].progress);
    if (state == MemberState::contributed) continue;
    // Few reasons stand for many members: a receipt goes to everybody, so it does not carry a thousand own words.
    const bool known = r.members.others().contains({state, members[place].reason});
    const bool room = r.members.others().size() + 6 < Members::groups_at_most;
    r.members.set(place, state, known || room ? members[place].reason : "for a reason of its own");
  }
  r.algorithm = charter.manifest.algorithm;
  if (r.task != "statistics") r.model_in = r.model_out = model;
  r.optimizer = optimizer;
  if (r.task == "train") r.model_out = reduction.model, r.optimizer = reduction.optimizer;
  if (!statistics.empty()) r.statistics = base::sha256(statistics);
  r.kernel_set = setup.kernel_set;
  r.evidence = setup.evidence;
  r.simulated = setup.simulated;
  if (last) r.previous = last->receipt.digest;
  return r;
}

Bytes Aggregator::Impl::Round::serialize() const {
  base::Writer w;
  w.field(bytes).u32(static_cast<std::uint32_t>(acknowledgements.size()));
  for (const auto& [witness, ack] : acknowledgements) w.field(witness).field(ack);
  w.field(value).u8(published ? 1 : 0).u32(static_cast<std::uint32_t>(entries.size()));
  for (const Sha256& entry : entries) w.raw(entry);
  return std::move(w).bytes();
}

/// Of this instance's own bytes, which come back sealed or not at all.
Result<Aggregator::Impl::Round> Aggregator::Impl::Round::parse(View stored) {
  constexpr std::size_t cap = 64 << 20;
  base::Reader r("committed round", stored);
  Round out;
  out.bytes = base::copy(r.field("receipt", cap));
  for (std::uint32_t n = r.u32("acknowledgements"); n > 0 && r.ok(); --n) {
    std::string witness = r.string("witness", cap);
    out.acknowledgements.emplace(std::move(witness), base::copy(r.field("acknowledgement", cap)));
  }
  out.value = base::copy(r.field("value", cap));
  out.published = r.u8("published") == 1;
  for (std::uint32_t n = r.u32("entries"); n > 0 && r.ok(); --n) out.entries.push_back(r.array<32>("entry"));
  if (auto done = r.finish(); !done) return done.error();
  auto receipt = SignedReceipt::parse(out.bytes);
  if (!receipt) return receipt.error();
  out.receipt = *std::move(receipt);
  return out;
}

void Aggregator::Impl::send_receipt(const std::string& owner, const Round& of) {
  messages::Receipt m;
  m.set_receipt(base::text(of.bytes));
  const Members& who = of.receipt.receipt.members;
  if (const auto place = charter.manifest.data_place(owner); place && who[*place].state == MemberState::contributed) {
    m.set_leaf_random(base::text(leaf_random(owner, of.receipt.receipt.round)));
    for (const Sha256& hash : of.tree->path(who.contributors_before(*place))) m.add_path(base::text(hash));
  }
  send(owner, std::move(m));
}

void Aggregator::Impl::acknowledge(const std::string& owner, const messages::Acknowledge& message) {
  auto a = Acknowledgement::parse(base::view(message.acknowledgement()));
  if (!a) return unexpected(owner, a.error().text());
  if (a->run < setup.order.run || (a->run == setup.order.run && a->round <= committed)) return;  // again, or after q
  if (phase == Phase::finished) return;  // crossed the run's end on its way
  if (phase != Phase::witnessing) return unexpected(owner, fmt::format("Acknowledge of round {}", a->round));
  Result<void> ok = verify_acknowledgement(*a, pending->receipt, charter);
  if (ok && a->witness != owner)
    ok = base::untrusted("acknowledgement", fmt::format("wanted one of {}, found one of {}", owner, a->witness));
  if (!ok) return unexpected(owner, ok.error().text());
  pending->acknowledgements.emplace(owner, a->serialize());
  member(owner).acknowledged = true;
  changed = true;
  if (pending->acknowledgements.size() >= charter.manifest.witness_quorum()) commit();
}

void Aggregator::Impl::commit() {
  out.emplace_back(ClearDeadline{std::string(witness_deadline)});
  setup.history->append(pending->serialize());
  last = std::move(*pending);
  ++committed;
  pending.reset();
  changed = true;
  const Round& now = *last;
  const Receipt& receipt = now.receipt.receipt;
  if (receipt.task == "train") model = now.model, optimizer = receipt.optimizer;
  if (receipt.task == "statistics") statistics = now.value;

  Record record{{}, committed == 1};
  record.record.set_receipt(base::text(now.bytes));
  for (const auto& [witness, bytes] : now.acknowledgements) record.record.add_acknowledgements(base::text(bytes));
  out.emplace_back(std::move(record));
  const auto everybody = std::make_shared<const Message>(committed_for("", now));
  for (const auto& [owner, peer] : peers) {
    if (!peer.greeted) continue;
    if (member(owner).progress == Progress::withdrawn)
      send(owner, committed_for(owner, now));
    else
      out.emplace_back(SendTo{owner, everybody});
  }
  if (receipt.task != "statistics" && published_now(receipt.task == "train" ? publish_model : publish_evaluate)) {
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
bool Aggregator::Impl::published_now(int most) const {
  return most == 2 || (most == 1 && last_of_its_kind());
}

/// Tasks of one kind stand at most evaluate_every + 1 apart, but an evaluate task only where enough train tasks follow.
bool Aggregator::Impl::last_of_its_kind() const {
  const std::uint32_t apart = charter.manifest.evaluate_every;
  for (std::uint32_t later = round + 1; later <= rounds && later <= round + 1 + apart; ++later)
    if (scheduled(charter.manifest, settings, later)->task == task.task) return false;
  return true;
}

/// `owner` empty: for one who had not withdrawn.
messages::Committed Aggregator::Impl::committed_for(const std::string& owner, const Round& of) const {
  const Receipt& receipt = of.receipt.receipt;
  messages::Committed m;
  m.set_receipt(base::text(of.bytes));
  for (const auto& [witness, bytes] : of.acknowledgements) m.add_acknowledgements(base::text(bytes));
  const auto place = charter.manifest.data_place(owner);
  const bool in_cohort = !place || receipt.members[*place].state != MemberState::withdrawn;
  if (of.published && in_cohort) {
    m.set_kind(receipt.task);
    m.set_value(base::text(of.value));
  }
  return m;
}

void Aggregator::Impl::finish(Outcome how, std::string why) {
  for (std::size_t place = 0; place < members.size(); ++place)
    if (members[place].slot) drop_slot(owners[place]);
  for (std::string_view d : {round_deadline, witness_deadline, grant_deadline})
    out.emplace_back(ClearDeadline{std::string(d)});
  phase = Phase::finished;
  outcome = how;
  reason = std::move(why);
  const auto end = std::make_shared<const Message>(run_end());
  for (const auto& [owner, peer] : peers)
    if (peer.greeted) out.emplace_back(SendTo{owner, end});
  changed = false;
  out.emplace_back(Report{});
  out.emplace_back(Finish{outcome, reason});
}

messages::RunEnd Aggregator::Impl::run_end() const {
  messages::RunEnd end;
  end.set_run(setup.order.run);
  end.set_outcome(std::string(name(outcome)));
  end.set_reason(reason);
  if (outcome == Outcome::done && publish_model > 0) end.set_final_model(base::text(*model));
  return end;
}

// --- Connections -----------------------------------------------------------------------------------------------------

void Aggregator::Impl::greet(const std::string& owner, const messages::ParticipantHello& hello) {
  const std::uint32_t known = hello.run() == setup.order.run ? hello.round() : 0;
  if (known > committed)
    return unexpected(
        owner, fmt::format("ParticipantHello with round {} of run {} committed; this instance committed {}", known,
                           setup.order.run, committed));
  peers[owner].greeted = true;
  if (!hello.withdrawal().empty()) withdraw(owner, base::view(hello.withdrawal()));
  if (peers[owner].greeted) replay(owner, known);
}

void Aggregator::Impl::replay(const std::string& owner, std::uint32_t from) {
  if (from < committed) {
    // What a participant has not seen committed but answered is the first round that it lacks: of that one a
    // contributor gets its leaf's path too, so that it can check its own update.
    const std::optional<Round> stored = from + 1 == committed ? std::nullopt : std::optional(recall(from));
    const Round& first = stored ? *stored : *last;
    if (first.receipt.receipt.members[*charter.manifest.data_place(owner)].state == MemberState::contributed)
      send_receipt(owner, first);
    out.emplace_back(SendMissed{owner, from, committed});
  }
  if (phase == Phase::finished) return send(owner, run_end());
  if (phase == Phase::witnessing) return send_receipt(owner, *pending);
  if (phase != Phase::collecting) return;
  const Progress p = member(owner).progress;
  if (p > Progress::stored) return;
  if (p == Progress::absent) set(owner, Progress::offered);
  out.emplace_back(SendTo{owner, offer});
  if (p != Progress::stored) return;
  messages::UpdateStored done;
  done.set_round(round);
  done.set_digest(base::text(*member(owner).update));
  send(owner, std::move(done));
}

/// A committed round, from 0, out of the history. Throws when it is not there: without it nobody can go on.
Aggregator::Impl::Round Aggregator::Impl::recall(std::uint32_t index) const {
  auto bytes = setup.history->at(index);
  if (!bytes) throw Exception(bytes.error());
  auto found = Round::parse(*bytes);
  if (!found) throw Exception(found.error());
  found->tree.emplace(found->entries);
  return *std::move(found);
}

std::string Aggregator::Impl::awaited(const std::string& owner) const {
  const auto peer = peers.find(owner);
  if (peer == peers.end() || !peer->second.greeted) return "ParticipantHello";
  if (phase == Phase::witnessing) return "Acknowledge";
  if (phase != Phase::collecting) return "nothing";
  const Progress p = member(owner).progress;
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

std::vector<std::string> Aggregator::Impl::stored() const {
  std::vector<std::string> out_owners;
  for (std::size_t place = 0; place < owners.size(); ++place)
    if (members[place].progress == Progress::stored) out_owners.push_back(owners[place]);
  return out_owners;
}

Array<32> Aggregator::Impl::leaf_random(const std::string& owner, std::uint32_t of_round) const {
  const Bytes info = base::Writer().field("cloister leaf 1").u64(setup.order.run).u32(of_round).field(owner).bytes();
  return base::array<32>(base::hkdf_sha256(setup.leaf_secret, charter.digest, info, 32));
}

void Aggregator::Impl::send(const std::string& owner, Message message) {
  out.emplace_back(SendTo{owner, std::make_shared<const Message>(std::move(message))});
}

void Aggregator::Impl::set(const std::string& owner, Progress progress, std::string why) {
  set(member(owner), progress, std::move(why));
}

void Aggregator::Impl::set(Member& m, Progress progress, std::string why) {
  --counts[static_cast<std::size_t>(m.progress)];
  ++counts[static_cast<std::size_t>(progress)];
  m.progress = progress;
  m.reason = std::move(why);
  changed = true;
}

void Aggregator::Impl::drop_slot(const std::string& owner) {
  Member& m = member(owner);
  if (!m.slot) return;
  m.slot = false;
  out.emplace_back(DropSlot{owner, round});
}

messages::RunStatus Aggregator::Impl::status() const {
  messages::RunStatus s;
  s.set_run(setup.order.run);
  s.set_round(round);
  if (round > 0) s.set_task(task.task);
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
  if (round == 0) return s;
  if (phase == Phase::collecting && count(Progress::absent) + count(Progress::offered) < cohort())
    s.set_state("collecting");
  const bool all = members.size() <= status_members;
  std::map<std::string_view, std::uint32_t> how_many;
  for (std::size_t place = 0; place < members.size(); ++place) {
    const Member& m = members[place];
    const std::string_view state = m.acknowledged ? "acknowledged" : name(m.progress);
    ++how_many[state];
    const bool amiss = m.progress > Progress::stored || !m.reason.empty();
    if (!all && (!amiss || static_cast<std::size_t>(s.members_size()) >= status_members)) continue;
    messages::Member& out_member = *s.add_members();
    out_member.set_owner(owners[place]);
    out_member.set_state(std::string(state));
    out_member.set_reason(m.reason);
  }
  for (const auto& [state, n] : how_many) {
    messages::StateCount& c = *s.add_counts();
    c.set_state(std::string(state));
    c.set_count(n);
  }
  return s;
}

/// Hands the steps out, with a report when the picture for the coordinator changed.
AggregatorSteps Aggregator::Impl::take() {
  if (std::exchange(changed, false)) out.emplace_back(Report{});
  return std::exchange(out, {});
}

}  // namespace cloister::protocols::round

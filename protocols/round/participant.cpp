#include "protocols/round/participant.hpp"

#include <algorithm>
#include <fmt/format.h>

#include "protocols/round/participant_state.hpp"

namespace cloister::protocols::round {

using base::Sha256;

namespace {

constexpr std::string_view return_deadline = "aggregator returns", silence_deadline = "aggregator speaks";

constexpr int strikes_at_most = 20;

std::string about(std::string_view what, std::uint32_t round) {
  return fmt::format("{} of round {}", what, round);
}

}  // namespace

Participant::Impl::Impl(ParticipantSetup s, std::optional<ParticipantRecord> r)
    : setup(std::move(s)), charter(*setup.charter), record(r ? std::move(*r) : ParticipantRecord{}) {
  record.run = setup.run;
  if (!record.committed.empty()) committed = SignedReceipt::parse(record.committed).value();
}

// --- Connections -----------------------------------------------------------------------------------------------------

void Participant::Impl::open(const base::PublicKey& receipt_key, bool hello) {
  key = receipt_key;
  answered_here = update_sent = false;
  requested.reset();
  const bool other = record.receipt_key && *record.receipt_key != receipt_key;
  if (hello) {
    messages::ParticipantHello m;
    m.set_run(other || state == State::finished ? 0 : setup.run);
    m.set_round(m.run() == 0 ? 0 : last());
    m.set_withdrawal(base::text(setup.withdrawal));
    out.emplace_back(Send{std::move(m)});
  }
  if (state == State::finished) return;
  // By rule: "A participant serves one receipt key per run, ever"; "a run whose aggregator dies has failed".
  if (other) {
    attest::Decision d;
    d.add(check(false, "one instance per run", record.receipt_key->text(), receipt_key.text(), "order a new run"));
    out.emplace_back(Refused{fmt::format("instance for run {}", setup.run), std::move(d), false});
    return finish(
        Outcome::failed,
        fmt::format(
            "the aggregator that served run {} is gone: its receipt key was {}, the instance that answers now has {}",
            setup.run, record.receipt_key->text(), receipt_key.text()));
  }
  out.emplace_back(
      SetDeadline{std::string(silence_deadline), charter.manifest.round_deadline + charter.manifest.channel_deadline});
}

std::string Participant::Impl::not_back() const {
  return fmt::format("the aggregator that served run {} did not come back within {}", setup.run,
                     base::text(charter.manifest.round_deadline + charter.manifest.channel_deadline));
}

void Participant::Impl::finish(Outcome outcome, std::string reason, std::optional<Sha256> final_model) {
  stop_task();
  state = State::finished;
  for (std::string_view d : {return_deadline, silence_deadline}) out.emplace_back(ClearDeadline{std::string(d)});
  out.emplace_back(Ended{outcome, std::move(reason), final_model});
}

std::string_view Participant::Impl::awaited() const {
  switch (state) {
    case State::idle:
      return "Offer";
    case State::fetching:
      return requested ? "Transfer of the model" : "Offer";
    case State::working:
      return "the child";
    case State::announced:
      return "Resume or UpdateStored";
    case State::sent:
      return "UpdateStored or Receipt";
    case State::declined:
      return "Receipt";
    case State::signed_:
      return "Committed";
    case State::finished:
      return "nothing";
  }
  return "nothing";
}

void Participant::Impl::unexpected(std::string_view what) {
  const std::string reason = fmt::format("got {} while waiting for {}", what, awaited());
  out.emplace_back(Disconnect{reason});
  key.reset();  // what is still under way on that connection is not read
  if (++strikes > strikes_at_most && state != State::finished)
    finish(Outcome::failed,
           fmt::format("the aggregator broke the protocol {} times without a committed round between: {}", strikes,
                       reason));
}

// --- Offer, model, task ----------------------------------------------------------------------------------------------

void Participant::Impl::on(const messages::Offer& message) {
  // What was committed meanwhile is shown after a hello only.
  if (message.round() > last() + 1) return unexpected(about("Offer", message.round()));
  if (answered_here && record.answered == message.round() && record.offer == offer_digest(message))
    return;  // once more
  OfferedTask task;
  bool equivocation = false;
  attest::Decision decision = judge_offer(message, task, equivocation);
  const bool first = record.answered < message.round();
  if (decision.allowed() && first) decision.add(setup.gate(task));
  if (!decision.allowed())
    return decline(message.round(), about("offer", message.round()), std::move(decision), equivocation);
  take_up(std::move(task), message);
}

void Participant::Impl::take_up(OfferedTask task, const messages::Offer& message) {
  const bool first = record.answered < message.round();
  const bool known = offered && offered->round == message.round();
  offered = std::move(task);
  offer = message;
  answered_here = true;
  if (first) {
    record.receipt_key = key;
    record.order = base::sha256(base::view(message.order()));
    record.answered = message.round();
    record.offer = offer_digest(message);
    record.withdrawn = withdrawn_in(message);
    confirmed = false;
    out.emplace_back(Charge{offered->round, offered->task, offered->train_round, record});
  }
  if (first || !known) state = State::idle;
  if (state == State::declined) {  // its Decline may have been lost with the connection
    if (declined && declined->round() == message.round()) out.emplace_back(Send{*declined});
    return;
  }
  messages::Accept accept;
  accept.set_round(message.round());
  out.emplace_back(Send{std::move(accept)});
  proceed();
}

/// From wherever this round stands, also after a cut or a restart.
void Participant::Impl::proceed() {
  if (record.stored == offered->round) return announce();  // never trained again with another result
  if (state == State::working) return;                     // the child is at it
  requested.reset();
  if (offer.model().empty()) return run_task();
  state = State::fetching;
  out.emplace_back(NeedModel{base::array<32>(base::view(offer.model())), offer.model_length()});
}

void Participant::Impl::run_task() {
  state = State::working;
  std::optional<Sha256> model;
  if (!offer.model().empty()) model = base::array<32>(base::view(offer.model()));
  out.emplace_back(
      RunTask{*offered, model, base::copy(base::view(offer.statistics())), setup.shapes.find(offered->task)->second});
}

void Participant::Impl::stop_task() {
  if (state == State::working) out.emplace_back(StopTask{offered->round});
}

void Participant::Impl::on(const messages::Transfer& t) {
  const bool matches = t.what() == "model" && t.digest() == offer.model() && t.length() == offer.model_length() &&
                       requested == t.offset();
  if (state != State::fetching || !matches)
    return unexpected(fmt::format("Transfer of {} from byte {}", t.what(), t.offset()));
  requested.reset();
  out.emplace_back(ReceiveModel{base::array<32>(base::view(t.digest())), t.offset(), t.length()});
}

// --- Update ----------------------------------------------------------------------------------------------------------

void Participant::Impl::announce() {
  state = State::announced;
  if (!key || !answered_here) return;  // with the next offer
  messages::Update u;
  u.set_run(setup.run);
  u.set_round(record.stored);
  u.set_digest(base::text(record.update));
  u.set_length(record.update_length);
  u.set_weight(record.weight);
  u.set_schema(base::text(setup.shapes.find(offered->task)->second.schema));
  update_sent = true;
  out.emplace_back(Send{std::move(u)});
}

void Participant::Impl::on(const messages::Resume& message) {
  if (message.round() <= last()) return;
  if (state != State::announced || !update_sent || message.round() != record.stored ||
      message.offset() > record.update_length)
    return unexpected(fmt::format("Resume of round {} from byte {}", message.round(), message.offset()));
  state = State::sent;
  messages::Transfer t;
  t.set_what("update");
  t.set_digest(base::text(record.update));
  t.set_length(record.update_length);
  t.set_offset(message.offset());
  out.emplace_back(Send{std::move(t)});
  out.emplace_back(SendUpdate{record.stored, message.offset(), record.update_length - message.offset()});
}

void Participant::Impl::on(const messages::UpdateStored& message) {
  if (message.round() <= last() || record.receipts.contains(message.round())) return;
  if (message.round() != record.stored || message.digest() != base::text(record.update))
    return unexpected(about("UpdateStored", message.round()));
  confirmed = true;
  if (state != State::finished) state = State::sent;
}

void Participant::Impl::on(const messages::UpdateRefused& message) {
  if (message.round() <= last() || record.receipts.contains(message.round())) return;
  if (message.round() != record.stored) return unexpected(about("UpdateRefused", message.round()));
  attest::Decision d;
  d.findings = refusals(message.findings());
  if (d.findings.empty())
    d.add({false, "aggregator", "update", "one that it accepts", peer_text(message.reason()), ""});
  out.emplace_back(Refused{about("update", message.round()), std::move(d), false});
  if (!confirmed) state = State::declined;
}

void Participant::Impl::decline(std::uint32_t round, const std::string& what, attest::Decision decision,
                                bool equivocation) {
  messages::Decline m;
  m.set_round(round);
  m.set_reason(decision.refusals().empty() ? "refused" : decision.refusals().front().text());
  for (const attest::Finding& f : decision.refusals()) *m.add_findings() = to_message(f);
  out.emplace_back(Refused{what, std::move(decision), equivocation});
  if (key) out.emplace_back(Send{m});
  if (state == State::declined) declined = std::move(m);
}

// --- Receipts --------------------------------------------------------------------------------------------------------

void Participant::Impl::on(const messages::Receipt& message) {
  auto receipt = SignedReceipt::parse(base::view(message.receipt()));
  if (!receipt) return unexpected(receipt.error().text());
  const std::uint32_t round = receipt->receipt.round;
  const auto acknowledge = [&] {
    if (!attest::is_witness(charter.manifest, setup.owner)) return;
    messages::Acknowledge ack;
    ack.set_acknowledgement(base::text(
        Acknowledgement::sign(setup.owner, receipt->receipt, receipt->digest, setup.witness_key).serialize()));
    out.emplace_back(Send{std::move(ack)});
  };

  // "A witness signs one receipt per (run, round), ever" (docs/how-it-works.md).
  if (const auto known = known_receipt(round)) {
    if (*known == receipt->digest) {
      if (receipt->verifies(*key)) acknowledge();
      return;
    }
    attest::Decision d;
    d.add(check(false, "one receipt per round", base::digest_text(*known), base::digest_text(receipt->digest),
                "a round has one receipt: begin a new run"));
    return decline(round, about("receipt", round), std::move(d), true);
  }
  attest::Decision d = judge_receipt(*receipt);
  if (d.allowed() && record.stored == round &&
      receipt->receipt.members[*charter.manifest.data_place(setup.owner)].state == MemberState::contributed)
    d.add(check(leaf_holds(message, *receipt), "own update under the receipt's root", "a path from its digest",
                "the path does not hold", "count the bytes that were sent"));
  if (!d.allowed()) {
    refused_receipt = receipt->digest;
    return decline(round, about("receipt", round), std::move(d));
  }
  stop_task();
  state = State::signed_;
  record.receipt_key = key;
  record.receipts[round] = receipt->digest;
  out.emplace_back(SignReceipt{round, base::copy(base::view(message.receipt())), record});
  acknowledge();
}

std::optional<Sha256> Participant::Impl::known_receipt(std::uint32_t round) const {
  if (const auto at = record.receipts.find(round); at != record.receipts.end()) return at->second;
  return round < last() && setup.receipt_of ? setup.receipt_of(round) : std::nullopt;
}

void Participant::Impl::on(const messages::Committed& message) {
  auto receipt = SignedReceipt::parse(base::view(message.receipt()));
  if (!receipt) return unexpected(receipt.error().text());
  const std::uint32_t round = receipt->receipt.round;
  const auto known = known_receipt(round);
  attest::Decision d;
  bool equivocation = false;
  if (known && *known != receipt->digest) {
    equivocation = true;
    d.add(check(false, "one receipt per round", base::digest_text(*known), base::digest_text(receipt->digest),
                "a round has one receipt: begin a new run"));
  } else if (round <= last()) {
    return;  // once more
  } else if (round > last() + 1) {
    return unexpected(about("Committed", round));  // those before it come after the next hello
  } else {
    d = judge_receipt(*receipt);
    d.add(check(refused_receipt != receipt->digest, "receipt that this owner witnesses", "one that it did not refuse",
                refused_receipt == receipt->digest ? "the refused one" : "not refused", "see why it was refused"));
    const std::vector<Bytes> acks = [&] {
      std::vector<Bytes> bytes;
      for (const std::string& a : message.acknowledgements()) bytes.push_back(base::copy(base::view(a)));
      return bytes;
    }();
    auto quorum = verify_quorum(*receipt, acks, charter);
    d.add(check(quorum.has_value(), "witnesses of the receipt",
                fmt::format("{} acknowledgements", charter.manifest.witness_quorum()),
                quorum ? "there" : quorum.error().text(),
                "gather the charter's witnesses before anything is published"));
    const bool value = message.kind().empty()
                           ? message.value().empty()
                           : message.kind() == receipt->receipt.task &&
                                 receipt->receipt.result == base::sha256(base::view(message.value()));
    d.add(check(value, "published value", "the one whose digest the receipt has", value ? "it" : "another",
                "publish the committed value"));
    if (d.allowed()) {
      keep(std::move(*receipt), acks);
      if (!message.kind().empty())
        out.emplace_back(Publish{round, message.kind(), base::copy(base::view(message.value()))});
      return;
    }
  }
  // What the witnesses committed against this owner's judgement, it does not go on from.
  const std::string why = d.explain();
  decline(round, about("committed receipt", round), std::move(d), equivocation);
  finish(Outcome::refused, why);
}

void Participant::Impl::keep(SignedReceipt receipt, std::vector<Bytes> acknowledgements) {
  stop_task();
  const std::uint32_t round = receipt.receipt.round;
  record.receipt_key = key;
  record.receipts = {{round, receipt.digest}};
  record.committed = receipt.serialize();
  committed = std::move(receipt);
  state = State::idle;
  confirmed = false;
  strikes = 0;
  out.emplace_back(Keep{round, {record.committed, std::move(acknowledgements)}, record});
}

void Participant::Impl::on(const messages::MissedReceipts& message) {
  for (const messages::Committed& c : message.committed()) {
    on(c);
    if (!key || state == State::finished) return;
  }
}

void Participant::Impl::on(const messages::RunEnd& message) {
  if (message.run() != setup.run) return;
  if (message.outcome() == "cancelled") return finish(Outcome::cancelled, peer_text(message.reason(), 4000));
  if (message.outcome() != "done") return finish(Outcome::failed, peer_text(message.reason(), 4000));
  const std::uint32_t rounds = committed ? schedule_length(charter.manifest, committed->receipt.settings) : 0;
  std::optional<Sha256> model;
  if (committed && committed->receipt.model_out && message.final_model() == base::text(*committed->receipt.model_out))
    model = committed->receipt.model_out;
  if (!committed || last() != rounds || (!message.final_model().empty() && !model))
    return finish(Outcome::failed,
                  fmt::format("the aggregator says done, but round {} of {} is the last committed one{}", last(),
                              rounds, message.final_model().empty() || model ? "" : ", and its model another"));
  finish(Outcome::done, peer_text(message.reason(), 4000), model);
}

// --- The interface ---------------------------------------------------------------------------------------------------

Participant::Participant(ParticipantSetup setup, std::optional<ParticipantRecord> record)
    : impl_(std::make_unique<Impl>(std::move(setup), std::move(record))) {}
Participant::Participant(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Participant::Participant(Participant&&) noexcept = default;
Participant& Participant::operator=(Participant&&) noexcept = default;
Participant::~Participant() = default;

ParticipantSteps Participant::connected(const base::PublicKey& receipt_key) {
  impl_->open(receipt_key, true);
  return impl_->take();
}

ParticipantSteps Participant::joined(const base::PublicKey& receipt_key) {
  impl_->open(receipt_key, false);
  return impl_->take();
}

ParticipantSteps Participant::disconnected() {
  Impl& i = *impl_;
  i.key.reset();
  i.answered_here = i.update_sent = false;
  i.requested.reset();
  if (i.overdue) {
    i.finish(Outcome::failed, i.not_back() + ": it takes connections and closes them without a word of the run");
    return i.take();
  }
  if (i.state == Impl::State::sent && !i.confirmed) i.state = Impl::State::announced;
  if (i.state != Impl::State::finished) {
    i.out.emplace_back(ClearDeadline{std::string(silence_deadline)});
    if (!i.awaiting_return)
      i.out.emplace_back(SetDeadline{std::string(return_deadline),
                                     i.charter.manifest.round_deadline + i.charter.manifest.channel_deadline});
    i.awaiting_return = true;
  }
  return i.take();
}

ParticipantSteps Participant::on(const Message& message) {
  Impl& i = *impl_;
  if (!i.key) return {};
  if (i.state == Impl::State::finished) {
    if (const auto* offer = std::get_if<messages::Offer>(&message)) {
      attest::Decision d;
      d.add(check(false, "one end per run", "no offer after it", fmt::format("an offer of run {}", i.setup.run),
                  "order a new run"));
      i.decline(offer->round(), about("offer", offer->round()), std::move(d));
    }
    return i.take();
  }
  i.out.emplace_back(SetDeadline{std::string(silence_deadline),
                                 i.charter.manifest.round_deadline + i.charter.manifest.channel_deadline});
  if (i.awaiting_return) i.out.emplace_back(ClearDeadline{std::string(return_deadline)});
  i.awaiting_return = i.overdue = false;
  std::visit([&](const auto& m) { i.on(m); }, message);
  return i.take();
}

ParticipantSteps Participant::unexpected(std::string_view what) {
  impl_->unexpected(what);
  return impl_->take();
}

ParticipantSteps Participant::model_ready(const Sha256& digest) {
  if (impl_->state == Impl::State::fetching && impl_->offer.model() == base::text(digest)) impl_->run_task();
  return impl_->take();
}

ParticipantSteps Participant::fetch(const Sha256& digest, std::uint64_t held) {
  Impl& i = *impl_;
  if (i.state == Impl::State::fetching && i.offer.model() == base::text(digest) && i.key && i.answered_here &&
      !i.requested) {
    i.requested = held;
    messages::ModelRequest m;
    m.set_model(base::text(digest));
    m.set_offset(held);
    i.out.emplace_back(Send{std::move(m)});
  }
  return i.take();
}

ParticipantSteps Participant::model_broken(const Sha256& digest) {
  if (impl_->state == Impl::State::fetching && impl_->offer.model() == base::text(digest))
    impl_->unexpected("a model that does not have its digest");
  return impl_->take();
}

ParticipantSteps Participant::task_done(std::uint32_t round, const Sha256& digest, std::uint64_t length,
                                        std::uint64_t weight) {
  Impl& i = *impl_;
  if (i.state != Impl::State::working || i.offered->round != round) return {};
  const std::uint64_t wanted = i.setup.shapes.find(i.offered->task)->second.length;
  if (length != wanted)
    return task_failed(round, fmt::format("the trainer gave {} bytes, its schema has {}", length, wanted));
  i.record.stored = round;
  i.record.update = digest;
  i.record.update_length = length;
  i.record.weight = weight;
  i.out.emplace_back(StoreUpdate{round, digest, length, i.record});
  i.announce();
  return i.take();
}

ParticipantSteps Participant::task_failed(std::uint32_t round, std::string reason) {
  Impl& i = *impl_;
  if (i.state != Impl::State::working || i.offered->round != round) return {};
  i.state = Impl::State::declined;
  attest::Decision d;
  d.add({false, i.setup.owner, "trainer", "an update", std::move(reason), "see the trainer's log at " + i.setup.owner});
  i.decline(round, about("task", round), std::move(d));
  return i.take();
}

ParticipantSteps Participant::update_lost(std::uint32_t round, std::string reason) {
  Impl& i = *impl_;
  if (i.record.stored != round || round <= i.last() || i.state == Impl::State::finished) return {};
  i.state = Impl::State::declined;
  attest::Decision d;
  d.add({false, i.setup.owner, "stored update", "the bytes that were announced", std::move(reason),
         "nothing: the round goes on without it"});
  i.decline(round, about("update", round), std::move(d));
  return i.take();
}

ParticipantSteps Participant::deadline(std::string_view name) {
  Impl& i = *impl_;
  if (i.state == Impl::State::finished) return {};
  if (name == return_deadline && !i.key && i.awaiting_return)
    i.finish(Outcome::failed, i.not_back());
  else if (name == return_deadline && i.awaiting_return)
    i.overdue = true;  // the open connection may still bring it back
  else if (name == silence_deadline && i.key)
    i.unexpected("nothing in time");
  return i.take();
}

ParticipantSteps Participant::withdraw(Bytes statement) {
  Impl& i = *impl_;
  i.setup.withdrawal = std::move(statement);
  if (i.key) {
    messages::Withdraw m;
    m.set_statement(base::text(i.setup.withdrawal));
    i.out.emplace_back(Send{std::move(m)});
  }
  return i.take();
}

bool Participant::finished() const {
  return impl_->state == Impl::State::finished;
}
std::uint64_t Participant::run() const {
  return impl_->setup.run;
}
const ParticipantRecord& Participant::record() const {
  return impl_->record;
}

std::string_view Participant::state() const {
  switch (impl_->state) {
    case Impl::State::idle:
      return "waiting for an offer";
    case Impl::State::fetching:
      return "downloading the model";
    case Impl::State::working:
      return "working";
    case Impl::State::announced:
      return "offering its update";
    case Impl::State::sent:
      return "update sent";
    case Impl::State::declined:
      return "sitting this round out";
    case Impl::State::signed_:
      return "waiting for witnesses";
    case Impl::State::finished:
      return "ended";
  }
  return "ended";
}

}  // namespace cloister::protocols::round

// Every member is named here: who adds one to a machine gets an error from the structured binding, and writes it into
// the state (or leaves it out because it never changes after the start).

#include "tests/protocols/round/exhaustive/inspection.hpp"

#include "base/encoding.hpp"
#include "protocols/round/aggregator_state.hpp"
#include "protocols/round/participant_state.hpp"

namespace cloister::protocols::round {

namespace {

void put(base::Writer& w, const std::optional<base::Sha256>& digest) {
  w.u8(digest ? 1 : 0);
  if (digest) w.raw(*digest);
}

void put(base::Writer& w, const std::optional<SignedReceipt>& receipt) {
  w.field(receipt ? receipt->serialize() : Bytes{});
}

void put(base::Writer& w, const google::protobuf::MessageLite& message) {
  w.field(message.SerializeAsString());
}

template <class Round>
void put_round(base::Writer& w, const std::optional<Round>& r) {
  w.u8(r ? 1 : 0);
  if (r) w.field(r->serialize());
}

}  // namespace

Aggregator Inspection::copy(const Aggregator& machine) {
  auto impl = std::make_unique<Aggregator::Impl>(*machine.impl_);
  impl->setup.history = std::make_shared<CopiedHistory>(dynamic_cast<const CopiedHistory&>(*impl->setup.history));
  return Aggregator(std::move(impl));
}

Participant Inspection::copy(const Participant& machine) {
  return Participant(std::make_unique<Participant::Impl>(*machine.impl_));
}

Bytes Inspection::state(const Aggregator& machine) {
  const auto& [setup, charter, settings, rounds, task, minimum, quorum, publish_model, publish_evaluate,
               publish_statistics, withdrawn, phase, round, peers, owners, members, counts, offer, model, optimizer,
               statistics, pending, last, committed, granted, outcome, reason, out, changed] = *machine.impl_;
  base::Writer w;
  for (const auto& [owner, withdrawal] : withdrawn) w.field(owner).u64(withdrawal.serial);
  w.u8(static_cast<std::uint8_t>(phase)).u32(round);
  for (const auto& [owner, peer] : peers) {
    const auto& [connected, greeted, upload] = peer;
    const auto& [of_round, digest, length, offset, wanted, resumed] = upload;
    w.field(owner).u8(connected).u8(greeted).u32(of_round).raw(digest).u64(length).u64(offset).u8(wanted).u8(resumed);
  }
  for (const auto& member : members) {
    const auto& [progress, why, slot, update, weight, acknowledged] = member;
    w.u8(static_cast<std::uint8_t>(progress)).field(why).u8(slot);
    put(w, update);
    w.u64(weight).u8(acknowledged);
  }
  for (std::uint32_t count : counts) w.u32(count);
  if (offer) put(w, protobuf(*offer));
  put(w, model);
  put(w, optimizer);
  w.field(statistics);
  put_round(w, pending);
  put_round(w, last);
  for (std::uint32_t i = 0; i < committed; ++i) w.field(setup.history->at(i).value());
  w.u8(granted).u8(static_cast<std::uint8_t>(outcome)).field(reason).u32(static_cast<std::uint32_t>(out.size()));
  return std::move(w).bytes();  // task follows from the round; `changed` only asks for a report
}

Bytes Inspection::state(const Participant& machine) {
  const auto& [setup, charter, record, committed, state, key, offered, offer, refused_receipt, strikes, declined,
               answered_here, update_sent, confirmed, requested, awaiting_return, overdue, out] = *machine.impl_;
  base::Writer w;
  w.field(setup.withdrawal).field(record.serialize());
  put(w, committed);
  w.u8(static_cast<std::uint8_t>(state)).u8(key ? 1 : 0);
  if (key) w.raw(key->bytes);
  w.u32(offered ? offered->round : 0);  // the rest of it is the offer's
  put(w, offer);
  put(w, refused_receipt);
  w.u32(static_cast<std::uint32_t>(strikes)).u8(declined ? 1 : 0);
  if (declined) put(w, *declined);
  w.u8(answered_here).u8(update_sent).u8(confirmed).u8(requested ? 1 : 0).u64(requested.value_or(0));
  w.u8(awaiting_return).u8(overdue);
  w.u32(static_cast<std::uint32_t>(out.size()));
  return std::move(w).bytes();
}

}  // namespace cloister::protocols::round

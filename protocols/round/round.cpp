#include "protocols/round/round.hpp"

#include "base/encoding.hpp"

namespace cloister::protocols::round {

using messages::MessageType;

namespace {

/// One row per message: add a message here, to the variant, and to the side that awaits it.
template <class M>
constexpr MessageType type_of = messages::UNSET;
template <>
constexpr MessageType type_of<messages::ParticipantHello> = messages::PARTICIPANT_HELLO;
template <>
constexpr MessageType type_of<messages::Offer> = messages::OFFER;
template <>
constexpr MessageType type_of<messages::Accept> = messages::ACCEPT;
template <>
constexpr MessageType type_of<messages::Decline> = messages::DECLINE;
template <>
constexpr MessageType type_of<messages::ModelRequest> = messages::MODEL_REQUEST;
template <>
constexpr MessageType type_of<messages::Transfer> = messages::TRANSFER;
template <>
constexpr MessageType type_of<messages::Update> = messages::UPDATE;
template <>
constexpr MessageType type_of<messages::Resume> = messages::RESUME;
template <>
constexpr MessageType type_of<messages::UpdateStored> = messages::UPDATE_STORED;
template <>
constexpr MessageType type_of<messages::UpdateRefused> = messages::UPDATE_REFUSED;
template <>
constexpr MessageType type_of<messages::Receipt> = messages::RECEIPT;
template <>
constexpr MessageType type_of<messages::Acknowledge> = messages::ACKNOWLEDGE;
template <>
constexpr MessageType type_of<messages::Committed> = messages::COMMITTED;
template <>
constexpr MessageType type_of<messages::RunEnd> = messages::RUN_END;
template <>
constexpr MessageType type_of<messages::Withdraw> = messages::WITHDRAW;
template <>
constexpr MessageType type_of<messages::MissedReceipts> = messages::MISSED_RECEIPTS;

template <std::size_t I = 0>
Result<Message> parse_as(MessageType wanted, View payload) {
  if constexpr (I == std::variant_size_v<Message>) {
    return base::unsupported("message", "type " + std::to_string(wanted) + " is no message of a round");
  } else {
    using M = std::variant_alternative_t<I, Message>;
    static_assert(type_of<M> != messages::UNSET, "every message of the variant has its row");
    if (type_of<M> != wanted) return parse_as<I + 1>(wanted, payload);
    M m;
    if (!m.ParseFromArray(payload.data(), static_cast<int>(payload.size())))
      return base::malformed("message", std::string(round::name(wanted)) + " does not parse");
    return Message(std::move(m));
  }
}

std::optional<std::uint64_t> run_of_receipt(const std::string& bytes) {
  auto receipt = SignedReceipt::parse(base::view(bytes));
  if (!receipt) return std::nullopt;
  return receipt->receipt.run;
}

}  // namespace

MessageType type(const Message& message) {
  return std::visit([]<class M>(const M&) { return type_of<M>; }, message);
}

std::string_view name(MessageType type) {
  switch (type) {
    case messages::PARTICIPANT_HELLO:
      return "ParticipantHello";
    case messages::OFFER:
      return "Offer";
    case messages::ACCEPT:
      return "Accept";
    case messages::DECLINE:
      return "Decline";
    case messages::MODEL_REQUEST:
      return "ModelRequest";
    case messages::TRANSFER:
      return "Transfer";
    case messages::UPDATE:
      return "Update";
    case messages::RESUME:
      return "Resume";
    case messages::UPDATE_STORED:
      return "UpdateStored";
    case messages::UPDATE_REFUSED:
      return "UpdateRefused";
    case messages::RECEIPT:
      return "Receipt";
    case messages::ACKNOWLEDGE:
      return "Acknowledge";
    case messages::COMMITTED:
      return "Committed";
    case messages::RUN_END:
      return "RunEnd";
    case messages::WITHDRAW:
      return "Withdraw";
    case messages::MISSED_RECEIPTS:
      return "MissedReceipts";
    case messages::DATA:
      return "Data";
    default:
      return "a message of another protocol";
  }
}

const google::protobuf::MessageLite& protobuf(const Message& message) {
  return std::visit([](const auto& m) -> const google::protobuf::MessageLite& { return m; }, message);
}

Result<Message> parse_message(MessageType type, View payload) {
  return parse_as(type, payload);
}

std::optional<std::uint64_t> run_of(const Message& message) {
  if (const auto* offer = std::get_if<messages::Offer>(&message)) {
    auto order = attest::RunOrder::parse(base::view(offer->order()));
    if (!order) return std::nullopt;
    return order->run;
  }
  if (const auto* receipt = std::get_if<messages::Receipt>(&message)) return run_of_receipt(receipt->receipt());
  if (const auto* committed = std::get_if<messages::Committed>(&message)) return run_of_receipt(committed->receipt());
  if (const auto* missed = std::get_if<messages::MissedReceipts>(&message))
    return missed->committed().empty() ? std::nullopt : run_of_receipt(missed->committed(0).receipt());
  if (const auto* end = std::get_if<messages::RunEnd>(&message)) return end->run();
  return std::nullopt;
}

messages::Finding to_message(const attest::Finding& finding) {
  messages::Finding out;
  out.set_owner(finding.owner);
  out.set_requirement(finding.requirement);
  out.set_wanted(finding.wanted);
  out.set_found(finding.found);
  out.set_remedy(finding.remedy);
  return out;
}

attest::Finding from_message(const messages::Finding& f) {
  return {false,
          peer_text(f.owner()),
          peer_text(f.requirement()),
          peer_text(f.wanted()),
          peer_text(f.found()),
          peer_text(f.remedy())};
}

std::vector<attest::Finding> refusals(const google::protobuf::RepeatedPtrField<messages::Finding>& findings) {
  constexpr std::size_t most = 64;
  std::vector<attest::Finding> out;
  for (const messages::Finding& f : findings) {
    if (out.size() == most) break;
    out.push_back(from_message(f));
  }
  return out;
}

std::string peer_text(std::string_view text, std::size_t most) {
  std::size_t end = std::min(text.size(), most);
  while (end < text.size() && end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  std::string out(text.substr(0, end));
  for (char& c : out)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = ' ';
  if (end < text.size()) out += "…";
  return out;
}

base::Sha256 offer_digest(const messages::Offer& offer) {
  base::Writer w;
  w.field("cloister offer 2").field(offer.order()).u32(offer.round()).field(offer.task()).u32(offer.train_round());
  w.field(offer.model()).u64(offer.model_length()).field(offer.statistics());
  w.field(offer.last_receipt()).field(offer.receipt_key()).field(offer.schema());
  w.u32(static_cast<std::uint32_t>(offer.withdrawals_size()));
  for (const std::string& statement : offer.withdrawals()) w.field(statement);
  return base::sha256(w.bytes());
}

std::string_view name(Outcome outcome) {
  switch (outcome) {
    case Outcome::done:
      return "done";
    case Outcome::failed:
      return "failed";
    case Outcome::cancelled:
      return "cancelled";
    case Outcome::refused:
      return "refused";
  }
  return "unknown";
}

}  // namespace cloister::protocols::round

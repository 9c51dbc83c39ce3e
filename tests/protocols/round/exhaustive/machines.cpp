#include "tests/protocols/round/exhaustive/machines.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <limits>

#include "base/encoding.hpp"

namespace cloister::tests::exhaustive {

using base::Sha256;
using round::Inspection;
using Kind = Act::Kind;

namespace {

template <class T>
T must(Result<T> r) {
  if (!r) throw Exception(r.error());
  return *std::move(r);
}

const Bytes& first_model() {
  static const Bytes model(model_length, 7);
  return model;
}

StudyOptions options(std::size_t sites) {
  StudyOptions o;
  o.data_owners = {"charite", "usz", "ccf"};
  o.data_owners.resize(sites);
  o.initial_model = base::sha256(first_model());
  // Only train tasks, and all but one are enough: a contributor may be missing.
  const std::string enough = std::to_string(sites - 1);
  std::vector<std::string> bounded = o.data_owners;
  bounded.push_back("acme");
  for (const std::string& owner : bounded)
    o.edits.push_back({owner, "participants = { at_least = 3", "participants = { at_least = " + enough});
  o.edits.push_back({"manifest", "quorum = { from = 3", "quorum = { from = " + enough});
  o.edits.push_back(
      {"manifest", "[statistics]\nkinds = [\"mean\", \"variance\", \"frequency\"]\nminimum_count = 10\n", ""});
  o.edits.push_back({"manifest", "[evaluate]\nkinds = [\"auc\"]\nevery = 1\nbins = 1000\nminimum_count = 10\n", ""});
  o.edits.push_back({"manifest", "evaluate = \"every-round\"\nstatistics = \"cohort\"",
                     "evaluate = \"never\"\nstatistics = \"never\""});
  return o;
}

round::Shapes shapes() {
  return {{"train", {base::sha256(base::view("schema")), update_length}}};
}

std::string key_of(View bytes) {
  return base::text(bytes);
}

template <class Container>
Id next_id(const Container& container) {
  if (container.size() > std::numeric_limits<Id>::max()) throw std::runtime_error("too many different values");
  return static_cast<Id>(container.size());
}

std::uint8_t small(std::uint64_t n) {
  if (n > 255) throw std::runtime_error("a number too large for this search");
  return static_cast<std::uint8_t>(n);
}

std::uint8_t timer(std::string_view name) {
  if (name == "round") return round_timer;
  if (name == "witnesses") return witness_timer;
  if (name == "grant") return grant_timer;
  if (name == "aggregator returns") return return_timer;
  if (name == "aggregator speaks") return silence_timer;
  throw std::runtime_error("a deadline that this search does not know: " + std::string(name));
}

std::string_view participant_timer(Id bit) {
  return bit == return_timer ? "aggregator returns" : "aggregator speaks";
}
std::string_view aggregator_timer(Id bit) {
  return bit == round_timer ? "round" : bit == witness_timer ? "witnesses" : "grant";
}

}  // namespace

std::size_t Machines::Hash::operator()(const Key& k) const {
  std::uint64_t h =
      static_cast<std::uint64_t>(k.machine) << 32 | static_cast<std::uint64_t>(k.input.a) << 16 | k.input.b;
  h ^= static_cast<std::uint64_t>(k.input.kind) << 56 | static_cast<std::uint64_t>(k.input.site) << 48;
  h *= 0x9E3779B97F4A7C15U;
  return h ^ h >> 29;
}

Machines::Machines(std::size_t sites, std::uint32_t rounds)
    : owners_(options(sites).data_owners),
      rounds_(rounds),
      study_(options(sites)),
      charter_(std::make_shared<attest::Charter>(study_.charter)),
      order_(study_.run_order({{"rounds", rounds}})) {
  quorum_ = charter_->manifest.witness_quorum();
  initial_ = name(base::sha256(first_model()));
  for (std::size_t i = 0; i < keys_.size(); ++i) keys_[i] = name(receipt_keys_[i].public_key().bytes);
}

round::ParticipantSetup Machines::setup(std::size_t site) const {
  const auto gate = [](const round::OfferedTask&) {
    attest::Decision d;
    d.add({true, "gate", "anything", "yes", "yes", ""});
    return d;
  };
  return {owners_[site], charter_, order_.run, *study_.keys(owners_[site]).witness, shapes(), gate, {}, {}};
}

// --- Numbers for everything ------------------------------------------------------------------------------------------

Id Machines::name(View bytes) {
  const auto [at, fresh] = name_ids_.try_emplace(key_of(bytes), next_id(names_));
  if (fresh) {
    name_bytes_.push_back(std::make_unique<Bytes>(base::copy(bytes)));
    names_.push_back(name_bytes_.back().get());
  }
  return at->second;
}

Id Machines::derived(std::string_view what, Id from, std::uint8_t number) {
  return name(base::sha256(base::Writer().field(what).field(from == 0 ? Bytes{} : bytes(from)).u8(number).bytes()));
}

std::uint8_t Machines::site(const std::string& owner) const {
  return small(static_cast<std::uint64_t>(std::ranges::find(owners_, owner) - owners_.begin()));
}

Id Machines::data(Id file, std::uint8_t offset, std::uint8_t length) {
  const auto [at, fresh] = item_ids_.try_emplace(fmt::format("data {} {} {}", file, offset, length), next_id(items_));
  if (fresh) items_.push_back({messages::DATA, 0, file, 0, false, offset, length, {}});
  return at->second;
}

Id Machines::item(const round::Message& message) {
  const std::string bytes = round::protobuf(message).SerializeAsString();
  const auto [at, fresh] =
      item_ids_.try_emplace(fmt::format("{} {}", static_cast<int>(round::type(message)), bytes), next_id(items_));
  if (fresh) {
    Item made;
    made.type = round::type(message);
    made.message = must(round::parse_message(made.type, base::view(bytes)));  // as on a real link
    describe(made);
    items_.push_back(std::move(made));
  }
  return at->second;
}

Id Machines::receipt(View bytes, Item& item) {
  const auto receipt = must(round::SignedReceipt::parse(bytes));
  item.round = small(receipt.receipt.round);
  for (std::uint32_t place = 0; place < sites(); ++place)
    if (receipt.receipt.members[place].state == round::MemberState::contributed)
      item.members = static_cast<std::uint8_t>(item.members | 1U << place);
  return item.digest = name(receipt.digest);
}

void Machines::describe(Item& item) {
  const round::Message& m = *item.message;
  if (const auto* offer = std::get_if<messages::Offer>(&m)) {
    item.round = small(offer->round());
  } else if (const auto* accept = std::get_if<messages::Accept>(&m)) {
    item.round = small(accept->round());
  } else if (const auto* decline = std::get_if<messages::Decline>(&m)) {
    item.round = small(decline->round());
  } else if (const auto* update = std::get_if<messages::Update>(&m)) {
    item.round = small(update->round());
    item.digest = name(base::view(update->digest()));
  } else if (const auto* received = std::get_if<messages::Receipt>(&m)) {
    receipt(base::view(received->receipt()), item);
  } else if (const auto* committed = std::get_if<messages::Committed>(&m)) {
    receipt(base::view(committed->receipt()), item);
  } else if (const auto* missed = std::get_if<messages::MissedReceipts>(&m)) {
    receipt(base::view(missed->committed(missed->committed_size() - 1).receipt()),
            item);  // the later, the more it shows
  } else if (const auto* ack = std::get_if<messages::Acknowledge>(&m)) {
    const auto a = must(round::Acknowledgement::parse(base::view(ack->acknowledgement())));
    item.round = small(a.round);
    item.digest = name(a.receipt);
  } else if (const auto* end = std::get_if<messages::RunEnd>(&m)) {
    item.done = end->outcome() == "done";
  }
}

const RecordFacts& Machines::record(Id id) {
  const auto [at, fresh] = records_.try_emplace(id);
  if (fresh && id != 0) {
    const auto r = must(round::ParticipantRecord::parse(bytes(id)));
    at->second.answered = small(r.answered);
    at->second.stored = small(r.stored);
    if (r.stored != 0) at->second.update = name(r.update);
    for (const auto& [number, digest] : r.receipts) at->second.receipts.at(number - 1) = name(digest);
  }
  return at->second;
}

std::string Machines::text(Id id) const {
  const Item& i = items_[id];
  if (i.type == messages::DATA) return fmt::format("Data of file {} from {}", i.digest, i.offset);
  return fmt::format("{}{}", round::name(i.type), i.round == 0 ? "" : fmt::format(" of round {}", i.round));
}

// --- Participants ----------------------------------------------------------------------------------------------------

std::uint32_t Machines::intern(std::uint8_t of, round::Participant machine) {
  const std::string state = key_of(Inspection::state(machine)) + static_cast<char>(of);
  const auto [at, fresh] = participant_ids_.try_emplace(state, static_cast<std::uint32_t>(participants_.size()));
  if (fresh) participants_.push_back({of, std::move(machine)});
  return at->second;
}

const Reaction& Machines::participant(std::uint32_t machine, Input input) {
  auto& cell = participant_table_[{machine, input}];
  if (cell) return *cell;
  cell = std::make_unique<Reaction>();
  Reaction& out = *cell;  // stays where it is: the table may grow below
  if (input.kind == Input::Kind::boot) {
    std::optional<round::ParticipantRecord> record;
    if (input.a != 0) record = must(round::ParticipantRecord::parse(bytes(input.a)));
    out.machine = intern(input.site, round::Participant(setup(input.site), std::move(record)));
    return out;
  }
  const std::uint8_t of = participants_[machine].site;
  round::Participant next = Inspection::copy(*participants_[machine].machine);
  for (const round::ParticipantStep& step : feed(next, input)) {
    Act one = act(step);
    if (one.kind == Kind::disconnect && input.kind == Input::Kind::deadline) one.flag = true;
    out.acts.push_back(one);
  }
  out.finished = next.finished();
  out.machine = intern(of, std::move(next));
  return out;
}

round::ParticipantSteps Machines::feed(round::Participant& machine, const Input& input) {
  const auto digest = [&](Id id) { return base::array<32>(bytes(id)); };
  switch (input.kind) {
    case Input::Kind::connected:
      return machine.connected(base::PublicKey{digest(input.a)});
    case Input::Kind::joined:
      return machine.joined(base::PublicKey{digest(input.a)});
    case Input::Kind::disconnected:
      return machine.disconnected();
    case Input::Kind::message:
      return machine.on(*items_[input.a].message);
    case Input::Kind::unexpected:
      return machine.unexpected("DATA that no Transfer announced");
    case Input::Kind::model_ready:
      return machine.model_ready(digest(input.a));
    case Input::Kind::fetch:
      return machine.fetch(digest(input.a), input.b);
    case Input::Kind::model_broken:
      return machine.model_broken(digest(input.a));
    case Input::Kind::task_done:
      return machine.task_done(input.b, digest(input.a), update_length, 100);
    case Input::Kind::update_lost:
      return machine.update_lost(input.b, "lost with the power");
    case Input::Kind::deadline:
      return machine.deadline(participant_timer(input.a));
    default:
      throw std::runtime_error("no input of a participant");
  }
}

Act Machines::act(const round::ParticipantStep& step) {
  Act a;
  const auto fill = [&]<class Step>(const Step& s) {
    if constexpr (std::is_same_v<Step, round::Send>) {
      a.kind = Kind::send, a.item = item(s.message);
    } else if constexpr (std::is_same_v<Step, round::Charge>) {
      a.kind = Kind::charge, a.round = small(s.round), a.record = name(s.record.serialize());
      a.digest = name(s.record.offer), a.item = name(s.record.receipt_key->bytes);
    } else if constexpr (std::is_same_v<Step, round::NeedModel>) {
      a.kind = Kind::need_model, a.digest = name(s.digest), a.length = small(s.length);
    } else if constexpr (std::is_same_v<Step, round::ReceiveModel>) {
      a.kind = Kind::receive_model, a.digest = name(s.digest), a.offset = small(s.offset), a.length = small(s.length);
    } else if constexpr (std::is_same_v<Step, round::RunTask>) {
      a.kind = Kind::run_task, a.round = small(s.offered.round), a.digest = s.model ? name(*s.model) : Id{0};
    } else if constexpr (std::is_same_v<Step, round::StopTask>) {
      a.kind = Kind::stop_task, a.round = small(s.round);
    } else if constexpr (std::is_same_v<Step, round::StoreUpdate>) {
      a.kind = Kind::store_update, a.round = small(s.round), a.digest = name(s.digest);
      a.record = name(s.record.serialize());
    } else if constexpr (std::is_same_v<Step, round::SendUpdate>) {
      a.kind = Kind::send_update, a.round = small(s.round), a.offset = small(s.offset), a.length = small(s.length);
    } else if constexpr (std::is_same_v<Step, round::SignReceipt>) {
      a.kind = Kind::sign_receipt, a.round = small(s.round), a.record = name(s.record.serialize());
      a.digest = name(must(round::SignedReceipt::parse(s.receipt)).digest);
    } else if constexpr (std::is_same_v<Step, round::Keep>) {
      a.kind = Kind::keep, a.round = small(s.round), a.record = name(s.record.serialize());
      a.digest = name(must(round::SignedReceipt::parse(s.committed.receipt)).digest);
    } else if constexpr (std::is_same_v<Step, round::Publish>) {
      a.kind = Kind::publish, a.round = small(s.round);
    } else if constexpr (std::is_same_v<Step, round::Refused>) {
      a.kind = Kind::refused, a.flag = s.equivocation, a.item = name(base::view(s.about + ": " + s.decision.explain()));
    } else if constexpr (std::is_same_v<Step, round::Disconnect>) {
      a.kind = Kind::disconnect, a.item = name(base::view(s.reason));
    } else if constexpr (std::is_same_v<Step, round::SetDeadline>) {
      a.kind = Kind::set_deadline, a.timer = timer(s.name);
    } else if constexpr (std::is_same_v<Step, round::ClearDeadline>) {
      a.kind = Kind::clear_deadline, a.timer = timer(s.name);
    } else {
      static_assert(std::is_same_v<Step, round::Ended>);
      a.kind = Kind::ended, a.flag = s.outcome == round::Outcome::done, a.item = name(base::view(s.reason));
    }
  };
  std::visit(fill, step);
  return a;
}

// --- Aggregators -----------------------------------------------------------------------------------------------------

std::uint32_t Machines::intern(round::Aggregator machine) {
  const auto [at, fresh] =
      aggregator_ids_.try_emplace(key_of(Inspection::state(machine)), static_cast<std::uint32_t>(aggregators_.size()));
  if (fresh) aggregators_.emplace_back(std::move(machine));
  return at->second;
}

std::uint32_t Machines::aggregator(int key) {
  round::AggregatorSetup s{charter_,
                           order_,
                           receipt_keys_[static_cast<std::size_t>(key)],
                           Array<32>{static_cast<std::uint8_t>(42 + key)},
                           base::sha256(base::view("instance evidence " + std::to_string(key))),
                           true,
                           "cpu",
                           shapes(),
                           model_length,
                           {},
                           std::make_shared<round::CopiedHistory>()};
  // Not interned: before its first offer nothing in the state tells the two keys apart.
  aggregators_.emplace_back(must(round::Aggregator::create(std::move(s))));
  return static_cast<std::uint32_t>(aggregators_.size() - 1);
}

const Reaction& Machines::aggregator(std::uint32_t machine, Input input) {
  auto& cell = aggregator_table_[{machine, input}];
  if (cell) return *cell;
  cell = std::make_unique<Reaction>();
  Reaction& out = *cell;
  round::Aggregator next = Inspection::copy(*aggregators_[machine]);
  for (const round::AggregatorStep& step : feed(next, input)) {
    if (const auto one = act(step)) out.acts.push_back(*one);
    if (const auto* past = std::get_if<round::SendMissed>(&step)) {
      for (std::uint32_t from = past->from; from < past->to;) {
        const auto missed = must(next.missed(past->owner, from, past->to));
        from += static_cast<std::uint32_t>(missed.committed_size());
        out.acts.push_back({.kind = Kind::send, .site = site(past->owner), .item = item(round::Message(missed))});
      }
    }
  }
  out.finished = next.finished();
  out.machine = intern(std::move(next));
  return out;
}

round::AggregatorSteps Machines::feed(round::Aggregator& machine, const Input& input) {
  const std::string& owner = owners_[std::min<std::size_t>(input.site, owners_.size() - 1)];
  const auto digest = [&](Id id) { return base::array<32>(bytes(id)); };
  switch (input.kind) {
    case Input::Kind::start:
      return machine.start();
    case Input::Kind::connected:
      return machine.connected(owner);
    case Input::Kind::joined:
      return machine.joined(owner);
    case Input::Kind::disconnected:
      return machine.disconnected(owner);
    case Input::Kind::message:
      return machine.on(owner, *items_[input.a].message);
    case Input::Kind::slot_open:
      return machine.slot_open(owner, input.a, input.b);
    case Input::Kind::staged:
      return machine.staged(owner, input.b, digest(input.a));
    case Input::Kind::reduced: {
      round::Reduction r;
      r.model = digest(input.a);
      return machine.reduced(input.b, std::move(r));
    }
    case Input::Kind::data_unexpected:
      return machine.data_unexpected(owner);
    case Input::Kind::model_sent:
      return machine.model_sent(owner);
    case Input::Kind::deadline:
      return machine.deadline(aggregator_timer(input.a));
    default:
      throw std::runtime_error("no input of an aggregator");
  }
}

std::optional<Act> Machines::act(const round::AggregatorStep& step) {
  Act a;
  bool wanted = true;
  const auto fill = [&]<class Step>(const Step& s) {
    if constexpr (std::is_same_v<Step, round::SendTo>) {
      a.kind = Kind::send, a.site = site(s.owner), a.item = item(*s.message);
    } else if constexpr (std::is_same_v<Step, round::SendModel>) {
      a.kind = Kind::send_model, a.site = site(s.owner), a.digest = name(s.digest), a.offset = small(s.offset);
      messages::Transfer t;
      t.set_what("model");
      t.set_digest(base::text(s.digest));
      t.set_length(model_length);
      t.set_offset(s.offset);
      a.item = item(round::Message(t));
    } else if constexpr (std::is_same_v<Step, round::BeginTask>) {
      a.kind = Kind::begin_task, a.round = small(s.round);
    } else if constexpr (std::is_same_v<Step, round::OpenSlot>) {
      a.kind = Kind::open_slot, a.site = site(s.owner), a.round = small(s.round), a.digest = name(s.digest);
    } else if constexpr (std::is_same_v<Step, round::Receive>) {
      a.kind = Kind::receive, a.site = site(s.owner), a.round = small(s.round), a.length = small(s.length);
    } else if constexpr (std::is_same_v<Step, round::Swallow>) {
      a.kind = Kind::swallow, a.site = site(s.owner), a.length = small(s.length);
    } else if constexpr (std::is_same_v<Step, round::DropSlot>) {
      a.kind = Kind::drop_slot, a.site = site(s.owner);
    } else if constexpr (std::is_same_v<Step, round::Add>) {
      a.kind = Kind::add, a.site = site(s.owner), a.round = small(s.round);
    } else if constexpr (std::is_same_v<Step, round::Reduce>) {
      a.kind = Kind::reduce, a.round = small(s.round);
      for (const std::string& owner : s.contributors)
        a.members = static_cast<std::uint8_t>(a.members | 1U << site(owner));
    } else if constexpr (std::is_same_v<Step, round::SetDeadline>) {
      a.kind = Kind::set_deadline, a.timer = timer(s.name);
    } else if constexpr (std::is_same_v<Step, round::ClearDeadline>) {
      a.kind = Kind::clear_deadline, a.timer = timer(s.name);
    } else if constexpr (std::is_same_v<Step, round::Record>) {
      Item facts;
      receipt(base::view(s.record.receipt()), facts);
      a.kind = Kind::record, a.round = facts.round, a.digest = facts.digest, a.members = facts.members;
    } else if constexpr (std::is_same_v<Step, round::PublishResult>) {
      a.kind = Kind::publish_result, a.round = small(s.result.round());
    } else if constexpr (std::is_same_v<Step, round::Refuse>) {
      a.kind = Kind::refuse, a.site = site(s.owner), a.item = name(base::view(s.reason));
    } else if constexpr (std::is_same_v<Step, round::Finish>) {
      a.kind = Kind::finish, a.flag = s.outcome == round::Outcome::done, a.item = name(base::view(s.reason));
    } else {
      wanted = false;  // Report, LogRefusal: for people; SendMissed: the caller asks for the messages
    }
  };
  std::visit(fill, step);
  if (!wanted) return std::nullopt;
  return a;
}

}  // namespace cloister::tests::exhaustive

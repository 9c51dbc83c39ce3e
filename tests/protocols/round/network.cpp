#include "tests/protocols/round/network.hpp"

#include <gtest/gtest.h>

namespace cloister::tests {

using base::Sha256;
using round::Message;

namespace {

constexpr std::size_t chunk = 20;  // several frames for the smallest transfer, the last one short
constexpr std::uint64_t model_length = 48;

std::array<std::uint64_t, 4> words(View bytes) {
  std::array<std::uint64_t, 4> out{};
  for (std::size_t i = 0; i < 32; ++i) out[i / 8] |= static_cast<std::uint64_t>(bytes[i]) << (8 * (i % 8));
  return out;
}

std::uint64_t weight_of(const std::string& owner, const std::string& task) {
  return task == "train" ? 100 + owner.size() : 1;
}

template <class T>
T must(Result<T> r) {
  if (!r) throw Exception(r.error());
  return *std::move(r);
}

}  // namespace

Bytes initial_model() {
  return Bytes(model_length, 7);
}

StudyOptions small_study(std::vector<Edit> edits) {
  StudyOptions o;
  o.edits = std::move(edits);
  o.initial_model = base::sha256(initial_model());
  return o;
}

round::Shapes small_shapes() {
  round::Shapes out;
  for (const char* task : {"statistics", "train", "evaluate"})
    out[task] = {base::sha256(base::view(std::string("schema of ") + task)), 32};
  return out;
}

attest::Settings one_train_round() {
  return {{"rounds", 1}};
}

Bytes update_of(const std::string& owner, const round::OfferedTask& task, const std::optional<Sha256>& model) {
  base::Writer w;
  w.field(owner).u32(task.round).field(task.task).raw(model.value_or(Sha256{}));
  return base::copy(base::sha256(w.bytes()));
}

Network::Network(const Study& s, attest::Settings settings, std::uint64_t seed)
    : study(s),
      charter(std::make_shared<attest::Charter>(s.charter)),
      order(s.run_order(std::move(settings))),
      random_(seed) {
  for (const std::string& owner : s.options.data_owners) {
    Node& n = nodes_[owner];
    n.owner = owner;
    n.gate = [](const round::OfferedTask&) {
      attest::Decision d;
      d.add({true, "gate", "anything", "yes", "yes", ""});
      return d;
    };
    n.disk.models[base::sha256(initial_model())] = initial_model();
    n.disk.models.clear();  // the first download is a real one
  }
  models_[base::sha256(initial_model())] = initial_model();
}

round::ParticipantSetup Network::participant_setup(const std::string& owner) const {
  return {owner,
          charter,
          order.run,
          *study.keys(owner).witness,
          small_shapes(),
          nodes_.at(owner).gate,
          nodes_.at(owner).withdrawal,
          [this, owner](std::uint32_t number) -> std::optional<Sha256> {
            const auto& kept = nodes_.at(owner).disk.kept;
            if (number < 1 || number > kept.size()) return std::nullopt;
            return must(round::SignedReceipt::parse(kept[number - 1].receipt)).digest;
          }};
}

round::AggregatorSetup Network::aggregator_setup() const {
  return {charter, order, receipt_key, Array<32>{42}, evidence, true, "cpu", small_shapes(), model_length, withdrawals, nullptr};
}

void Network::run() {
  aggregator_.emplace(must(round::Aggregator::create(aggregator_setup())));
  for (auto& [owner, n] : nodes_) {
    if (n.down) continue;
    boot(n);
    timers_["connect " + owner] = {static_cast<std::int64_t>(random_() % 3), [this, &node = n] { connect(node); }};
  }
  from_aggregator(aggregator_->start());
  for (std::size_t events = 0; events < 200'000; ++events) {
    if (!now_.empty()) {
      auto event = std::move(now_.front());
      now_.pop_front();
      event();
      continue;
    }
    std::vector<std::function<void()>> choices;
    for (auto& [owner, n] : nodes_) {
      if (!to_aggregator_[owner].empty()) choices.emplace_back([this, &node = n] { deliver_to_aggregator(node); });
      if (!to_participant_[owner].empty()) choices.emplace_back([this, &node = n] { deliver_to_participant(node); });
    }
    for (std::size_t i = 0; i < local_.size(); ++i)
      choices.emplace_back([this, i] {
        auto event = std::move(local_[i]);
        local_.erase(local_.begin() + static_cast<std::ptrdiff_t>(i));
        event();
      });
    if (!choices.empty()) {
      choices[random_() % choices.size()]();
      continue;
    }
    if (timers_.empty()) return;
    const auto next = std::ranges::min_element(timers_, {}, [](const auto& t) { return t.second.at; });
    clock_ = std::max(clock_, next->second.at);
    auto fire = std::move(next->second.fire);
    timers_.erase(next);
    fire();
  }
  ADD_FAILURE() << "the run does not come to an end";
}

// --- Participants' side ----------------------------------------------------------------------------------------------

void Network::boot(Node& n) {
  ++n.life;
  std::optional<round::ParticipantRecord> record;
  if (n.disk.record) record = must(round::ParticipantRecord::parse(*n.disk.record));
  n.machine = std::make_unique<round::Participant>(participant_setup(n.owner), std::move(record));
}

void Network::connect(Node& n) {
  if (!n.machine) boot(n);
  n.up_link = true;
  from_aggregator(aggregator_->connected(n.owner));
  if (n.machine) from_participant(n, n.machine->connected(receipt_key.public_key()));
}

void Network::cut(Node& n) {
  if (!n.up_link) return;
  n.up_link = false;
  n.receiving.reset();
  to_aggregator_[n.owner].clear();
  to_participant_[n.owner].clear();
  expecting_.erase(n.owner);
  now_.emplace_back([this, &n] {
    from_aggregator(aggregator_->disconnected(n.owner));
    if (n.machine) from_participant(n, n.machine->disconnected());
  });
  if (!finish || !n.ended) timers_["connect " + n.owner] = {clock_ + 100, [this, &n] { connect(n); }};
}

void Network::local(const Node& n, std::function<void(Node&)> event) {
  local_.emplace_back([this, owner = n.owner, life = n.life, event = std::move(event)] {
    Node& node = nodes_.at(owner);
    if (node.machine && node.life == life) event(node);
  });
}

bool Network::due(const Node& n, bool after) const {
  return crash && crash->owner == n.owner && crash->after == after && crash->at_step == n.steps;
}

void Network::from_participant(Node& n, round::ParticipantSteps steps) {
  const std::uint64_t life = n.life;
  for (const round::ParticipantStep& s : steps) {
    bool crashed = due(n, false);
    if (!crashed) {
      std::visit([&](const auto& one) { step(n, one); }, s);
      crashed = due(n, true);
    }
    ++n.steps;
    if (crashed) {
      n.machine.reset();
      ++n.life;
      std::erase_if(timers_, [&](const auto& t) { return t.first.starts_with(n.owner + " "); });
      if (n.up_link) cut(n);
      timers_["connect " + n.owner] = {clock_ + 100, [this, &n] { connect(n); }};
      return;
    }
    if (n.life != life) return;
  }
}

void Network::step(Node& n, const round::Send& s) {
  if (const auto* a = std::get_if<messages::Acknowledge>(&s.message)) {
    const auto ack = must(round::Acknowledgement::parse(base::view(a->acknowledgement())));
    n.signed_receipts.emplace(ack.round, ack.receipt);
    // Durable before it is sent: the record on disk has it already.
    const auto record = must(round::ParticipantRecord::parse(n.disk.record.value()));
    EXPECT_EQ(record.receipts.at(ack.round), ack.receipt);
  }
  if (const auto* u = std::get_if<messages::Update>(&s.message)) {
    EXPECT_EQ(base::text(base::sha256(n.disk.update.value())), u->digest());
  }
  if (n.up_link) on_wire(n, to_aggregator_[n.owner], s.message);
}

void Network::step(Node& n, const round::Charge& s) {
  n.disk.charges.emplace_back(s.round, s.task);
  n.disk.record = s.record.serialize();
}

void Network::step(Node& n, const round::NeedModel& s) {
  local(n, [this, s](Node& node) {
    if (node.disk.models.contains(s.digest)) return from_participant(node, node.machine->model_ready(s.digest));
    from_participant(node, node.machine->fetch(s.digest, node.disk.partial.size()));
  });
}

void Network::step(Node& n, const round::ReceiveModel& s) {
  n.receiving = s;
}

void Network::step(Node& n, const round::RunTask& s) {
  EXPECT_TRUE(!s.model || n.disk.models.contains(*s.model));
  local(n, [this, s](Node& node) {
    if (node.task_fails) return from_participant(node, node.machine->task_failed(s.offered.round, *node.task_fails));
    const Bytes update = update_of(node.owner, s.offered, s.model);
    updates_[node.owner] = update;
    from_participant(node, node.machine->task_done(s.offered.round, base::sha256(update), update.size(),
                                                   weight_of(node.owner, s.offered.task)));
  });
}

void Network::step(Node& n, const round::StoreUpdate& s) {
  n.disk.update = updates_.at(n.owner);
  n.disk.record = s.record.serialize();
}

void Network::step(Node& n, const round::SendUpdate& s) {
  const View rest = View(*n.disk.update).subspan(s.offset);
  for (std::size_t at = 0; at < rest.size() && n.up_link; at += chunk)
    on_wire(n, to_aggregator_[n.owner], base::copy(rest.subspan(at, std::min(chunk, rest.size() - at))));
}

void Network::step(Node& n, const round::SignReceipt& s) {
  n.disk.record = s.record.serialize();
}

void Network::step(Node& n, const round::Keep& s) {
  n.disk.kept.push_back(s.committed);
  n.disk.record = s.record.serialize();
}

void Network::step(Node& n, const round::Disconnect& s) {
  n.disconnects.push_back(s.reason);
  cut(n);
}

void Network::step(Node& n, const round::SetDeadline& s) {
  timers_[n.owner + " " + s.name] = {clock_ + s.after.count(), [this, &n, name = s.name] {
                                       if (n.machine) from_participant(n, n.machine->deadline(name));
                                     }};
}

void Network::step(Node& n, const round::ClearDeadline& s) {
  timers_.erase(n.owner + " " + s.name);
}

void Network::deliver_to_participant(Node& n) {
  Item item = std::move(to_participant_[n.owner].front());
  to_participant_[n.owner].pop_front();
  if (!n.machine) return;
  if (const auto* m = std::get_if<Message>(&item)) return from_participant(n, n.machine->on(*m));
  const Bytes& data = std::get<Bytes>(item);
  if (!n.receiving) return from_participant(n, n.machine->unexpected("data"));
  n.disk.partial.insert(n.disk.partial.end(), data.begin(), data.end());
  if (n.disk.partial.size() < n.receiving->length) return;
  const Sha256 digest = n.receiving->digest;
  const bool holds = base::sha256(n.disk.partial) == digest;
  if (holds) n.disk.models[digest] = n.disk.partial;
  n.disk.partial.clear();
  n.receiving.reset();
  from_participant(n, holds ? n.machine->model_ready(digest) : n.machine->model_broken(digest));
}

// --- The wire --------------------------------------------------------------------------------------------------------

void Network::on_wire(Node& n, std::deque<Item>& queue, Item item) {
  const std::size_t index = n.messages++;
  WireFault::Kind kind = fault.owner == n.owner && fault.at == index ? fault.kind : WireFault::Kind::none;
  if (fault_count > 0 && std::uniform_real_distribution<>()(random_) < fault_rate) {
    --fault_count;
    kind = static_cast<WireFault::Kind>(1 + random_() % 4);
  }
  // As on a real link: what goes over it is bytes.
  if (auto* m = std::get_if<Message>(&item))
    item = must(round::parse_message(round::type(*m), base::view(round::protobuf(*m).SerializeAsString())));
  switch (kind) {
    case WireFault::Kind::none:
      queue.push_back(std::move(item));
      break;
    case WireFault::Kind::drop:
      break;
    case WireFault::Kind::repeat:
      queue.push_back(item);
      queue.push_back(std::move(item));
      break;
    case WireFault::Kind::reorder:
      queue.push_front(std::move(item));
      break;
    case WireFault::Kind::cut:
      cut(n);
      break;
  }
}

// --- The aggregator's side -------------------------------------------------------------------------------------------

void Network::from_aggregator(round::AggregatorSteps steps) {
  for (const round::AggregatorStep& s : steps) std::visit([&](const auto& one) { step(one); }, s);
}

void Network::step(const round::SendTo& s) {
  Node& n = nodes_.at(s.owner);
  if (n.up_link) on_wire(n, to_participant_[s.owner], *s.message);
}

void Network::step(const round::SendMissed& s) {
  Node& n = nodes_.at(s.owner);
  for (std::uint32_t from = s.from; from < s.to;) {
    auto missed = must(aggregator_->missed(s.owner, from, s.to));
    ASSERT_GT(missed.committed_size(), 0);
    from += static_cast<std::uint32_t>(missed.committed_size());
    if (n.up_link) on_wire(n, to_participant_[s.owner], Message(std::move(missed)));
  }
}

void Network::step(const round::SendModel& s) {
  // By rule: only a committed model, or the charter's initial one, ever leaves.
  bool committed = s.digest == charter->manifest.initial_model;
  for (const auto& r : records)
    committed = committed || must(round::SignedReceipt::parse(r.receipt)).receipt.model_out == s.digest;
  EXPECT_TRUE(committed) << "an uncommitted model left for " << s.owner;
  Node& n = nodes_.at(s.owner);
  const Bytes& model = models_.at(s.digest);
  messages::Transfer t;
  t.set_what("model");
  t.set_digest(base::text(s.digest));
  t.set_length(model.size());
  t.set_offset(s.offset);
  if (n.up_link) on_wire(n, to_participant_[s.owner], Message(t));
  for (std::size_t at = s.offset; at < model.size() && n.up_link; at += chunk)
    on_wire(n, to_participant_[s.owner], base::copy(View(model).subspan(at, std::min(chunk, model.size() - at))));
  from_aggregator(aggregator_->model_sent(s.owner));
}

void Network::step(const round::BeginTask&) {
  sum_ = {};
  slots_.clear();
}

void Network::step(const round::OpenSlot& s) {
  local_.emplace_back([this, s] {
    Slot& slot = slots_[s.owner];
    if (slot.digest != s.digest) slot = {s.digest, {}};
    from_aggregator(aggregator_->slot_open(s.owner, s.round, slot.bytes.size()));
  });
}

void Network::step(const round::Receive& s) {
  expecting_[s.owner] = {s.round, s.length, true};
  if (s.length > 0) return;
  expecting_.erase(s.owner);  // everything was there before the cut
  local_.emplace_back(
      [this, s] { from_aggregator(aggregator_->staged(s.owner, s.round, base::sha256(slots_[s.owner].bytes))); });
}

void Network::step(const round::Swallow& s) {
  expecting_[s.owner] = {0, s.length, false};
}

void Network::step(const round::DropSlot& s) {
  slots_.erase(s.owner);
  if (const auto e = expecting_.find(s.owner); e != expecting_.end()) e->second.wanted = false;
}

void Network::step(const round::Add& s) {
  added[s.round].push_back(s.owner);
  const auto update = words(slots_.at(s.owner).bytes);
  for (std::size_t i = 0; i < 4; ++i) sum_[i] += s.weight * update[i];
  slots_.erase(s.owner);
}

void Network::reduce(const round::Reduce& s) {
  local_.emplace_back([this, s] {
    base::Writer w;
    w.field(s.task).u32(s.train_round);
    for (std::uint64_t word : sum_) w.u64(word);
    Bytes value = std::move(w).bytes();
    round::Reduction out;
    if (s.task == "train") {
      value.resize(model_length);
      out.model = base::sha256(value);
      models_[*out.model] = value;
    } else {
      out.value = value;
    }
    values[s.round] = std::move(value);
    from_aggregator(aggregator_->reduced(s.round, std::move(out)));
  });
}

void Network::step(const round::SetDeadline& s) {
  timers_["aggregator/" + s.name] = {clock_ + s.after.count(),
                                     [this, name = s.name] { from_aggregator(aggregator_->deadline(name)); }};
}

void Network::step(const round::ClearDeadline& s) {
  timers_.erase("aggregator/" + s.name);
}

void Network::step(const round::Record& s) {
  EXPECT_EQ(s.first, records.empty());
  round::CommittedReceipt r;
  r.receipt = base::copy(base::view(s.record.receipt()));
  for (const std::string& a : s.record.acknowledgements()) r.acknowledgements.push_back(base::copy(base::view(a)));
  records.push_back(std::move(r));
}

void Network::step(const round::Refuse& s) {
  refusals.push_back(s);
  cut(nodes_.at(s.owner));
}

void Network::deliver_to_aggregator(Node& n) {
  Item item = std::move(to_aggregator_[n.owner].front());
  to_aggregator_[n.owner].pop_front();
  if (const auto* m = std::get_if<Message>(&item)) {
    if (at_delivery) at_delivery(n.owner, *m);
    return from_aggregator(aggregator_->on(n.owner, *m));
  }
  const Bytes& data = std::get<Bytes>(item);
  const auto e = expecting_.find(n.owner);
  if (e == expecting_.end() || data.size() > e->second.left) {
    if (e != expecting_.end()) expecting_.erase(e);
    return from_aggregator(aggregator_->data_unexpected(n.owner));
  }
  e->second.left -= data.size();
  const Expecting now = e->second;
  if (now.left == 0) expecting_.erase(e);
  if (!now.wanted) return;
  Bytes& slot = slots_[n.owner].bytes;
  slot.insert(slot.end(), data.begin(), data.end());
  if (now.left > 0) return;
  const auto finding = range_check ? range_check(n.owner, slot) : std::nullopt;
  if (finding) return from_aggregator(aggregator_->stage_refused(n.owner, now.round, *finding));
  from_aggregator(aggregator_->staged(n.owner, now.round, base::sha256(slot)));
}

// --- What always holds -----------------------------------------------------------------------------------------------

void Network::expect_sound() const {
  auto chain = round::verify_chain(records, *charter, receipt_key.public_key(), evidence);
  ASSERT_TRUE(chain.has_value()) << chain.error().text();
  std::map<std::uint32_t, Sha256> one;
  for (const round::SignedReceipt& s : *chain) {
    one[s.receipt.round] = s.digest;
    std::vector<std::string> counted, sum = added.at(s.receipt.round);
    const auto owners = charter->manifest.data_owners();
    for (std::uint32_t place = 0; place < owners.size(); ++place)
      if (s.receipt.members[place].state == round::MemberState::contributed) counted.push_back(owners[place]->owner);
    std::ranges::sort(sum);
    std::ranges::sort(counted);
    EXPECT_EQ(sum, counted) << "round " << s.receipt.round << ": what was added is what the receipt says, each once";
  }
  for (const auto& [owner, n] : nodes_) {
    std::set<std::uint32_t> rounds;
    for (const auto& [number, digest] : n.signed_receipts)
      EXPECT_TRUE(rounds.insert(number).second) << owner << " signed two receipts of round " << number;
    std::set<std::uint32_t> charged;
    for (const auto& [number, task] : n.disk.charges)
      EXPECT_TRUE(charged.insert(number).second) << owner << " was charged twice for round " << number;
    for (const round::Publish& p : n.published) {
      ASSERT_TRUE(one.contains(p.round)) << owner << " was given a value of a round that never committed";
      EXPECT_EQ(chain->at(p.round - 1).receipt.result, base::sha256(p.value));
    }
    for (const round::Refused& r : n.refused) EXPECT_FALSE(r.equivocation) << r.about << "\n" << r.decision.explain();
  }
  for (const messages::Result& r : results)
    EXPECT_TRUE(one.contains(r.round())) << "an uncommitted " << r.kind() << " was published";
}

}  // namespace cloister::tests

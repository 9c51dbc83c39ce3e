#include "protocols/round/aggregator.hpp"

#include <fmt/format.h>

#include "protocols/round/aggregator_state.hpp"

namespace cloister::protocols::round {

using base::Sha256;

namespace {

class HistoryInMemory final : public History {
 public:
  void append(View round) override { rounds_.push_back(base::copy(round)); }
  Result<Bytes> at(std::uint32_t index) const override {
    if (index >= rounds_.size()) return base::unavailable("history", fmt::format("there is no round {}", index + 1));
    return rounds_[index];
  }

 private:
  std::vector<Bytes> rounds_;
};

}  // namespace

Aggregator::Aggregator(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Aggregator::Aggregator(Aggregator&&) noexcept = default;
Aggregator& Aggregator::operator=(Aggregator&&) noexcept = default;
Aggregator::~Aggregator() = default;

Result<Aggregator> Aggregator::create(AggregatorSetup setup) {
  const std::string where = fmt::format("run {}", setup.order.run);
  auto impl = std::make_unique<Impl>(std::move(setup));
  const attest::Charter& charter = impl->charter;
  const attest::Decision order = attest::judge_order(impl->setup.order, charter);
  if (!order.allowed()) return base::denied(where, order.explain());
  auto settings = attest::complete_settings(charter.manifest, impl->setup.order.settings);
  if (!settings) return settings.error();
  impl->settings = std::move(*settings);
  impl->rounds = schedule_length(charter.manifest, impl->settings);
  impl->minimum = minimum_contributors(charter);
  impl->model = charter.manifest.initial_model;
  if (const auto q = impl->settings.find("quorum"); q != impl->settings.end())
    impl->quorum = q->second > 0 ? static_cast<std::uint32_t>(std::min(q->second, 1e6)) : 0;

  if (impl->rounds == 0) return base::denied(where, "settings.rounds: wanted at least 1, found none");
  for (const ScheduledTask& t : schedule(charter.manifest, impl->settings))
    if (!impl->setup.shapes.contains(t.task))
      return base::denied(where, "no shape is known for the updates of task " + t.task);
  // By rule: the quorum is "never below the largest at_least".
  if (impl->quorum != 0 && impl->quorum < impl->minimum.at_least)
    return base::denied(where, fmt::format("settings.quorum: {} wants at least {}, found {}", impl->minimum.owner,
                                           impl->minimum.at_least, impl->quorum));
  impl->publish_model = publication(charter, "model");
  impl->publish_evaluate = publication(charter, "evaluate");
  impl->publish_statistics = publication(charter, "statistics");
  if (!charter.manifest.statistics_kinds.empty() && impl->publish_statistics == 0)
    return base::denied(where,
                        "study.publish.statistics: wanted cohort in every policy, as the task needs it, found never");
  if (charter.manifest.witness_quorum() > charter.manifest.witnesses.size())
    return base::denied(where, fmt::format("witnesses: a quorum of {} cannot come from {}",
                                           charter.manifest.witness_quorum(), charter.manifest.witnesses.size()));
  for (const Bytes& bytes : impl->setup.withdrawals) {
    auto w = Withdrawal::parse(bytes);
    if (!w) return w.error();
    if (auto ok = w->verify(charter); !ok) return ok.error();
    impl->withdrawn.try_emplace(w->owner, *w);
  }
  return Aggregator(std::move(impl));
}

Aggregator::Impl::Impl(AggregatorSetup s) : setup(std::move(s)), charter(*setup.charter) {
  if (!setup.history) setup.history = std::make_shared<HistoryInMemory>();
  for (const attest::Party* p : charter.manifest.data_owners()) owners.push_back(p->owner);
  members.resize(owners.size());
  counts[static_cast<std::size_t>(Progress::absent)] = static_cast<std::uint32_t>(members.size());
}

AggregatorSteps Aggregator::start() {
  impl_->begin_round();
  return impl_->take();
}

AggregatorSteps Aggregator::connected(const std::string& owner) {
  impl_->peers[owner] = {true, false, {}};
  return impl_->take();
}

AggregatorSteps Aggregator::joined(const std::string& owner) {
  if (!impl_->knows(owner)) return {};
  impl_->peers[owner] = {true, true, {}};
  impl_->replay(owner, 0);
  return impl_->take();
}

AggregatorSteps Aggregator::disconnected(const std::string& owner) {
  impl_->peers.erase(owner);
  return impl_->take();
}

AggregatorSteps Aggregator::on(const std::string& owner, const Message& message) {
  Impl& i = *impl_;
  const auto peer = i.peers.find(owner);
  if (peer == i.peers.end() || !peer->second.connected)
    return {};  // refused before: what was still under way is not read
  const auto* hello = std::get_if<messages::ParticipantHello>(&message);
  if ((hello != nullptr) == peer->second.greeted || !i.knows(owner)) {
    i.unexpected(owner, name(type(message)));
  } else if (hello != nullptr) {
    i.greet(owner, *hello);
  } else if (const auto* w = std::get_if<messages::Withdraw>(&message)) {
    i.withdraw(owner, base::view(w->statement()));
  } else if (const auto* a = std::get_if<messages::Acknowledge>(&message)) {
    i.acknowledge(owner, *a);
  } else if (const auto* accept = std::get_if<messages::Accept>(&message)) {
    i.accept(owner, *accept);
  } else if (const auto* decline = std::get_if<messages::Decline>(&message)) {
    i.decline(owner, *decline);
  } else if (const auto* request = std::get_if<messages::ModelRequest>(&message)) {
    i.request_model(owner, *request);
  } else if (const auto* update = std::get_if<messages::Update>(&message)) {
    i.announce(owner, *update);
  } else if (const auto* transfer = std::get_if<messages::Transfer>(&message)) {
    i.transfer(owner, *transfer);
  } else {
    i.unexpected(owner, name(type(message)));
  }
  return i.take();
}

AggregatorSteps Aggregator::unexpected(const std::string& owner, std::string_view what) {
  impl_->unexpected(owner, what);
  return impl_->take();
}

AggregatorSteps Aggregator::data_unexpected(const std::string& owner) {
  return unexpected(owner, "data that no Transfer announced");
}

AggregatorSteps Aggregator::model_sent(const std::string& owner) {
  if (impl_->phase == Impl::Phase::collecting && impl_->knows(owner) &&
      impl_->member(owner).progress == Progress::downloading)
    impl_->set(owner, Progress::training);
  return impl_->take();
}

AggregatorSteps Aggregator::slot_open(const std::string& owner, std::uint32_t round, std::uint64_t offset) {
  if (impl_->knows(owner) && impl_->phase == Impl::Phase::collecting && round == impl_->round)
    impl_->slot_open(owner, offset);
  return impl_->take();
}

AggregatorSteps Aggregator::staged(const std::string& owner, std::uint32_t round, const Sha256& digest) {
  if (impl_->knows(owner) && impl_->phase == Impl::Phase::collecting && round == impl_->round)
    impl_->staged(owner, digest);
  return impl_->take();
}

AggregatorSteps Aggregator::stage_refused(const std::string& owner, std::uint32_t round, attest::Finding finding) {
  if (impl_->knows(owner) && impl_->phase == Impl::Phase::collecting && round == impl_->round)
    impl_->refuse_update(owner, std::move(finding));
  return impl_->take();
}

AggregatorSteps Aggregator::reduced(std::uint32_t round, Reduction reduction) {
  if (impl_->phase == Impl::Phase::closing && round == impl_->round) impl_->reduced(std::move(reduction));
  return impl_->take();
}

AggregatorSteps Aggregator::reduction_failed(std::uint32_t round, std::string reason) {
  if (impl_->phase == Impl::Phase::closing && round == impl_->round)
    impl_->finish(Outcome::failed, fmt::format("round {}: {}", round, reason));
  return impl_->take();
}

AggregatorSteps Aggregator::deadline(std::string_view name) {
  Impl& i = *impl_;
  if (name == round_deadline && i.phase == Impl::Phase::collecting)
    i.close();
  else if (name == witness_deadline && i.phase == Impl::Phase::witnessing)
    i.finish(Outcome::failed,
             fmt::format("round {}: wanted acknowledgements of {} of {} witnesses within {}, found {}; nothing of the "
                         "round is published",
                         i.round, i.charter.manifest.witness_quorum(), i.charter.manifest.witnesses.size(),
                         base::text(i.charter.manifest.round_deadline), i.pending->acknowledgements.size()));
  else if (name == grant_deadline && i.phase == Impl::Phase::waiting && !i.granted)
    i.finish(Outcome::failed, fmt::format("after round {}: the launch grant expired and was not renewed", i.round));
  return i.take();
}

AggregatorSteps Aggregator::grant(bool valid) {
  Impl& i = *impl_;
  const bool resume = valid && !i.granted && i.phase == Impl::Phase::waiting;
  i.granted = valid;
  if (resume) {
    i.out.emplace_back(ClearDeadline{std::string(grant_deadline)});
    i.begin_round();
  }
  return i.take();
}

AggregatorSteps Aggregator::cancel(std::string reason) {
  if (!finished()) impl_->finish(Outcome::cancelled, std::move(reason));
  return impl_->take();
}

AggregatorSteps Aggregator::fail(std::string reason) {
  if (!finished()) impl_->finish(Outcome::failed, std::move(reason));
  return impl_->take();
}

bool Aggregator::finished() const {
  return impl_->phase == Impl::Phase::finished;
}
std::uint64_t Aggregator::run() const {
  return impl_->setup.order.run;
}
std::uint32_t Aggregator::round() const {
  return impl_->round;
}
messages::RunStatus Aggregator::status() const {
  return impl_->status();
}

Result<messages::MissedReceipts> Aggregator::missed(const std::string& owner, std::uint32_t from,
                                                    std::uint32_t to) const {
  constexpr std::size_t enough = 256 << 10;
  messages::MissedReceipts out;
  std::size_t bytes = 0;
  for (std::uint32_t at = from; at < to && at < impl_->committed && bytes < enough; ++at) {
    auto stored = impl_->setup.history->at(at);
    if (!stored) return stored.error();
    bytes += stored->size();
    auto round = Impl::Round::parse(*stored);
    if (!round) return round.error();
    *out.add_committed() = impl_->committed_for(owner, *round);
  }
  return out;
}

std::vector<Bytes> Aggregator::withdrawals() const {
  std::vector<Bytes> out;
  for (const auto& [owner, w] : impl_->withdrawn) out.push_back(w.serialize());
  return out;
}

}  // namespace cloister::protocols::round

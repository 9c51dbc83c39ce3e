// What a participant checks of an offer and of a receipt, besides its own policy: that both go on where the last
// committed round left the run, and that nobody was asked or counted under the same number twice.

#include <algorithm>
#include <fmt/format.h>

#include "protocols/round/participant_state.hpp"

namespace cloister::protocols::round {

using base::Sha256;

namespace {

std::string digest_of(View bytes) {
  if (bytes.empty()) return "none";
  return bytes.size() == 32 ? base::digest_text(base::array<32>(bytes)) : fmt::format("{} bytes", bytes.size());
}

std::string digest_of(const std::optional<Sha256>& digest) {
  return digest ? base::digest_text(*digest) : "none";
}

bool same(const std::string& bytes, const std::optional<Sha256>& digest) {
  return digest ? bytes == base::text(*digest) : bytes.empty();
}

}  // namespace

attest::Finding check(bool met, std::string requirement, std::string wanted, std::string found, std::string remedy) {
  return {met, "charter", std::move(requirement), std::move(wanted), std::move(found), std::move(remedy)};
}

attest::Decision Participant::Impl::judge_offer(const messages::Offer& message, OfferedTask& task,
                                                bool& equivocation) const {
  attest::Decision d;
  judge_identity(message, d, equivocation);
  judge_order(message, task, d, equivocation);
  judge_state(message, task.settings, d);
  judge_cohort(message, task, d);
  task.round = message.round();
  task.task = message.task();
  task.train_round = message.train_round();
  // A duration from outside: more than the charter's deadline means nothing.
  task.deadline = std::chrono::milliseconds(std::min<std::uint64_t>(
      message.deadline_ms(), static_cast<std::uint64_t>(charter.manifest.round_deadline.count())));
  return d;
}

/// Numbers are used once: one instance per run, one answer per round (docs/how-it-works.md).
void Participant::Impl::judge_identity(const messages::Offer& message, attest::Decision& d, bool& equivocation) const {
  d.add(check(message.receipt_key() == base::text(key->bytes), "receipt key of the offer", key->text(),
              digest_of(base::view(message.receipt_key())), "offer under the attested instance record's receipt key"));
  d.add(check(message.round() == last() + 1, "round after the last committed one", std::to_string(last() + 1),
              std::to_string(message.round()), "send the receipts that are missing, or begin a new run"));
  const std::optional<Sha256> before = committed ? std::optional(committed->digest) : std::nullopt;
  d.add(check(same(message.last_receipt(), before), "last committed receipt", digest_of(before),
              digest_of(base::view(message.last_receipt())),
              "continue from the receipt that the witnesses acknowledged"));

  const Sha256 digest = offer_digest(message);
  const bool second =
      record.answered >= message.round() && !(record.answered == message.round() && record.offer == digest);
  if (second) equivocation = true;
  d.add(check(!second, "one offer per round",
              second ? "offer " + base::digest_text(record.offer) + " of round " + std::to_string(record.answered)
                     : "none answered before",
              second ? "another: " + base::digest_text(digest) : "the same or the first",
              "a round number is used once: begin a new run"));
  const bool closed = record.receipts.contains(message.round());
  d.add(check(!closed, "no offer after its receipt", "none",
              closed ? "an offer for a round whose receipt was signed" : "none",
              "a round number is used once: begin a new run"));
}

/// The run order with both signatures; one per run number, ever.
void Participant::Impl::judge_order(const messages::Offer& message, OfferedTask& task, attest::Decision& d,
                                    bool& equivocation) const {
  auto order = attest::RunOrder::parse(base::view(message.order()));
  if (!order)
    return d.add(check(false, "run order", "one that parses", order.error().text(), "send the signed run order"));
  d.add(attest::judge_order(*order, charter));
  d.add(check(order->run == setup.run, "run", std::to_string(setup.run), std::to_string(order->run),
              "offer the run under way"));
  const Sha256 digest = base::sha256(base::view(message.order()));
  const bool one = record.order == Sha256{} || record.order == digest;
  if (!one) equivocation = true;
  d.add(check(one, "one order per run", one ? base::digest_text(digest) : base::digest_text(record.order),
              base::digest_text(digest), "a run number is used once: order a new run"));
  auto settings = attest::complete_settings(charter.manifest, order->settings);
  if (!settings)
    return d.add(
        check(false, "settings", "inside the manifest's ranges", settings.error().text(), "order other settings"));
  task.settings = std::move(*settings);
  task.order = std::move(*order);
}

/// Task, model and statistics follow from the charter, the order and the last committed receipt.
void Participant::Impl::judge_state(const messages::Offer& message, const attest::Settings& settings,
                                    attest::Decision& d) const {
  const auto task = scheduled(charter.manifest, settings, message.round());
  const ScheduledTask wanted = task.value_or(ScheduledTask{"none", 0});
  d.add(check(task && message.task() == wanted.task && message.train_round() == wanted.train_round,
              "task in the run's schedule", fmt::format("{} (train round {})", wanted.task, wanted.train_round),
              fmt::format("{} (train round {})", message.task(), message.train_round()),
              "follow the schedule of the settings"));

  const Receipt* before = committed ? &committed->receipt : nullptr;
  std::optional<Sha256> model =
      before != nullptr && before->model_out ? *before->model_out : charter.manifest.initial_model;
  if (message.task() == "statistics") model.reset();
  d.add(check(same(message.model(), model), "model on offer", digest_of(model), digest_of(base::view(message.model())),
              "offer the committed model, or the charter's initial one"));

  std::optional<Sha256> statistics;
  if (before != nullptr) statistics = before->task == "statistics" ? before->result : before->statistics;
  std::optional<Sha256> found;
  if (!message.statistics().empty()) found = base::sha256(base::view(message.statistics()));
  d.add(check(found == statistics, "statistics in force", digest_of(statistics), digest_of(found),
              "send the committed statistics"));

  const auto shape = setup.shapes.find(message.task());
  d.add(check(
      shape != setup.shapes.end() && message.schema() == base::text(shape->second.schema), "schema of the update",
      shape == setup.shapes.end() ? "none is known for " + message.task() : base::digest_text(shape->second.schema),
      digest_of(base::view(message.schema())), "follow the charter's schema"));
}

std::vector<std::string> Participant::Impl::withdrawn_in(const messages::Offer& message) const {
  std::map<std::uint32_t, std::string> by_place;
  for (const std::string& bytes : message.withdrawals())
    if (auto w = Withdrawal::parse(base::view(bytes)))
      if (const auto place = charter.manifest.data_place(w->owner)) by_place.emplace(*place, w->owner);
  std::vector<std::string> owners;
  for (auto& [place, owner] : by_place) owners.push_back(std::move(owner));
  return owners;
}

/// The cohort is every data owner of the charter but those whose signed withdrawal is shown: an aggregator has no other
/// way to ask fewer.
void Participant::Impl::judge_cohort(const messages::Offer& message, OfferedTask& task, attest::Decision& d) const {
  for (const std::string& bytes : message.withdrawals()) {
    auto w = Withdrawal::parse(base::view(bytes));
    Result<void> ok = w ? w->verify(charter) : Result<void>(w.error());
    d.add(check(ok.has_value(), "withdrawals in force", "signed by their owners", ok ? "signed" : ok.error().text(),
                "show the signed statement"));
  }
  const std::vector<std::string> withdrawn = withdrawn_in(message);
  task.cohort = charter.manifest.data_count() - static_cast<std::uint32_t>(withdrawn.size());

  const attest::Policy* policy = charter.policy(setup.owner);
  const attest::DataPolicy* own = policy == nullptr ? nullptr : policy->data();
  if (own == nullptr)
    return d.add(check(false, "policy of " + setup.owner, "a data owner's", "none", "use the founded charter"));
  const bool self = std::ranges::count(withdrawn, setup.owner) == 0;
  d.add({self && setup.withdrawal.empty(), policy->owner_text(), "this owner takes part",
         "in the cohort, no withdrawal in force",
         !setup.withdrawal.empty() ? "its withdrawal is in force"
         : self                    ? "in the cohort"
                                   : "not in the cohort",
         "found a successor charter"});
  d.add({task.cohort >= own->study.participants_at_least, policy->owner_text(), "study.participants.at_least",
         std::to_string(own->study.participants_at_least), std::to_string(task.cohort),
         "bring back who withdrew, in a new charter"});
}

attest::Decision Participant::Impl::judge_receipt(const SignedReceipt& s) const {
  const Receipt& r = s.receipt;
  attest::Decision d;
  auto link = verify_link(s, committed ? &*committed : nullptr, charter, *key);
  d.add(check(link.has_value(), "receipt after the last committed one", "one that follows from it",
              link ? "it follows" : link.error().text(), "continue from the receipt that the witnesses acknowledged"));
  if (!link) return d;
  d.add(check(r.run == setup.run, "run", std::to_string(setup.run), std::to_string(r.run),
              "send the receipts of this run"));
  if (record.answered == r.round) {
    d.add(check(r.order == record.order, "order of the run", base::digest_text(record.order),
                base::digest_text(r.order), "close the round that was offered"));
    std::vector<std::string> withdrawn;
    if (const auto places = r.members.withdrawn(); !places.empty()) {
      const std::vector<const attest::Party*> owners = charter.manifest.data_owners();
      for (const std::uint32_t place : places) withdrawn.push_back(owners[place]->owner);
    }
    const auto text = [](const std::vector<std::string>& left) {
      return left.empty() ? "all data owners" : fmt::format("all but {}", fmt::join(left, ", "));
    };
    d.add(check(withdrawn == record.withdrawn, "cohort as it was offered", text(record.withdrawn), text(withdrawn),
                "close the round that was offered"));
  }
  const auto place = charter.manifest.data_place(setup.owner);
  if (!place) {  // verify_link has held the members to be the charter's data owners
    d.add(check(false, "members", "this owner among them", "not there", "list every data owner"));
    return d;
  }
  const ReceiptMember self = r.members[*place];
  const bool sent = record.stored == r.round;
  const bool counted = self.state == MemberState::contributed;
  d.add(check(!counted || sent, "own contribution", "none was sent", counted ? "counted as contributed" : "not counted",
              "count only what was sent"));
  d.add(check(counted || !confirmed || record.stored != r.round, "own contribution",
              "counted, as the aggregator had stored it", std::string(name(self.state)), "count what was stored"));
  d.add(check(self.state != MemberState::withdrawn || !setup.withdrawal.empty(), "own withdrawal", "none was signed",
              std::string(name(self.state)), "only the owner's signed statement withdraws it"));
  return d;
}

/// "random bytes and path go only to its participant" (docs/how-it-works.md): with them it sees that its own update is
/// under the root.
bool Participant::Impl::leaf_holds(const messages::Receipt& message, const SignedReceipt& receipt) const {
  const auto place = charter.manifest.data_place(setup.owner);
  if (message.leaf_random().size() != 32 || !place) return false;
  std::vector<Sha256> path;
  for (const std::string& hash : message.path()) {
    if (hash.size() != 32) return false;
    path.push_back(base::array<32>(base::view(hash)));
  }
  const Sha256 entry = leaf_entry(base::array<32>(base::view(message.leaf_random())), record.update);
  const Members& members = receipt.receipt.members;
  return merkle_verifies(entry, members.contributors_before(*place), members.contributors(), path,
                         receipt.receipt.updates);
}

}  // namespace cloister::protocols::round

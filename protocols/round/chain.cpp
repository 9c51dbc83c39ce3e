// Checks over receipts in their order: links, quorums, whole runs (receipt.hpp).

#include <algorithm>
#include <fmt/format.h>
#include <set>

#include "protocols/round/receipt.hpp"

namespace cloister::protocols::round {

using base::Sha256;

namespace {

std::string digest(const std::optional<Sha256>& d) {
  return d ? base::digest_text(*d) : "none";
}

std::string place(const Receipt& r) {
  return fmt::format("receipt of run {} round {}", r.run, r.round);
}

template <class T>
Result<void> wanted(const Receipt& r, std::string_view field, const T& want, const T& found) {
  if (want == found) return {};
  if constexpr (std::is_same_v<T, std::optional<Sha256>>) {
    return base::untrusted(place(r), fmt::format("{}: wanted {}, found {}", field, digest(want), digest(found)));
  } else if constexpr (std::is_same_v<T, Sha256>) {
    return base::untrusted(
        place(r), fmt::format("{}: wanted {}, found {}", field, base::digest_text(want), base::digest_text(found)));
  } else {
    return base::untrusted(place(r), fmt::format("{}: wanted {}, found {}", field, want, found));
  }
}

/// Who is listed, who had withdrawn, and how many contributed.
Result<void> verify_members(const Receipt& r, const Receipt* previous, const attest::Charter& charter) {
  if (r.members.size() != charter.manifest.data_count())
    return base::untrusted(place(r), fmt::format("members: wanted the charter's {} data owners, found {}",
                                                 charter.manifest.data_count(), r.members.size()));
  for (const std::uint32_t before : previous == nullptr ? Members::Places() : previous->members.withdrawn())
    if (const ReceiptMember now = r.members[before]; now.state != MemberState::withdrawn)
      return base::untrusted(place(r), fmt::format("members: {} had withdrawn before, found {}",
                                                   charter.manifest.data_owners()[before]->owner, name(now.state)));
  const Minimum minimum = minimum_contributors(charter);
  if (r.contributors() < minimum.at_least)
    return base::untrusted(place(r), fmt::format("members: {} wants at least {} contributors, found {}", minimum.owner,
                                                 minimum.at_least, r.contributors()));
  return {};
}

/// What the charter and the order fix for the whole run.
Result<void> verify_constants(const Receipt& r, const Receipt* previous, const attest::Charter& charter) {
  if (auto ok = wanted(r, "charter", charter.digest, r.charter); !ok) return ok;
  if (auto ok = wanted(r, "algorithm", charter.manifest.algorithm, r.algorithm); !ok) return ok;
  auto complete = attest::complete_settings(charter.manifest, r.settings);
  if (!complete) return base::untrusted(place(r), "settings: " + complete.error().text());
  if (*complete != r.settings)
    return base::untrusted(place(r), "settings: wanted every setting of the manifest, found some absent");
  if (r.clip || r.noise || r.epsilon)
    return base::unsupported(place(r), "clip, noise, epsilon: wanted none, as this version applies none, found some");
  if (previous == nullptr) return {};
  if (auto ok = wanted(r, "run", previous->run, r.run); !ok) return ok;
  if (auto ok = wanted(r, "order", previous->order, r.order); !ok) return ok;
  if (r.settings != previous->settings)
    return base::untrusted(place(r), "settings: wanted those of the round before, found others");
  if (auto ok = wanted(r, "kernel_set", previous->kernel_set, r.kernel_set); !ok) return ok;
  if (auto ok = wanted(r, "evidence", previous->evidence, r.evidence); !ok) return ok;
  return wanted(r, "simulated", previous->simulated, r.simulated);
}

/// The model and the statistics go on where the round before left them.
Result<void> verify_state(const Receipt& r, const Receipt* previous, const attest::Charter& charter) {
  using D = std::optional<Sha256>;
  const bool after_statistics = previous != nullptr && previous->task == "statistics";
  const D model = r.task == "statistics"                    ? D()
                  : previous == nullptr || after_statistics ? D(charter.manifest.initial_model)
                                                            : previous->model_out;
  if (auto ok = wanted(r, "model_in", model, r.model_in); !ok) return ok;
  const D statistics = previous == nullptr ? D() : after_statistics ? previous->result : previous->statistics;
  if (auto ok = wanted(r, "statistics", statistics, r.statistics); !ok) return ok;
  if (r.task == "train") {
    if (!r.model_out) return base::untrusted(place(r), "model_out: wanted the new model's digest, found none");
    if (r.result) return base::untrusted(place(r), "result: a train task has none");
    return {};
  }
  if (auto ok = wanted(r, "model_out", model, r.model_out); !ok) return ok;
  if (auto ok = wanted(r, "optimizer", previous == nullptr ? D() : previous->optimizer, r.optimizer); !ok) return ok;
  if (!r.result) return base::untrusted(place(r), "result: wanted the value's digest, found none");
  return {};
}

}  // namespace

Result<void> verify_quorum(const SignedReceipt& receipt, std::span<const Bytes> acknowledgements,
                           const attest::Charter& charter) {
  std::set<std::string> witnesses;
  for (const Bytes& bytes : acknowledgements) {
    auto a = Acknowledgement::parse(bytes);
    if (!a) return a.error();
    if (auto ok = verify_acknowledgement(*a, receipt, charter); !ok) return ok;
    witnesses.insert(a->witness);
  }
  const std::uint32_t q = charter.manifest.witness_quorum();
  if (witnesses.size() < q)
    return base::untrusted(place(receipt.receipt),
                           fmt::format("wanted acknowledgements of {} of the {} witnesses, found {}", q,
                                       charter.manifest.witnesses.size(), witnesses.size()));
  return {};
}

Result<void> verify_link(const SignedReceipt& s, const SignedReceipt* previous, const attest::Charter& charter,
                         const base::PublicKey& receipt_key) {
  const Receipt& r = s.receipt;
  const Receipt* before = previous == nullptr ? nullptr : &previous->receipt;
  if (!s.verifies(receipt_key))
    return base::untrusted(place(r), "the signature is not by receipt key " + receipt_key.text());
  if (auto ok = wanted(r, "round", before == nullptr ? 1U : before->round + 1, r.round); !ok) return ok;
  if (auto ok = wanted(r, "previous", previous == nullptr ? std::optional<Sha256>() : previous->digest, r.previous);
      !ok)
    return ok;
  if (auto ok = verify_constants(r, before, charter); !ok) return ok;
  const auto task = scheduled(charter.manifest, r.settings, r.round);
  if (!task)
    return base::untrusted(place(r), fmt::format("round: wanted at most {}, as the settings schedule, found {}",
                                                 schedule_length(charter.manifest, r.settings), r.round));
  if (auto ok = wanted(r, "task", task->task, r.task); !ok) return ok;
  if (auto ok = wanted(r, "train_round", task->train_round, r.train_round); !ok) return ok;
  if (auto ok = verify_members(r, before, charter); !ok) return ok;
  return verify_state(r, before, charter);
}

Result<std::vector<SignedReceipt>> verify_chain(std::span<const CommittedReceipt> receipts,
                                                const attest::Charter& charter, const base::PublicKey& receipt_key,
                                                const Sha256& evidence) {
  std::vector<SignedReceipt> out;
  for (const CommittedReceipt& c : receipts) {
    auto s = SignedReceipt::parse(c.receipt);
    if (!s) return s.error();
    if (auto ok = verify_link(*s, out.empty() ? nullptr : &out.back(), charter, receipt_key); !ok) return ok.error();
    if (auto ok = wanted(s->receipt, "evidence", evidence, s->receipt.evidence); !ok) return ok.error();
    if (auto ok = verify_quorum(*s, c.acknowledgements, charter); !ok) return ok.error();
    out.push_back(std::move(*s));
  }
  return out;
}

Minimum minimum_contributors(const attest::Charter& charter) {
  std::uint32_t most = 0;
  const attest::Policy* whose = nullptr;
  for (const attest::Policy& policy : charter.policies) {
    const attest::StudyBounds* study = policy.data() != nullptr    ? &policy.data()->study
                                       : policy.model() != nullptr ? &policy.model()->study
                                                                   : nullptr;
    if (study != nullptr && (whose == nullptr || study->participants_at_least > most))
      most = study->participants_at_least, whose = &policy;
  }
  return {most, whose == nullptr ? "" : whose->owner_text()};
}

namespace {

std::uint32_t train_rounds(const attest::Settings& settings) {
  constexpr double most = 1'000'000;  // a run that asks for more is refused by every policy's rounds
  const auto rounds = settings.find("rounds");
  const double asked = rounds == settings.end() ? 0 : rounds->second;
  return asked > 0 ? static_cast<std::uint32_t>(std::min(asked, most)) : 0U;  // no rounds for a NaN
}

/// After every how many train tasks an evaluate task stands; 0: never.
std::uint32_t evaluate_every(const attest::Manifest& manifest) {
  return manifest.evaluate_kinds.empty() ? 0 : manifest.evaluate_every;
}

}  // namespace

std::uint32_t schedule_length(const attest::Manifest& manifest, const attest::Settings& settings) {
  const std::uint32_t trains = train_rounds(settings), every = evaluate_every(manifest);
  return (manifest.statistics_kinds.empty() ? 0 : 1) + trains + (every == 0 ? 0 : trains / every);
}

std::optional<ScheduledTask> scheduled(const attest::Manifest& manifest, const attest::Settings& settings,
                                       std::uint32_t round) {
  if (round < 1 || round > schedule_length(manifest, settings)) return std::nullopt;
  const bool statistics = !manifest.statistics_kinds.empty();
  if (statistics && round == 1) return ScheduledTask{"statistics", 0};
  const std::uint32_t at = round - 1 - (statistics ? 1 : 0);  // among train and evaluate tasks, from 0
  const std::uint32_t every = evaluate_every(manifest);
  if (every == 0) return ScheduledTask{"train", at + 1};
  const std::uint32_t block = at / (every + 1), in_block = at % (every + 1);
  if (in_block == every) return ScheduledTask{"evaluate", (block + 1) * every};
  return ScheduledTask{"train", block * every + in_block + 1};
}

std::vector<ScheduledTask> schedule(const attest::Manifest& manifest, const attest::Settings& settings) {
  std::vector<ScheduledTask> out;
  for (std::uint32_t round = 1; auto task = scheduled(manifest, settings, round); ++round)
    out.push_back(*std::move(task));
  return out;
}

}  // namespace cloister::protocols::round

// Is a charter founded? Every signature is looked at: one that does not verify denies, also where enough others do.

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <set>
#include <unordered_map>

#include "attest/statement.hpp"

namespace cloister::attest {
namespace {

struct Gathered {
  std::set<std::string> signers;
  std::string wrong;  // the first signature that should not be here
};

const base::PublicKey* key_of(const Party& party, const std::string& signer) {
  for (const auto& [name, key] : party.signers)
    if (name == signer) return &key;
  return nullptr;
}

using ByOwner = std::unordered_map<std::string_view, std::vector<const OwnerSignature*>>;

ByOwner by_owner(const std::vector<OwnerSignature>& all) {
  ByOwner out;
  for (const OwnerSignature& s : all) out[s.owner].push_back(&s);
  return out;
}

template <class Verifies>
Gathered gather(const ByOwner& all, const Party& party, Verifies verifies) {
  Gathered out;
  const auto own = all.find(party.owner);
  if (own == all.end()) return out;
  for (const OwnerSignature* one : own->second) {
    const OwnerSignature& s = *one;
    const base::PublicKey* key = key_of(party, s.signer);
    if (key == nullptr)
      out.wrong = fmt::format("a signature by {}, who is not one of its signers", s.signer);
    else if (!out.signers.insert(s.signer).second)
      out.wrong = fmt::format("two signatures by {}", s.signer);
    else if (!verifies(*key, s.signature))
      out.wrong = fmt::format("a signature by {} that does not verify", s.signer);
  }
  return out;
}

// k of n: as many as manifest and policy both ask for, counting only those whom both name.
Finding enough(const Gathered& gathered, const Party& party, const Policy& policy, std::string what) {
  const std::uint32_t wanted = std::max(party.signers_at_least, policy.signers_at_least);
  std::vector<std::string> counted, missing;
  for (const std::string& n : policy.signers_among)
    if (key_of(party, n) != nullptr) (gathered.signers.count(n) != 0 ? counted : missing).push_back(n);
  Finding out{.owner = policy.owner_text(), .requirement = "signers.at_least"};
  out.met = gathered.wrong.empty() && counted.size() >= wanted;
  out.wanted = fmt::format("the {} signed by {} of {}", what, wanted, fmt::join(policy.signers_among, ", "));
  out.found = !gathered.wrong.empty() ? gathered.wrong
              : counted.empty()       ? "none"
                                      : fmt::format("{}", fmt::join(counted, ", "));
  out.remedy = gathered.wrong.empty() ? fmt::format("have {} sign: cloister charter sign", fmt::join(missing, " or "))
                                      : "draft the charter again and have it signed afresh";
  return out;
}

Finding of_charter(bool met, std::string requirement, std::string wanted, std::string found, std::string remedy) {
  return {met, "charter", std::move(requirement), std::move(wanted), std::move(found), std::move(remedy)};
}

void strangers(Decision& d, const Charter& c) {
  std::string found;
  for (const auto* list : {&c.signatures, &c.policy_signatures})
    for (const OwnerSignature& s : *list)
      if (c.manifest.party(s.owner) == nullptr) found = s.owner;
  d.add(of_charter(found.empty(), "signatures", "signatures of its owners only",
                   found.empty() ? "no others" : fmt::format("one of {}, who is no party", found), "take it out"));
}

void succession(Decision& d, const Charter& c) {
  if (!c.previous) {
    d.add(of_charter(c.sequence == 1 && c.succession.empty(), "sequence", "1 for a charter without a predecessor",
                     c.succession.empty() ? fmt::format("{}", c.sequence) : "signatures of a succession",
                     "name the predecessor: cloister charter draft --previous"));
    return;
  }
  const auto previous = parse_statement(c.previous_statement);
  if (!previous) {
    d.add(of_charter(false, "previous", "the predecessor's statement", previous.error().text(),
                     "draft it again over the predecessor"));
    return;
  }
  d.add(of_charter(c.sequence == previous->sequence + 1, "sequence", fmt::format("{}", previous->sequence + 1),
                   fmt::format("{}", c.sequence), "draft it again over the predecessor"));
  d.add(of_charter(c.manifest.study == previous->study, "previous", "a charter of study " + c.manifest.study,
                   "one of " + previous->study, "found a new study instead"));
  std::set<std::string> agreed;
  std::string wrong;
  const base::Sha256 digest = base::sha256(c.statement());
  for (const OwnerSignature& s : c.succession) {
    const auto at = std::find_if(previous->witnesses.begin(), previous->witnesses.end(),
                                 [&](const Statement::Witness& w) { return w.owner == s.owner; });
    if (at == previous->witnesses.end() || !agreed.insert(s.owner).second ||
        !at->key.verifies(charter_context, digest, s.signature))
      wrong = s.owner;
  }
  const bool met = wrong.empty() && agreed.size() >= previous->witness_quorum;
  d.add(of_charter(
      met, "succession",
      fmt::format("{} of the predecessor's {} witnesses", previous->witness_quorum, previous->witnesses.size()),
      wrong.empty() ? fmt::format("{}", agreed.size()) : fmt::format("a signature of {} that does not count", wrong),
      "have the predecessor's witnesses sign: cloister charter sign --witness"));
}

Finding in_time(const Charter& c, Time at) {
  return of_charter(at < c.not_after, "not_after", "a time before " + base::text(c.not_after), base::text(at),
                    "found a successor");
}

}  // namespace

Decision still_founded(const Charter& c, Time at) {
  if (!c.signatures_hold) return founded(c, at);
  Decision d;
  d.add(of_charter(true, "signatures", "those of all owners", "verified when the charter was loaded", ""));
  d.add(in_time(c, at));
  return d;
}

Decision founded(const Charter& c, Time at) {
  Decision d;
  const base::Sha256 digest = base::sha256(c.statement());
  const ByOwner signatures = by_owner(c.signatures), policy_signatures = by_owner(c.policy_signatures);
  for (const Party& party : c.manifest.parties) {
    const Policy& policy = *c.policy(party.owner);
    d.add(enough(gather(signatures, party,
                        [&](const base::PublicKey& k, const base::Signature& s) {
                          return k.verifies(charter_context, digest, s);
                        }),
                 party, policy, "charter"));
    d.add(
        enough(gather(policy_signatures, party,
                      [&](const base::PublicKey& k, const base::Signature& s) { return policy_signed(policy, k, s); }),
               party, policy, "policy"));
  }
  strangers(d, c);
  for (const Reference& r : c.references) {
    const auto ok = verify(r);
    d.add(of_charter(ok.has_value(), "reference " + r.name, "a signature by " + r.signer.text(),
                     ok ? "it" : "one that does not verify", "have it signed again: cloister reference sign"));
  }
  d.add(in_time(c, at));
  succession(d, c);
  return d;
}

}  // namespace cloister::attest

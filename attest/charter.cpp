#include "attest/charter.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <tuple>
#include <unordered_map>

#include "attest/statement.hpp"
#include "base/encoding.hpp"

namespace cloister::attest {

using base::denied;
using base::malformed;
using base::unsupported;
using base::untrusted;

namespace {

using base::Reader;
using base::Writer;

constexpr std::size_t largest_charter = 64 * 1024 * 1024;
constexpr std::size_t largest_manifest = 16 * 1024 * 1024;  // and as much for a predecessor's statement
constexpr std::size_t largest_text = 1024 * 1024;
constexpr std::uint32_t most_entries = 100'000;

bool before(const Reference& a, const Reference& b) {
  return std::tie(a.name, a.signer) < std::tie(b.name, b.signer);
}

void write(Writer& w, const std::vector<OwnerSignature>& signatures) {
  w.u32(static_cast<std::uint32_t>(signatures.size()));
  for (const OwnerSignature& s : signatures) w.field(s.owner).field(s.signer).raw(s.signature);
}

std::uint32_t read_count(Reader& r, std::string_view what) {
  const std::uint32_t n = r.u32(what);
  if (n > most_entries) r.fail(what, fmt::format("wanted at most {} entries, found {}", most_entries, n));
  return r.ok() ? n : 0;
}

std::vector<OwnerSignature> read_signatures(Reader& r, std::string_view what) {
  std::vector<OwnerSignature> out;
  for (std::uint32_t n = read_count(r, what); n > 0 && r.ok(); --n) {
    OwnerSignature s;
    s.owner = r.string(what, 64);
    s.signer = r.string(what, 64);
    s.signature = r.array<64>(what);
    out.push_back(std::move(s));
  }
  return out;
}

// Each party has its policy, of its role, and no policy is left over: then they stand in the manifest's order.
Result<void> fit(Charter& c, const std::string& where) {
  std::vector<Policy> ordered;
  std::string wrong;
  const auto complain = [&](std::string text) { wrong += (wrong.empty() ? "" : "; ") + text; };
  std::unordered_map<std::string_view, std::vector<const Policy*>> by_owner;
  for (const Policy& p : c.policies) by_owner[p.owner].push_back(&p);
  for (const Party& p : c.manifest.parties) {
    const auto found = by_owner.find(p.owner);
    const Policy* policy = found == by_owner.end() ? nullptr : found->second.front();
    if (policy == nullptr)
      complain(fmt::format("wanted a policy of {} ({}), found none", p.owner, name(p.role)));
    else if (policy->role != p.role)
      complain(
          fmt::format("wanted {} as {} owner, found a policy of role {}", p.owner, name(p.role), name(policy->role)));
    else
      ordered.push_back(*policy);
  }
  for (const Policy& p : c.policies) {
    if (c.manifest.party(p.owner) == nullptr)
      complain(fmt::format("{} has a policy and is no party of the manifest", p.owner));
    if (by_owner[p.owner].size() > 1) complain(fmt::format("{} has more than one policy", p.owner));
  }
  const auto not_sorted = [](const Reference& a, const Reference& b) { return !before(a, b); };
  if (std::adjacent_find(c.references.begin(), c.references.end(), not_sorted) != c.references.end())
    complain("reference values must be sorted by name and signer, no two alike");
  if (!wrong.empty()) return malformed(where, wrong);
  c.policies = std::move(ordered);
  c.digest = base::sha256(c.statement());
  return {};
}

Result<void> read_texts(Reader& r, Charter& out, const std::string& where) {
  auto manifest = parse_manifest(r.string("manifest", largest_manifest), where + ": manifest");
  if (r.ok() && !manifest) return manifest.error();
  if (manifest) out.manifest = *std::move(manifest);
  const std::uint32_t policies = read_count(r, "policies");
  if (r.ok() && policies != out.manifest.parties.size())
    r.fail("policies", fmt::format("wanted one per party ({}), found {}", out.manifest.parties.size(), policies));
  for (std::uint32_t n = policies; n > 0 && r.ok(); --n) {
    const std::string text = r.string("policy", largest_text);
    if (!r.ok()) break;
    auto policy = parse_policy(text, fmt::format("{}: policy {}", where, out.policies.size() + 1));
    if (!policy) return policy.error();
    out.policies.push_back(*std::move(policy));
  }
  return {};
}

void replace(std::vector<OwnerSignature>& in, OwnerSignature signature) {
  const auto less = [](const auto& a, const auto& b) {
    return std::tie(a.owner, a.signer) < std::tie(b.owner, b.signer);
  };
  if (!std::is_sorted(in.begin(), in.end(), less)) std::stable_sort(in.begin(), in.end(), less);
  const auto [first, last] = std::equal_range(in.begin(), in.end(), signature, less);
  in.insert(in.erase(first, last), std::move(signature));
}

}  // namespace

Bytes Charter::statement() const {
  return statement_of(*this);
}

Bytes Charter::serialize() const {
  Writer w;
  w.field("cloister charter file 1").field(manifest.text).u32(static_cast<std::uint32_t>(policies.size()));
  for (const Policy& p : policies) w.field(p.text);
  write(w, policy_signatures);
  w.u32(static_cast<std::uint32_t>(references.size()));
  for (const Reference& r : references) w.field(r.name).field(r.measurement).raw(r.signer.bytes).raw(r.signature);
  w.u64(sequence).u64(static_cast<std::uint64_t>(not_after.time_since_epoch().count())).field(previous_statement);
  write(w, signatures);
  write(w, succession);
  return std::move(w).bytes();
}

const Policy* Charter::policy(std::string_view owner) const {
  // Policies stand in the manifest's order once a charter is whole.
  if (const Party* party = manifest.party(owner); party != nullptr) {
    const auto at = static_cast<std::size_t>(party - manifest.parties.data());
    if (at < policies.size() && policies[at].owner == owner) return &policies[at];
  }
  const auto at = std::find_if(policies.begin(), policies.end(), [&](const Policy& p) { return p.owner == owner; });
  return at == policies.end() ? nullptr : &*at;
}

const Bytes* Charter::reference(std::string_view name, const base::PublicKey& signer) const {
  for (const Reference& r : references)
    if (r.name == name && r.signer == signer) return &r.measurement;
  return nullptr;
}

Result<Charter> draft_charter(std::string manifest_toml, std::vector<std::pair<std::string, std::string>> policies,
                              std::vector<Reference> references, Time not_after, const Charter* previous) {
  Charter out;
  auto manifest = parse_manifest(manifest_toml, "manifest");
  if (!manifest) return manifest.error();
  out.manifest = *std::move(manifest);
  for (const auto& [file, text] : policies) {
    auto policy = parse_policy(text, file);
    if (!policy) return policy.error();
    out.policies.push_back(*std::move(policy));
  }
  for (const Reference& r : references)
    if (auto ok = verify(r); !ok) return ok.error();
  std::sort(references.begin(), references.end(), before);
  out.references = std::move(references);
  out.not_after = not_after;
  if (previous != nullptr) {
    if (previous->manifest.study != out.manifest.study)
      return malformed("previous charter", fmt::format("wanted a charter of study {}, found {}", out.manifest.study,
                                                       previous->manifest.study));
    out.sequence = previous->sequence + 1;
    out.previous = previous->digest;
    out.previous_statement = previous->statement();
  }
  if (auto ok = fit(out, "draft"); !ok) return ok.error();
  return out;
}

Result<Charter> parse_charter(View bytes, std::string where) {
  if (bytes.size() > largest_charter) return malformed(where, fmt::format("larger than {} bytes", largest_charter));
  Reader r(where, bytes);
  if (const std::string format = r.string("format", 64); r.ok() && format != "cloister charter file 1")
    return unsupported(where, fmt::format("wanted \"cloister charter file 1\", found \"{}\"", format));
  Charter out;
  if (auto ok = read_texts(r, out, where); !ok) return ok.error();
  out.policy_signatures = read_signatures(r, "policy signatures");
  for (std::uint32_t n = read_count(r, "references"); n > 0 && r.ok(); --n) {
    Reference reference;
    reference.name = r.string("reference name", 1024);
    reference.measurement = base::copy(r.field("reference measurement", 64));
    reference.signer.bytes = r.array<32>("reference signer");
    reference.signature = r.array<64>("reference signature");
    out.references.push_back(std::move(reference));
  }
  out.sequence = r.u64("sequence");
  const std::uint64_t not_after = r.u64("not_after");
  if (not_after > 253'402'300'799) r.fail("not_after", "lies after the year 9999");
  out.not_after = Time(std::chrono::seconds(static_cast<std::int64_t>(not_after)));
  out.previous_statement = base::copy(r.field("previous statement", largest_manifest));
  if (!out.previous_statement.empty()) out.previous = base::sha256(out.previous_statement);
  out.signatures = read_signatures(r, "signatures");
  out.succession = read_signatures(r, "succession");
  if (auto done = r.finish(); !done) return done.error();
  if (auto ok = fit(out, where); !ok) return ok.error();
  if (out.serialize() != base::copy(bytes))
    return malformed(where, "its policies do not stand in the manifest's order");
  return out;
}

Result<Charter> load_charter(View bytes, std::string where, Time at) {
  auto charter = parse_charter(bytes, where);
  if (!charter) return charter;
  if (const Decision d = founded(*charter, at); !d.allowed()) return untrusted(where, "not founded: " + d.explain());
  charter->signatures_hold = true;
  return charter;
}

Result<void> sign_charter(Charter& charter, const std::string& owner, const std::string& signer,
                          const base::PrivateKey& key) {
  const Party* party = charter.manifest.party(owner);
  if (party == nullptr) return denied("manifest", fmt::format("has no party {}", owner));
  const auto known = std::pair(signer, key.public_key());
  if (std::find(party->signers.begin(), party->signers.end(), known) == party->signers.end())
    return denied("manifest", fmt::format("{} has no signer {} with the key {}", owner, signer, known.second.text()));
  charter.signatures_hold = false;
  replace(charter.signatures, {owner, signer, key.sign(charter_context, charter.digest)});
  replace(charter.policy_signatures, {owner, signer, sign_policy(*charter.policy(owner), key)});
  return {};
}

Result<void> sign_succession(Charter& charter, const std::string& owner, const base::PrivateKey& witness) {
  auto previous = parse_statement(charter.previous_statement);
  if (!previous) return previous.error();
  for (const Statement::Witness& w : previous->witnesses)
    if (w.owner == owner && w.key == witness.public_key()) {
      charter.signatures_hold = false;
      replace(charter.succession, {owner, "witness", witness.sign(charter_context, charter.digest)});
      return {};
    }
  return denied("previous charter",
                fmt::format("{} with the key {} is not one of its witnesses", owner, witness.public_key().text()));
}

Result<void> merge_signatures(Charter& charter, const Charter& copy) {
  if (copy.digest != charter.digest)
    return untrusted("charter", fmt::format("wanted a copy of {}, found {}", base::digest_text(charter.digest),
                                            base::digest_text(copy.digest)));
  charter.signatures_hold = false;
  for (const OwnerSignature& s : copy.signatures) replace(charter.signatures, s);
  for (const OwnerSignature& s : copy.policy_signatures) replace(charter.policy_signatures, s);
  for (const OwnerSignature& s : copy.succession) replace(charter.succession, s);
  return {};
}

std::uint64_t weight_at_most(const Charter& charter, std::string_view owner) {
  const Policy* policy = charter.policy(owner);
  if (policy == nullptr || policy->data() == nullptr) return 0;
  return std::min(policy->data()->records_at_most, charter.manifest.weight_at_most);
}

std::uint32_t largest_at_least(const Charter& charter) {
  std::uint32_t out = 1;
  for (const Policy& p : charter.policies) {
    if (p.model() != nullptr) out = std::max(out, p.model()->study.participants_at_least);
    if (p.data() != nullptr) out = std::max(out, p.data()->study.participants_at_least);
  }
  return out;
}

bool is_simulated(const Charter& charter) {
  return std::any_of(charter.policies.begin(), charter.policies.end(), [](const Policy& p) {
    return p.aggregator.simulated ||
           (p.model() != nullptr && p.model()->participants && p.model()->participants->simulated);
  });
}

}  // namespace cloister::attest

#include "attest/statement.hpp"

#include <algorithm>
#include <tuple>

#include "base/encoding.hpp"

namespace cloister::attest {
namespace {

using base::Reader;
using base::Writer;

constexpr std::string_view format = "cloister charter v1";
constexpr std::uint32_t most_entries = 100'000;

Bytes bytes_of(const std::optional<base::PublicKey>& key) {
  return key ? base::copy(key->bytes) : Bytes{};
}

void write_party(Writer& w, const Party& p, const Manifest& m, const Policy& policy) {
  w.field(name(p.role)).field(p.owner).u32(p.signers_at_least).u32(static_cast<std::uint32_t>(p.signers.size()));
  for (const auto& [signer, key] : p.signers) w.field(signer).raw(key.bytes);
  w.raw(p.tls.bytes).field(bytes_of(p.witness)).u8(is_witness(m, p.owner) ? 1 : 0);
  w.field(bytes_of(p.grant)).field(bytes_of(p.order)).raw(policy.digest);
}

void read_party(Reader& r, Statement& out) {
  r.field("role", 64);
  Statement::Witness w;
  w.owner = r.string("owner", 64);
  r.u32("signers at least");
  for (std::uint32_t n = r.u32("signers"); n > 0 && r.ok(); --n) r.field("signer", 64), r.raw("signer's key", 32);
  r.raw("tls", 32);
  const View key = r.field("witness", 32);
  const bool witness = r.u8("is a witness") == 1;
  r.field("grant", 32);
  r.field("order", 32);
  r.raw("policy", 32);
  if (!witness || !r.ok()) return;
  if (key.size() != 32) return r.fail("witness", "has no key");
  w.key.bytes = base::array<32>(key);
  out.witnesses.push_back(std::move(w));
}

}  // namespace

Bytes statement_of(const Charter& c) {
  const Manifest& m = c.manifest;
  std::vector<const Party*> sorted;
  for (const Party& p : m.parties) sorted.push_back(&p);
  std::sort(sorted.begin(), sorted.end(), [](const Party* a, const Party* b) {
    return std::pair(name(a->role), std::string_view(a->owner)) < std::pair(name(b->role), std::string_view(b->owner));
  });
  Writer w;
  w.field(format).field(m.study).raw(m.digest).u32(static_cast<std::uint32_t>(sorted.size()));
  for (const Party* p : sorted) write_party(w, *p, m, *c.policy(p->owner));
  w.u32(m.witness_quorum()).u32(static_cast<std::uint32_t>(c.references.size()));
  for (const Reference& r : c.references) w.field(r.name).field(r.measurement).raw(r.signer.bytes);
  w.u64(c.sequence).u64(static_cast<std::uint64_t>(c.not_after.time_since_epoch().count()));
  w.field(c.previous ? base::copy(*c.previous) : Bytes{});
  return std::move(w).bytes();
}

Result<Statement> parse_statement(View bytes) {
  Reader r("previous statement", bytes);
  Statement out;
  if (r.string("format", 64) != format) r.fail("format", "wanted \"cloister charter v1\"");
  out.study = r.string("study", 64);
  r.raw("manifest", 32);
  for (std::uint32_t n = std::min(r.u32("parties"), most_entries); n > 0 && r.ok(); --n) read_party(r, out);
  out.witness_quorum = r.u32("witness quorum");
  for (std::uint32_t n = std::min(r.u32("references"), most_entries); n > 0 && r.ok(); --n)
    r.field("reference", 1024), r.field("measurement", 64), r.raw("signer", 32);
  out.sequence = r.u64("sequence");
  r.u64("not_after");
  r.field("previous", 32);
  if (auto done = r.finish(); !done) return done.error();
  return out;
}

}  // namespace cloister::attest

#include "attest/evidence.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "attest/simulated/evidence.hpp"
#include "base/encoding.hpp"

namespace cloister::attest {
namespace {

constexpr std::size_t evidence_cap = 64 << 10;  // docs/formats.md, "Evidence"
constexpr std::size_t kind_cap = 32;

struct Row {
  std::string_view kind;
  Result<Claims> (*verify)(View body, Time at);
};

// The kinds that this build verifies. A new kind is a folder, a target and a row.
constexpr Row kinds[] = {
    {"simulated", simulated::verify_claims},
};

}  // namespace

Bytes Evidence::serialize() const {
  return base::Writer().field(kind).field(body).bytes();
}

Result<Evidence> Evidence::parse(View bytes) {
  if (bytes.size() > evidence_cap)
    return base::malformed("evidence", fmt::format("wanted at most {} bytes, found {}", evidence_cap, bytes.size()));
  base::Reader r("evidence", bytes);
  Evidence out;
  out.kind = r.string("kind", kind_cap);
  out.body = base::copy(r.field("body", evidence_cap));
  if (auto ok = r.finish(); !ok) return ok.error();
  return out;
}

Result<Claims> verify_evidence(View bytes, Time at) {
  auto evidence = Evidence::parse(bytes);
  if (!evidence) return evidence.error();
  for (const Row& row : kinds)
    if (row.kind == evidence->kind) return row.verify(evidence->body, at);
  return base::unsupported("evidence.kind", fmt::format("wanted one of {}, found \"{}\"",
                                                        fmt::join(evidence_kinds(), ", "), evidence->kind));
}

std::vector<std::string> evidence_kinds() {
  std::vector<std::string> out;
  for (const Row& row : kinds) out.emplace_back(row.kind);
  return out;
}

}  // namespace cloister::attest

#pragma once
// From evidence of any kind to claims.

#include <functional>
#include <string>

#include "attest/claims.hpp"

namespace cloister::attest {

/// Evidence on the wire: field(kind) || field(the kind's own bytes), at most 64 KiB.
struct Evidence {
  std::string kind;
  Bytes body;
  Bytes serialize() const;
  static Result<Evidence> parse(View bytes);
};

/// Parses and verifies: signatures, chains, revocation and validity at `at`. The table of kinds is in evidence.cpp.
/// Errors: unsupported (a kind this build does not know), malformed, untrusted, expired.
Result<Claims> verify_evidence(View bytes, Time at);

/// The kinds that this build verifies.
std::vector<std::string> evidence_kinds();

/// Makes evidence for this process: report data in, serialized Evidence out. May block; throws nothing.
using Attester = std::function<Result<Bytes>(const Array<64>& report_data)>;

}  // namespace cloister::attest

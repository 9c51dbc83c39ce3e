#pragma once
// The statement: the canonical bytes that every owner signs, and what a successor needs to know of its predecessor's.

#include <string>
#include <vector>

#include "attest/charter.hpp"

namespace cloister::attest {

/// Of an owner's or witness's signature over a charter's digest: over the digest, so that verifying all signatures of a
/// large charter reads it once and not once for each.
inline constexpr std::string_view charter_context = "cloister charter v2";

Bytes statement_of(const Charter& charter);

/// What a successor's judges read in its predecessor's statement.
struct Statement {
  struct Witness {
    std::string owner;
    base::PublicKey key;
  };
  std::string study;
  std::uint64_t sequence = 0;
  std::uint32_t witness_quorum = 0;
  std::vector<Witness> witnesses;
};
Result<Statement> parse_statement(View bytes);

}  // namespace cloister::attest

#pragma once
// What an owner checks of a launch before it talks to the instance (docs/how-it-works.md), and what the launcher checks before it
// grants. Pure: time is an argument.

#include "attest/charter.hpp"
#include "attest/claims.hpp"
#include "attest/decision.hpp"
#include "protocols/launch/documents.hpp"

namespace cloister::protocols::launch {

/// Every requirement on a grant: signed by the charter's grant key, for this record, the record for this charter,
/// inside its period on the owner's own clock `now`, on a platform that the compute owner's policy lists. What does not
/// parse is one refusal.
attest::Decision judge_grant(const attest::Charter& charter, View grant, View record, Time now);

/// The grant, once judge_grant allows it. Errors: malformed, unsupported; expired when only its period is over;
/// untrusted for signature and digests; denied for the platform. The text names every requirement that is not met.
Result<Grant> verify_grant(const attest::Charter& charter, View grant, View record, Time now);

/// verify_grant, and of it the platform identity as text in bytes: what the channel compares with
/// Claims::platform_text().
Result<Bytes> check_grant(const attest::Charter& charter, View grant, View record, Time now);

/// The TLS key that the record names. Errors as Record::parse.
Result<base::PublicKey> tls_key(View record);

/// What instance evidence must be bound to.
struct ExpectedInstance {
  std::string owner;  ///< whose requirement this is, for the findings: "hetzner (compute)"
  base::Sha256 charter{};
  Array<32> nonce{};
  Array<32> host_data{};
  base::PublicKey tls;  ///< the key that the TLS handshake proved
};

/// Is the record this launch's, and is the evidence about that record? The policy's own requirements are
/// attest::judge's.
attest::Decision judge_instance(const ExpectedInstance& expected, View record, const attest::Claims& claims);

}  // namespace cloister::protocols::launch

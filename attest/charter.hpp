#pragma once
// The charter: manifest and policies, signed by every owner. It has one digest; any change makes a new charter.

#include <optional>
#include <string>
#include <vector>

#include "attest/decision.hpp"
#include "attest/manifest.hpp"

namespace cloister::attest {

/// A signed reference value: `signer` says that `name` measures `measurement`.
struct Reference {
  std::string name;
  Bytes measurement;
  base::PublicKey signer;
  base::Signature signature{};  ///< context "cloister reference value 1", field(name) || field(measurement)
};
Reference sign_reference(std::string name, Bytes measurement, const base::PrivateKey& signer);
Result<void> verify(const Reference& reference);

/// A signature by one of an owner's signers.
struct OwnerSignature {
  std::string owner;
  std::string signer;  ///< its name in the manifest
  base::Signature signature{};
};

struct Charter {
  Manifest manifest;
  std::vector<Policy> policies;  ///< one per party, in the manifest's order
  std::vector<OwnerSignature> policy_signatures;  ///< context "cloister policy v1" over the policy's text
  std::vector<Reference> references;
  std::uint64_t sequence = 1;
  Time not_after{};
  std::optional<base::Sha256> previous;  ///< digest of the charter that this one succeeds
  std::vector<OwnerSignature> signatures;  ///< context "cloister charter v1" over statement()
  std::vector<OwnerSignature> succession;  ///< witnesses of the previous charter, over the same statement
  base::Sha256 digest{};                   ///< SHA-256 of statement()

  /// Canonical bytes of what the owners sign (docs/formats.md, "Charter").
  Bytes statement() const;
  Bytes serialize() const;
  const Policy* policy(std::string_view owner) const;
};

/// A draft: signatures may be missing. Fails when a policy is missing or a part does not parse.
Result<Charter> draft_charter(std::string manifest_toml, std::vector<std::pair<std::string, std::string>> policies_file_and_text,
                              std::vector<Reference> references, std::uint64_t sequence, Time not_after,
                              std::optional<base::Sha256> previous);
/// Parses a draft or a founded charter and checks that its parts fit each other, but no signature.
Result<Charter> parse_charter(View bytes, std::string where);
/// Is it founded: every owner's k of n over statement and policy, references, validity at `at`, succession over `previous`
/// when it names one (the predecessor is then needed)? The decision names who has yet to sign.
Decision founded(const Charter& charter, Time at, const Charter* previous = nullptr);
/// parse_charter and founded; the error is the decision's explanation.
Result<Charter> load_charter(View bytes, std::string where, Time at);

}  // namespace cloister::attest

#pragma once
// The charter: manifest and policies, signed by every owner. It has one digest; any change makes a new charter.

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "attest/decision.hpp"
#include "attest/manifest.hpp"

namespace cloister::attest {

/// A signed reference value: `signer` says that `name` measures `measurement`.
struct Reference {
  std::string name;
  Bytes measurement;  ///< 48 bytes
  base::PublicKey signer;
  base::Signature signature{};  ///< context "cloister reference value 1", field(name) || field(measurement)

  std::string toml() const;  ///< the file that parse_reference reads
};
Reference sign_reference(std::string name, Bytes measurement, const base::PrivateKey& signer);
/// Errors: malformed, untrusted.
Result<Reference> parse_reference(std::string_view toml, std::string file);
Result<void> verify(const Reference& reference);

/// A signature by one of an owner's signers.
struct OwnerSignature {
  std::string owner;
  std::string signer;  ///< its name in the manifest; "witness" for a signature of succession
  base::Signature signature{};
};

struct Charter {
  Manifest manifest;
  std::vector<Policy> policies;                   ///< one per party, in the manifest's order
  std::vector<OwnerSignature> policy_signatures;  ///< context "cloister policy v1" over the policy's text
  std::vector<Reference> references;              ///< sorted by name and signer, no two alike
  std::uint64_t sequence = 1;                     ///< 1, or one more than the predecessor's
  Time not_after{};                               ///< the first moment at which it is over
  std::optional<base::Sha256> previous;           ///< digest of the charter that this one succeeds
  Bytes previous_statement;                       ///< that charter's statement: its witnesses must agree
  std::vector<OwnerSignature> signatures;         ///< context "cloister charter v2" over the digest
  std::vector<OwnerSignature> succession;         ///< the predecessor's witnesses, over the same digest
  base::Sha256 digest{};                          ///< SHA-256 of statement(); draft_charter and parse_charter set it
  /// load_charter found every signature good; signing and merging forget it. See still_founded.
  bool signatures_hold = false;

  /// Canonical bytes of what the owners sign (docs/formats.md, "Charter").
  Bytes statement() const;
  Bytes serialize() const;
  const Policy* policy(std::string_view owner) const;
  /// The measurement that a reference by this very signer gives this name; null when there is none or more than one.
  const Bytes* reference(std::string_view name, const base::PublicKey& signer) const;
};

/// A draft: no signature yet. Fails when a policy is missing, foreign or does not parse, and when references do not
/// verify. `policies`: (file, TOML text), in any order. `previous`: the charter that this one succeeds, of the same
/// study.
Result<Charter> draft_charter(std::string manifest_toml, std::vector<std::pair<std::string, std::string>> policies,
                              std::vector<Reference> references, Time not_after, const Charter* previous = nullptr);
/// Parses a draft or a founded charter and checks that its parts fit each other, but no signature. At most 64 MiB.
Result<Charter> parse_charter(View bytes, std::string where);
/// Is it founded: every owner's k of n over statement and policy, no other signature, references, validity at `at`, and
/// for a successor the quorum of its predecessor's witnesses? The decision names who has yet to sign.
Decision founded(const Charter& charter, Time at);
/// What founded() says, without verifying again what load_charter has verified: of that only the time can change.
/// A charter that load_charter did not give is looked at as a whole. Whoever edits a loaded charter clears
/// `signatures_hold`.
Decision still_founded(const Charter& charter, Time at);
/// parse_charter and founded; the error is the decision's explanation. Pure: what every process does with a charter
/// first.
Result<Charter> load_charter(View bytes, std::string where, Time at);

/// Adds an owner's signature over the statement and over its policy, replacing the same signer's.
/// Fails when the manifest does not know this owner, signer and key.
Result<void> sign_charter(Charter& charter, const std::string& owner, const std::string& signer,
                          const base::PrivateKey& key);
/// Adds a predecessor's witness's consent. A witness signs one successor of a charter; its owner sees to that.
Result<void> sign_succession(Charter& charter, const std::string& owner, const base::PrivateKey& witness);
/// Adds the signatures that `copy`, the same draft, has gathered elsewhere. Fails when it is another charter.
Result<void> merge_signatures(Charter& charter, const Charter& copy);

/// The most that `owner`'s update may weigh: what its policy's data.records and the manifest's training.weight_at_most
/// both allow; 0 for a stranger.
std::uint64_t weight_at_most(const Charter& charter, std::string_view owner);
/// The largest study.participants.at_least of all policies: fewer contributors fail a round and suppress a statistic.
std::uint32_t largest_at_least(const Charter& charter);
/// May any policy of this charter accept evidence without hardware? Then every log, receipt and report says
/// "simulated".
bool is_simulated(const Charter& charter);

}  // namespace cloister::attest

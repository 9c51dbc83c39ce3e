#pragma once
// A complete synthetic study: every owner with all its keys in memory, manifest and policies in TOML, a founded
// charter, and claims, launch and run order that every policy allows. Each requirement can then be broken by one edit.
//
//   tests::Study study({.edits = {{"charite", "at_least = 3", "at_least = 9"}}});
//   auto decision = attest::check(study.charter, study.at);

#include <optional>
#include <string>
#include <vector>

#include "attest/judge.hpp"
#include "attest/run_order.hpp"

namespace cloister::tests {

/// Replaces text of a document before it is signed. `of`: "manifest" or an owner. Throws when `from` is not there.
struct Edit {
  std::string of, from, to;
};

struct StudyOptions {
  std::vector<std::string> data_owners = {"charite", "usz", "ccf", "va"};  ///< at least 3
  std::vector<Edit> edits{};
  Time at = base::now();  ///< policies are valid from a day before for a year, the charter for 30 days
  bool attested_participants = false;
  std::string aggregator_host = "127.0.0.1";
  std::uint16_t aggregator_port = 7443;
  std::uint16_t coordinator_port = 7001;
  std::uint16_t launcher_port = 7002;
  std::optional<Bytes> measurement{};     ///< of the aggregator, 48 bytes
  std::optional<std::string> platform{};  ///< of the compute owner, "simulated:hex"
  std::optional<base::Sha256> initial_model{};
  std::optional<base::Sha256> trainer{};
  std::string tensors{};  ///< [[model.tensors]] tables; default: weight 1 x 6 and bias 1
};

struct Keys {
  std::string owner;
  std::vector<std::pair<std::string, base::PrivateKey>> signers;  ///< sorted by name
  base::PrivateKey tls = base::PrivateKey::generate();
  std::optional<base::PrivateKey> witness{}, grant{}, order{};
};

/// Owners: "acme" (model), "cloudco" (compute), the data owners. Charité signs 2 of 2 (dpo, it), the others 1 of 1
/// (officer). Submitter: "alice". Its draft is signed by all, and `charter` founded.
class Study {
 public:
  explicit Study(StudyOptions options = {});

  const Keys& keys(std::string_view owner) const;
  const attest::Policy& policy(std::string_view owner) const { return *charter.policy(owner); }
  /// The aggregator's, allowed by every policy; host_data is zero.
  attest::Claims claims() const;
  /// An attested hospital's, with StudyOptions::attested_participants.
  attest::Claims participant_claims(std::string_view owner) const;
  attest::Launch launch() const;
  /// Submitted by alice and ordered as run `run`.
  attest::RunOrder run_order(attest::Settings settings = {}, std::uint64_t run = 1) const;
  /// What a round's task asks: "train", "statistics" or "evaluate", of the whole cohort.
  attest::Task task(std::string kind) const;
  /// A charter like this one from the same keys, with other texts, signed by all; `previous` also by its witnesses.
  attest::Charter found(const std::string& manifest, const std::vector<std::pair<std::string, std::string>>& policies,
                        const attest::Charter* previous = nullptr) const;

  StudyOptions options;
  std::vector<Keys> owners;
  base::PrivateKey submitter = base::PrivateKey::generate();
  base::PrivateKey reference_signer = base::PrivateKey::generate();
  Time at{};
  std::string manifest;  ///< TOML
  std::vector<std::pair<std::string, std::string>>
      policies;  ///< ("charite.policy.toml", TOML), in the manifest's order
  attest::Charter charter;

  std::string manifest_text() const;
  std::string policy_text(const Keys& owner) const;

 private:
  Bytes measurement() const;
  std::string platform() const;
};

}  // namespace cloister::tests

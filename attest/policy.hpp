#pragma once
// The three owners' trust policies (docs/policies.md): what their TOML says, after the strict loader. Absent means no.

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/config.hpp"
#include "base/crypto.hpp"

namespace cloister::attest {

enum class Role { model, data, compute };
std::string_view name(Role role);

/// Names of owners, signers, submitters: 1 to 63 of a-z, 0-9, "-", starting with a letter or digit. "anyone" is none.
bool valid_name(std::string_view name);
/// Is `name` in `list`, or does the list say ["anyone"]? An empty list admits nobody.
bool admits(const std::vector<std::string>& list, std::string_view name);

/// A measurement that a policy accepts: in hex, or the name that a signed reference value (reference.hpp) gives it.
struct AcceptedMeasurement {
  Bytes value;  ///< 48 bytes; empty when named
  std::string named;
  base::PublicKey signed_by;  ///< when named
};

/// [aggregator], and [participants] when attested: which TEEs, started how.
struct TeeRequirements {
  std::vector<std::string> tee;  ///< kinds; "simulated" too needs simulated = true
  std::vector<AcceptedMeasurement> measurement;
  std::vector<std::string> tcb;         ///< accepted statuses; the default ["up-to-date"] must be written out
  std::optional<Time> tcb_date;         ///< floor
  std::vector<std::string> advisories;  ///< tolerated ones; any other denies
  bool debug = false;                   ///< may the debug bit be set
  bool simulated = false;               ///< may no hardware stand behind it
  std::optional<std::vector<std::string>>
      platforms;  ///< "kind:hex" identities; the compute owner's policy must list them
  std::chrono::milliseconds
      renew{};  ///< evidence older than this is asked for again; 0 in [participants], which has no such key
};

struct StudyBounds {
  std::uint32_t participants_at_least = 0;
  std::vector<std::string> participants_among;
  std::uint32_t runs_at_most = 0;
  std::uint32_t rounds_at_most = 0;  ///< train tasks of one run
  std::string publish_model;         ///< "never" < "final" < "every-round": the most that may be published
  std::string publish_evaluate;      ///< "never" < "final" < "every-round"
  std::string publish_statistics;    ///< "never" < "cohort"
};

struct TaskTrain {
  std::vector<base::Sha256> trainer;
  std::vector<std::string> algorithms;
};
struct TaskExact {  ///< statistics, evaluate
  std::vector<std::string> kinds;
  std::uint32_t minimum_count = 0;
  std::uint32_t at_most = 0;  ///< tasks of this kind in one run
  bool exact = false;
};

struct Submitter {
  std::string name;
  base::PublicKey key;
  std::uint32_t runs_at_most = 0;
};

struct ModelPolicy {
  bool participants_attested = false;
  std::optional<TeeRequirements> participants;  ///< when attested
  std::vector<Submitter> submitters;
  StudyBounds study;
};

struct DataPolicy {
  std::string purpose;
  std::string data_set;
  std::vector<std::string> columns;
  std::uint64_t records_at_most = 0;  ///< bounds the weight this site may claim
  std::optional<TaskTrain> train;
  std::optional<TaskExact> statistics;
  std::optional<TaskExact> evaluate;
  StudyBounds study;
  std::vector<std::string>
      node_platforms;        ///< [node]: "kind:hex" of this owner's own TEE platforms; empty: not attested
  std::string privacy_unit;  ///< "none"; "patient" and "site" need an engine with noise
  double epsilon = 0;        ///< 0 when the unit is "none"
  double delta = 0;
};

struct ComputePolicy {
  std::vector<std::string> model_owners;   ///< [launch]: whose charters
  std::vector<std::string> connect_among;  ///< which data owners may connect
  std::uint64_t memory_at_most = 0;        ///< bytes
  std::uint32_t connections_at_most = 0;
  std::chrono::milliseconds duration_at_most{};
};

/// One owner's policy. `text` is what was signed, byte for byte.
struct Policy {
  Role role = Role::data;
  std::string owner;
  std::uint32_t signers_at_least = 0;
  std::vector<std::string> signers_among;  ///< names; the manifest has their keys
  Time valid_from{};
  Time valid_until{};
  TeeRequirements aggregator;
  std::variant<ModelPolicy, DataPolicy, ComputePolicy> of;
  std::string text;
  base::Sha256 digest{};  ///< SHA-256 of `text`

  const ModelPolicy* model() const { return std::get_if<ModelPolicy>(&of); }
  const DataPolicy* data() const { return std::get_if<DataPolicy>(&of); }
  const ComputePolicy* compute() const { return std::get_if<ComputePolicy>(&of); }
  std::string owner_text() const;  ///< "charite (data)"
};

/// Reads a policy, at most 256 KiB. All mistakes at once, with file, line and nearest name.
Result<Policy> parse_policy(std::string_view toml, std::string file);
/// The paths of all keys that the schema asks for while it reads `toml`: docs/policies.md is tested against them.
std::vector<std::string> policy_keys(std::string_view toml);

/// What a signer signs: context "cloister policy v1" over the text.
base::Signature sign_policy(const Policy& policy, const base::PrivateKey& signer);
bool policy_signed(const Policy& policy, const base::PublicKey& signer, const base::Signature& signature);

}  // namespace cloister::attest

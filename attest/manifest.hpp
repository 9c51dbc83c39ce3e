#pragma once
// The manifest of a study: what all owners sign, in TOML (docs/formats.md, "Manifest").

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "attest/policy.hpp"

namespace cloister::attest {

struct Party {
  Role role = Role::data;
  std::string owner;
  std::uint32_t signers_at_least = 1;
  std::vector<std::pair<std::string, base::PublicKey>> signers;
  base::PublicKey tls;                     ///< of its coordinator, participant node or launcher
  std::optional<base::PublicKey> witness;  ///< data owners: signs acknowledgements
  std::optional<base::PublicKey> grant;    ///< the compute owner: signs launch grants
  std::optional<base::PublicKey> order;    ///< the model owner: signs run orders
  std::string host;                        ///< where coordinator and launcher listen; empty for data owners
  std::uint16_t port = 0;
};

struct Tensor {
  std::string name;
  std::vector<std::uint64_t> shape;
  std::string dtype;  ///< "float32"
};

struct Column {
  std::string name;
  std::string kind;                     ///< "number" or "category"
  std::vector<std::string> categories;  ///< of a category, in the order of their features
  std::vector<std::string> missing;     ///< cells that stand for a missing value
};

/// A setting that a run may choose: lowest, highest, and what it is when the run does not say.
struct SettingRange {
  double from = 0, to = 0, otherwise = 0;
};
using Settings = std::map<std::string, double>;

/// What may be set under a manifest's [settings].
struct SettingRule {
  std::string_view name;
  bool integer;
  double lowest, highest;           ///< what the loader accepts at all
  std::optional<double> otherwise;  ///< when the manifest does not declare it; none: it must
  std::string_view algorithm;       ///< the only one that has it; empty: all
  std::string_view what;            ///< a few words with the unit
};
/// rounds, quorum, local_epochs, batch_size, learning_rate, weight_decay, mu (FedProx), server_learning_rate, beta1,
/// beta2, tau (FedAdam), split. The quorum's default is the number of data owners.
const std::vector<SettingRule>& setting_rules();
/// Their names.
const std::vector<std::string>& setting_names();

class PartyIndex;

struct Manifest {
  std::uint32_t format = 1;
  std::string study;
  std::string purpose;
  std::vector<Party> parties;  ///< one model owner, one compute owner, data owners

  std::string aggregator_host;  ///< where every instance listens
  std::uint16_t aggregator_port = 0;
  Bytes aggregator_measurement;  ///< which build is started (48 bytes)
  std::uint64_t launch_memory = 0;
  std::uint32_t launch_connections = 0;
  std::chrono::milliseconds launch_duration{};

  std::string architecture;           ///< "logistic-regression", "mlp", "cnn"
  std::vector<std::uint32_t> hidden;  ///< mlp: widths; cnn: channels
  std::vector<std::uint32_t> image;   ///< cnn: channels, height, width of a record
  base::Sha256 initial_model{};
  std::vector<Tensor> tensors;  ///< the schema, in order

  std::vector<Column> columns;
  std::string label_column;
  std::vector<std::string> label_positive;

  std::string algorithm;             ///< "fedavg", "fedprox", "fedadam"
  double value_bound = 0;            ///< R: every |delta| must stay below it
  std::uint64_t weight_at_most = 0;  ///< w_max, over all sites
  base::Sha256 trainer{};
  std::map<std::string, SettingRange> settings;  ///< every setting that `algorithm` has

  std::vector<std::string> statistics_kinds;  ///< empty: no statistics task
  std::uint32_t statistics_minimum_count = 0;
  std::vector<std::string> evaluate_kinds;  ///< empty: no evaluate task
  std::uint32_t evaluate_every = 1;         ///< rounds
  std::uint32_t evaluate_bins = 0;
  std::uint32_t evaluate_minimum_count = 0;

  std::string publish_model, publish_evaluate, publish_statistics;
  std::uint32_t runs = 0;
  std::vector<std::string>
      witnesses;                      ///< data owners, at most 128: their acknowledgements go to everybody; default all
  std::uint32_t lying_witnesses = 1;  ///< b
  std::chrono::milliseconds round_deadline{};
  std::chrono::milliseconds channel_deadline{};

  std::string text;
  base::Sha256 digest{};
  std::shared_ptr<const PartyIndex> index;  ///< finds parties fast; parse_manifest sets it, its absence changes nothing

  const Party& model_owner() const;
  const Party& compute_owner() const;
  std::vector<const Party*> data_owners() const;  ///< in manifest order
  const Party* party(std::string_view owner) const;
  const Party* by_tls_key(const base::PublicKey& key) const;
  std::uint32_t data_count() const;  ///< how many data owners
  /// A data owner's place among data_owners(), from 0; nothing for anybody else.
  std::optional<std::uint32_t> data_place(std::string_view owner) const;
  /// q = floor((n + b) / 2) + 1
  std::uint32_t witness_quorum() const;
};

/// Reads a manifest, at most 16 MiB. All mistakes at once, with file, line and nearest name.
Result<Manifest> parse_manifest(std::string_view toml, std::string file);
/// The paths of all keys that the schema asks for while it reads `toml`: docs/policies.md is tested against them.
std::vector<std::string> manifest_keys(std::string_view toml);

/// Is `name` one of the manifest's witnesses?
bool is_witness(const Manifest& manifest, std::string_view owner);

/// The run's settings with the manifest's defaults filled in: every setting that the algorithm has. An unknown name or
/// a value outside its range is an error (denied) that names all of them.
Result<Settings> complete_settings(const Manifest& manifest, const Settings& chosen);

}  // namespace cloister::attest

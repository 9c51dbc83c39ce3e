#include "participant/loading.hpp"

#include <filesystem>
#include <fmt/format.h>

#include "aggregation/model.hpp"
#include "base/file.hpp"
#include "participant/node_loaded.hpp"

namespace cloister::participant {
namespace {

constexpr std::size_t charter_cap = 64 << 20, policy_cap = 1 << 20, trainer_cap = std::size_t{1} << 30;

}  // namespace

Result<attest::Charter> load_own_charter(const Config& config, Time at) {
  const Result<Bytes> bytes = base::read_file(config.charter, charter_cap);
  if (!bytes) return bytes.error();
  Result<attest::Charter> charter = attest::load_charter(*bytes, config.charter, at);
  if (!charter) return charter.error();
  const attest::Party* party = charter->manifest.party(config.owner);
  if (party == nullptr || party->role != attest::Role::data)
    return base::denied(
        config.file,
        fmt::format("owner: wanted a data owner of the charter, found \"{}\"; use the charter that names this "
                    "hospital, or its name in it",
                    config.owner));
  return charter;
}

Result<void> check_own_policy(const Config& config, const attest::Charter& charter) {
  const Result<Bytes> text = base::read_file(config.policy, policy_cap);
  if (!text) return text.error();
  const base::Sha256& wanted = charter.policy(config.owner)->digest;
  if (const auto found = base::sha256(*text); found != wanted)
    return base::untrusted(
        config.policy,
        fmt::format("wanted the policy that the charter holds ({}), found another ({}); a changed policy needs a "
                    "new charter",
                    base::digest_text(wanted), base::digest_text(found)));
  return {};
}

Result<base::PrivateKey> load_own_key(const std::string& path, const std::optional<base::PublicKey>& in_charter,
                                      std::string_view role) {
  Result<base::PrivateKey> key = base::PrivateKey::load(path);
  if (!key) return key;
  if (!in_charter || key->public_key() != *in_charter)
    return base::untrusted(path, fmt::format("wanted this hospital's {} key of the charter ({}), found {}", role,
                                             in_charter ? in_charter->text() : "none", key->public_key().text()));
  return key;
}

Result<base::Sha256> load_trainer(const Config& config, const attest::Charter& charter) {
  const Result<Bytes> bytes = base::read_file(config.trainer, trainer_cap);
  if (!bytes) return bytes.error();
  const base::Sha256 found = base::sha256(*bytes);
  if (found != charter.manifest.trainer)
    return base::untrusted(
        config.trainer, fmt::format("training.trainer: wanted {}, found {}; install the trainer that the charter names",
                                    base::digest_text(charter.manifest.trainer), base::digest_text(found)));
  return found;
}

// A key that the charter does not name is said aloud, not refused: whether it is a member's is the enclave's to say.
Result<base::PrivateKey> load_some_key(const std::string& path, const std::optional<base::PublicKey>& in_charter,
                                       std::string_view role, base::Log& log) {
  Result<base::PrivateKey> key = load_own_key(path, in_charter, role);
  if (key || key.error().kind != Error::Kind::untrusted) return key;
  log.event("key_mismatch", key.error().text() + "; the aggregator will refuse it", {{"path", path}, {"role", role}});
  return base::PrivateKey::load(path);
}

Result<Node::Loaded> Node::Loaded::load(const Config& config, std::shared_ptr<const Clock> clock, base::Log& log) {
  auto charter = load_own_charter(config, clock->now());
  if (!charter) return charter.error();
  if (auto same = check_own_policy(config, *charter); !same) return same.error();
  const attest::Party& party = *charter->manifest.party(config.owner);
  auto tls = load_some_key(config.tls_key, party.tls, "tls", log);
  if (!tls) return tls.error();
  auto witness = load_some_key(config.witness_key, party.witness, "witness", log);
  if (!witness) return witness.error();
  const auto trainer = load_trainer(config, *charter);
  if (!trainer) return trainer.error();
  if (std::error_code e; !std::filesystem::is_regular_file(config.data_file, e))
    return base::unavailable(config.data_file, "the data file is not there");
  auto formats = update_formats(charter->manifest);
  if (!formats) return formats.error();
  auto ledger = Ledger::open(config.ledger_folder, charter->policy(config.owner)->data()->data_set, log,
                             [clock] { return clock->recorded(); });
  if (!ledger) return ledger.error();
  std::optional<base::Sha256> previous;
  if (charter->previous) previous = charter->previous;
  if (auto adopted = (*ledger)->adopt(charter->digest, charter->manifest.study, previous); !adopted)
    return adopted.error();
  auto updates = UpdateStore::open((std::filesystem::path(config.ledger_folder) / "updates").string());
  if (!updates) return updates.error();
  auto model = ModelFile::open((std::filesystem::path(config.ledger_folder) / "models").string(),
                               aggregation::model_length(formats->at("train").schema));
  if (!model) return model.error();
  auto files = RunFiles::open(config.ledger_folder);
  if (!files) return files.error();
  auto withdrawal = load_withdrawal(config.ledger_folder, *charter);
  if (!withdrawal) return withdrawal.error();
  return Loaded{std::move(clock),      std::make_shared<const attest::Charter>(std::move(*charter)),
                std::move(*tls),       std::move(*witness),
                std::move(*ledger),    std::move(*updates),
                std::move(*model),     std::move(*files),
                std::move(*formats),   *trainer,
                std::move(*withdrawal)};
}

}  // namespace cloister::participant

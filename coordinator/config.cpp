#include "coordinator/config.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "base/config.hpp"
#include "base/file.hpp"

namespace cloister::coordinator {

namespace {

constexpr std::size_t charter_cap = 64 << 20;
constexpr std::size_t text_cap = 1 << 20;

/// What the file says, before anything that it names is opened.
struct Names {
  struct Study {
    std::string charter, policy, initial_model;
  };
  std::vector<Study> studies;
  std::string tls, order, listen, database, log, proxy;
  std::chrono::milliseconds instance_idle{};
};

Result<Names> read_names(const std::string& path) {
  auto file = base::read_file(path, text_cap);
  if (!file) return file.error();
  auto config = base::Config::parse(base::text(*file), std::filesystem::path(path).filename().string());
  if (!config) return config.error();
  const auto folder = std::filesystem::path(path).parent_path();
  auto beside = [&](const std::string& name) {
    return name.empty() ? name : (folder / name).lexically_normal().string();
  };

  base::Section root = config->root();
  Names out;
  out.database = beside(root.string("database"));
  out.log = beside(root.string("log"));
  out.instance_idle = root.duration("instance_idle");
  out.proxy = root.maybe_string("proxy").value_or("");
  out.listen = root.maybe_string("listen").value_or("");
  base::Section keys = root.section("keys");
  out.tls = beside(keys.string("tls"));
  out.order = beside(keys.string("order"));
  for (base::Section study : root.sections("study"))
    out.studies.push_back(
        {beside(study.string("charter")), beside(study.string("policy")), beside(study.string("initial_model"))});
  if (out.studies.empty())
    root.fail("study", "wanted at least one [[study]] with charter, policy and initial_model; found none");
  if (auto finished = config->finish(); !finished) return finished.error();
  return out;
}

Result<base::Sha256> digest_of_file(const std::string& path, std::uint64_t& length) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return base::unavailable(path, "cannot be read; it must be the study's initial model");
  base::Hasher hash;
  std::vector<char> block(1 << 20);
  length = 0;
  while (file.read(block.data(), static_cast<std::streamsize>(block.size())), file.gcount() > 0) {
    const auto n = static_cast<std::size_t>(file.gcount());
    hash.add({reinterpret_cast<const std::uint8_t*>(block.data()), n});
    length += n;
  }
  return std::move(hash).finish();
}

Result<StudyFiles> load_study(const Names::Study& names) {
  auto bytes = base::read_file(names.charter, charter_cap);
  if (!bytes) return bytes.error();
  auto charter = attest::parse_charter(*bytes, names.charter);
  if (!charter) return charter.error();
  auto policy = base::read_file(names.policy, text_cap);
  if (!policy) return policy.error();
  const std::string& owner = charter->manifest.model_owner().owner;
  const attest::Policy* agreed = charter->policy(owner);
  if (!agreed || base::sha256(*policy) != agreed->digest)
    return base::untrusted(names.policy, "wanted the policy of " + owner + " as the charter has it, " +
                                             (agreed ? base::digest_text(agreed->digest) : "(none)") + "; found " +
                                             base::digest_text(base::sha256(*policy)) +
                                             "; a changed policy needs a new charter");
  StudyFiles out{std::move(*charter), names.initial_model, 0};
  auto digest = digest_of_file(names.initial_model, out.model_length);
  if (!digest) return digest.error();
  if (*digest != out.charter.manifest.initial_model)
    return base::untrusted(names.initial_model, "wanted the initial model " +
                                                    base::digest_text(out.charter.manifest.initial_model) +
                                                    " that the manifest names; found " + base::digest_text(*digest));
  return out;
}

/// Its runs and receipts stay readable after a charter has run out, so founding is judged at its last valid second at
/// the latest; new runs are judged by the clock (rules.cpp).
Time founding_time(const attest::Charter& charter, Time at) {
  Time last = charter.not_after;
  for (const attest::Policy& policy : charter.policies) last = std::min(last, policy.valid_until);
  return std::min(at, last - std::chrono::seconds(1));
}

Result<void> check_key(const std::string& path, std::string_view use, const base::PrivateKey& key,
                       const base::PublicKey& wanted) {
  if (key.public_key() == wanted) return {};
  return base::untrusted(path, "wanted the model owner's " + std::string(use) + " key " + wanted.text() + "; found " +
                                   key.public_key().text());
}

}  // namespace

Result<Configuration> load_configuration(const std::string& path, Time at) {
  auto names = read_names(path);
  if (!names) return names.error();
  auto tls = base::PrivateKey::load(names->tls);
  if (!tls) return tls.error();
  auto order = base::PrivateKey::load(names->order);
  if (!order) return order.error();
  Configuration out{{}, *tls, *order, {}, 0, {}, {}, {}, {}};
  for (const Names::Study& study : names->studies) {
    auto loaded = load_study(study);
    if (!loaded) return loaded.error();
    out.studies.push_back(std::move(*loaded));
  }
  const attest::Party& first = out.studies.front().charter.manifest.model_owner();
  for (const StudyFiles& study : out.studies) {
    const attest::Decision founded = attest::founded(study.charter, founding_time(study.charter, at));
    if (!founded.allowed())
      return base::denied("charter " + base::digest_text(study.charter.digest), founded.explain());
    const attest::Party& party = study.charter.manifest.model_owner();
    if (auto checked = check_key(names->tls, "TLS", out.tls, party.tls); !checked) return checked.error();
    if (auto checked = check_key(names->order, "order", out.order, party.order.value_or(base::PublicKey{})); !checked)
      return checked.error();
    if (party.host != first.host || party.port != first.port)
      return base::unsupported(path, "its charters name two addresses for this coordinator, " + first.host + ":" +
                                         std::to_string(first.port) + " and " + party.host + ":" +
                                         std::to_string(party.port) + "; run one coordinator for each");
  }
  out.host = names->listen.empty() ? first.host : names->listen;
  out.port = first.port;
  out.database = names->database;
  out.log = names->log;
  out.proxy = names->proxy;
  out.instance_idle = names->instance_idle;
  return out;
}

}  // namespace cloister::coordinator

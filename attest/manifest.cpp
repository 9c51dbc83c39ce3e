#include "attest/manifest.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <set>
#include <unordered_map>

namespace cloister::attest {

using base::malformed;

namespace {

using base::Section;

constexpr std::size_t largest_manifest = 16 * 1024 * 1024;
constexpr std::size_t most_witnesses = 128;  // a quorum of them signs for every round, and everybody gets that
constexpr std::int64_t largest_count = 1'000'000'000;
constexpr std::uint64_t largest_model = std::uint64_t{1} << 40;  // values; 4 TiB of float32

std::uint32_t count(Section s, std::string_view key, std::int64_t at_least = 1, std::int64_t at_most = largest_count) {
  return static_cast<std::uint32_t>(s.integer(key, at_least, at_most));
}

void read_signers(Section s, Party& out) {
  Section keys = s.section("keys");
  for (const std::string& n : keys.keys()) {
    if (!valid_name(n)) keys.fail(n, "wanted a name of a-z, 0-9 and -");
    out.signers.emplace_back(n, keys.key(n));
  }
  std::sort(out.signers.begin(), out.signers.end());
  if (out.signers.empty() && !keys.missing()) s.fail("keys", "names no signer");
  out.signers_at_least = count(s, "at_least", 1, 1000);
  if (!out.signers.empty() && out.signers_at_least > out.signers.size())
    s.fail("at_least", fmt::format("wants {} of {} signers", out.signers_at_least, out.signers.size()));
}

Party read_party(Section s) {
  Party out;
  const std::string role = s.one_of("role", {"model", "data", "compute"});
  out.role = role == "model" ? Role::model : role == "data" ? Role::data : Role::compute;
  out.owner = s.string("owner");
  if (s.has("owner") && !valid_name(out.owner)) s.fail("owner", "wanted a name of a-z, 0-9 and -, not \"anyone\"");
  read_signers(s.section("signers"), out);
  out.tls = s.key("tls");
  switch (out.role) {
    case Role::model:
      out.order = s.key("order");
      break;
    case Role::compute:
      out.grant = s.key("grant");
      break;
    case Role::data:
      out.witness = s.key("witness");
      return out;
  }
  out.host = s.string("host");
  out.port = static_cast<std::uint16_t>(s.integer("port", 1, 65535));
  return out;
}

// An identity is a key, so no key may be two identities.
void check_keys(Section root, const std::vector<Party>& parties) {
  std::map<base::PublicKey, std::string> seen;
  const auto see = [&](const base::PublicKey& key, std::string whose) {
    if (key == base::PublicKey{}) return;  // was missing, and that was recorded
    const auto [at, fresh] = seen.emplace(key, whose);
    if (!fresh) root.fail("party", fmt::format("one key for {} and {}: make a key for each", at->second, whose));
  };
  for (const Party& p : parties) {
    for (const auto& [n, key] : p.signers) see(key, fmt::format("{}'s signer {}", p.owner, n));
    see(p.tls, p.owner + "'s tls");
    if (p.witness) see(*p.witness, p.owner + "'s witness");
    if (p.grant) see(*p.grant, p.owner + "'s grant");
    if (p.order) see(*p.order, p.owner + "'s order");
  }
}

void read_parties(Section root, Manifest& out) {
  std::map<Role, int> of;
  std::set<std::string> owners;
  for (Section s : root.sections("party")) {
    out.parties.push_back(read_party(s));
    ++of[out.parties.back().role];
    if (!owners.insert(out.parties.back().owner).second) s.fail("owner", "stands twice");
  }
  if (of[Role::model] != 1 || of[Role::compute] != 1 || of[Role::data] < 1)
    root.fail("party", fmt::format("wanted one model owner, one compute owner and data owners, found {}, {} and {}",
                                   of[Role::model], of[Role::compute], of[Role::data]));
  check_keys(root, out.parties);
}

void read_aggregator(Section s, Manifest& out) {
  out.aggregator_host = s.string("host");
  out.aggregator_port = static_cast<std::uint16_t>(s.integer("port", 1, 65535));
  auto measurement = base::from_hex(s.string("measurement"), "");
  if (measurement && measurement->size() == 48)
    out.aggregator_measurement = *std::move(measurement);
  else if (s.has("measurement"))
    s.fail("measurement", "wanted 96 hex digits (48 bytes)");
  out.launch_memory = s.size("memory");
  const std::int64_t peers = static_cast<std::int64_t>(out.data_owners().size()) + 2;
  out.launch_connections = count(s, "connections", 1, 1'000'000);
  if (s.has("connections") && out.launch_connections < peers)
    s.fail("connections", fmt::format("wanted at least {}: every data owner, coordinator and launcher", peers));
  out.launch_duration = s.duration("duration");
}

std::vector<std::uint32_t> read_sizes(Section s, std::string_view key) {
  std::vector<std::uint32_t> out;
  for (const double d : s.numbers(key)) {
    if (d < 1 || d > 1e6 || d != std::floor(d))
      s.fail(key, fmt::format("wanted integers from 1 to 1000000, found {}", d));
    out.push_back(d >= 1 && d <= 1e6 ? static_cast<std::uint32_t>(d) : 1);
  }
  return out;
}

Tensor read_tensor(Section s) {
  Tensor out;
  out.name = s.string("name");
  out.dtype = s.one_of("dtype", {"float32"});
  std::uint64_t values = 1;
  for (const std::uint32_t d : read_sizes(s, "shape")) {
    out.shape.push_back(d);
    values = values > largest_model / d ? largest_model + 1 : values * d;
  }
  if (values > largest_model) s.fail("shape", "holds more than 2^40 values");
  return out;
}

void read_model(Section s, Manifest& out) {
  out.architecture = s.one_of("architecture", {"logistic-regression", "mlp", "cnn"});
  if (out.architecture != "logistic-regression") out.hidden = read_sizes(s, "hidden");
  if (out.architecture == "cnn") {
    out.image = read_sizes(s, "image");
    if (s.has("image") && out.image.size() != 3) s.fail("image", "wanted channels, height and width");
  }
  out.initial_model = s.digest("initial");
  std::set<std::string> names;
  for (Section t : s.sections("tensors")) {
    out.tensors.push_back(read_tensor(t));
    if (!names.insert(out.tensors.back().name).second) t.fail("name", "stands twice");
  }
  if (out.tensors.empty() && !s.missing()) s.fail("tensors", "wanted at least one [[model.tensors]]");
}

Column read_column(Section s) {
  Column out;
  out.name = s.string("name");
  out.kind = s.one_of("kind", {"number", "category"});
  if (out.kind == "category") {
    out.categories = s.strings("categories");
    if (out.categories.empty() && s.has("categories")) s.fail("categories", "names none");
  }
  out.missing = s.maybe_strings("missing").value_or(std::vector<std::string>{});
  return out;
}

void read_data(Section s, Manifest& out) {
  std::set<std::string> names;
  for (Section c : s.sections("columns")) {
    out.columns.push_back(read_column(c));
    if (!names.insert(out.columns.back().name).second) c.fail("name", "stands twice");
  }
  if (out.columns.empty() && !s.missing()) s.fail("columns", "wanted at least one [[data.columns]]");
  Section label = s.section("label");
  out.label_column = label.string("column");
  out.label_positive = label.strings("positive");
  if (names.count(out.label_column) != 0)
    label.fail("column", "is one of the data.columns: the model would see its answer");
}

void read_training(Section s, Manifest& out) {
  out.algorithm = s.one_of("algorithm", {"fedavg", "fedprox", "fedadam"});
  out.trainer = s.digest("trainer");
  out.value_bound = s.number("value_bound");
  if (s.has("value_bound") && !(out.value_bound > 0 && out.value_bound <= 1'048'576))
    s.fail("value_bound", "wanted a number above 0 and at most 1048576");
  out.weight_at_most = static_cast<std::uint64_t>(s.integer("weight_at_most", 1, largest_count));
}

SettingRange read_range(Section s, const std::string& name) {
  if (s.kind(name) != Section::Kind::table) {
    const double fixed = s.number(name);
    return {fixed, fixed, fixed};
  }
  Section range = *s.maybe_section(name);
  SettingRange out{range.number("from"), range.number("to"), range.number("otherwise")};
  if (!(out.from <= out.otherwise && out.otherwise <= out.to))
    s.fail(name, fmt::format("wanted from <= otherwise <= to, found {}, {}, {}", out.from, out.otherwise, out.to));
  return out;
}

void read_settings(Section s, Manifest& out) {
  for (SettingRule rule : setting_rules()) {
    const std::string name(rule.name);
    const bool quorum = name == "quorum";
    if (quorum) rule.otherwise = rule.highest = static_cast<double>(out.data_owners().size());
    if (!rule.algorithm.empty() && rule.algorithm != out.algorithm) {
      if (s.has(name))
        s.fail(name, fmt::format("is a setting of {}, and the algorithm is {}", rule.algorithm, out.algorithm));
      continue;
    }
    if (!s.has(name) && rule.otherwise) {
      out.settings[name] = {*rule.otherwise, *rule.otherwise, *rule.otherwise};
      continue;
    }
    const SettingRange r = out.settings[name] = read_range(s, name);
    const auto whole = [](double v) { return v == std::floor(v); };
    if (s.has(name) && (r.from < rule.lowest || r.to > rule.highest))
      s.fail(name, fmt::format("wanted values from {} to {}", rule.lowest, rule.highest));
    if (rule.integer && !(whole(r.from) && whole(r.to) && whole(r.otherwise))) s.fail(name, "wanted integers");
  }
}

void read_tasks(Section root, Manifest& out) {
  if (auto s = root.maybe_section("statistics")) {
    out.statistics_kinds = s->strings("kinds");
    if (out.statistics_kinds.empty() && s->has("kinds")) s->fail("kinds", "names none; leave [statistics] out");
    out.statistics_minimum_count = count(*s, "minimum_count");
  }
  if (auto s = root.maybe_section("evaluate")) {
    out.evaluate_kinds = s->strings("kinds");
    if (out.evaluate_kinds.empty() && s->has("kinds")) s->fail("kinds", "names none; leave [evaluate] out");
    out.evaluate_every = count(*s, "every");
    out.evaluate_bins = count(*s, "bins", 2, 65536);
    out.evaluate_minimum_count = count(*s, "minimum_count");
  }
  Section publish = root.section("publish");
  out.publish_model = publish.one_of("model", {"never", "final", "every-round"});
  out.publish_evaluate = publish.one_of("evaluate", {"never", "final", "every-round"});
  out.publish_statistics = publish.one_of("statistics", {"never", "cohort"});
  if (out.evaluate_kinds.empty() && publish.has("evaluate") && out.publish_evaluate != "never")
    publish.fail("evaluate", "there is no [evaluate] to publish: wanted \"never\"");
  if (out.statistics_kinds.empty() && publish.has("statistics") && out.publish_statistics != "never")
    publish.fail("statistics", "there is no [statistics] to publish: wanted \"never\"");
}

void read_witnesses(Section root, Manifest& out) {
  const std::vector<const Party*> owners = out.data_owners();
  auto s = root.maybe_section("witnesses");
  std::optional<std::vector<std::string>> among;
  if (s) among = s->maybe_strings("among");
  for (const Party* p : owners)
    if (!among || std::find(among->begin(), among->end(), p->owner) != among->end()) out.witnesses.push_back(p->owner);
  if (among && out.witnesses.size() != among->size()) s->fail("among", "wanted owners of data in this manifest");
  if (out.witnesses.size() > most_witnesses)
    root.fail("witnesses", fmt::format("{} would witness every receipt: name at most {} in witnesses.among",
                                       out.witnesses.size(), most_witnesses));
  if (s) out.lying_witnesses = static_cast<std::uint32_t>(s->maybe_integer("lying", 0, 1'000'000).value_or(1));
  if (!out.witnesses.empty() && out.witness_quorum() > out.witnesses.size())
    root.fail("witnesses", fmt::format("{} witnesses of whom {} may lie never reach their quorum of {}",
                                       out.witnesses.size(), out.lying_witnesses, out.witness_quorum()));
}

Manifest read(Section root) {
  Manifest out;
  out.format = count(root, "format");
  if (out.format != 1) root.fail("format", fmt::format("this build reads format 1, found {}", out.format));
  out.study = root.string("study");
  if (root.has("study") && !valid_name(out.study)) root.fail("study", "wanted a name of a-z, 0-9 and -");
  out.purpose = root.string("purpose");
  out.runs = count(root.section("runs"), "at_most");
  read_parties(root, out);
  read_aggregator(root.section("aggregator"), out);
  read_model(root.section("model"), out);
  read_data(root.section("data"), out);
  read_training(root.section("training"), out);
  read_settings(root.section("settings"), out);
  read_tasks(root, out);
  read_witnesses(root, out);
  for (auto [table, value] : {std::pair{"round", &out.round_deadline}, std::pair{"channel", &out.channel_deadline}}) {
    Section s = root.section(table);
    *value = s.duration("deadline");
    if (s.has("deadline") && *value < std::chrono::milliseconds(1)) s.fail("deadline", "wanted more than nothing");
  }
  return out;
}

struct KeyHash {
  // A public key is as good as random, and an attacker's key only has to be found absent.
  std::size_t operator()(const base::PublicKey& key) const {
    std::size_t out = 0;
    for (std::size_t i = 0; i < sizeof out; ++i) out = out << 8 | key.bytes[i];
    return out;
  }
};

template <class Match>
const Party* find(const Manifest& m, Match match) {
  const auto at = std::find_if(m.parties.begin(), m.parties.end(), match);
  return at == m.parties.end() ? nullptr : &*at;
}

}  // namespace

/// Where a party stands. Lookups compare what they find with the manifest, so that one that was edited is only slower.
class PartyIndex {
 public:
  explicit PartyIndex(const std::vector<Party>& of) : parties(of.size()) {
    for (std::uint32_t i = 0; i < of.size(); ++i) {
      by_owner.emplace(of[i].owner, i);
      by_tls.emplace(of[i].tls, i);
      if (of[i].role == Role::data) places.emplace(of[i].owner, static_cast<std::uint32_t>(data.size()));
      if (of[i].role == Role::data) data.push_back(i);
    }
  }
  std::size_t parties;
  std::unordered_map<std::string, std::uint32_t> by_owner, places;
  std::unordered_map<base::PublicKey, std::uint32_t, KeyHash> by_tls;
  std::vector<std::uint32_t> data;
};

const Party& Manifest::model_owner() const {
  return *find(*this, [](const Party& p) { return p.role == Role::model; });
}
const Party& Manifest::compute_owner() const {
  return *find(*this, [](const Party& p) { return p.role == Role::compute; });
}
std::vector<const Party*> Manifest::data_owners() const {
  std::vector<const Party*> out;
  for (const Party& p : parties)
    if (p.role == Role::data) out.push_back(&p);
  return out;
}
const Party* Manifest::party(std::string_view owner) const {
  if (index) {
    const auto at = index->by_owner.find(std::string(owner));
    if (at != index->by_owner.end() && at->second < parties.size() && parties[at->second].owner == owner)
      return &parties[at->second];
  }
  return find(*this, [&](const Party& p) { return p.owner == owner; });
}
const Party* Manifest::by_tls_key(const base::PublicKey& key) const {
  if (index) {
    const auto at = index->by_tls.find(key);
    if (at != index->by_tls.end() && at->second < parties.size() && parties[at->second].tls == key)
      return &parties[at->second];
  }
  return find(*this, [&](const Party& p) { return p.tls == key; });
}
std::uint32_t Manifest::data_count() const {
  if (index && index->parties == parties.size()) return static_cast<std::uint32_t>(index->data.size());
  return static_cast<std::uint32_t>(
      std::count_if(parties.begin(), parties.end(), [](const Party& p) { return p.role == Role::data; }));
}
std::optional<std::uint32_t> Manifest::data_place(std::string_view owner) const {
  if (index) {
    const auto at = index->places.find(std::string(owner));
    if (at != index->places.end() && index->data[at->second] < parties.size() &&
        parties[index->data[at->second]].owner == owner)
      return at->second;
  }
  std::uint32_t place = 0;
  for (const Party& p : parties) {
    if (p.role != Role::data) continue;
    if (p.owner == owner) return place;
    ++place;
  }
  return std::nullopt;
}
std::uint32_t Manifest::witness_quorum() const {
  return (static_cast<std::uint32_t>(witnesses.size()) + lying_witnesses) / 2 + 1;
}

bool is_witness(const Manifest& manifest, std::string_view owner) {
  return std::find(manifest.witnesses.begin(), manifest.witnesses.end(), owner) != manifest.witnesses.end();
}

Result<Manifest> parse_manifest(std::string_view toml, std::string file) {
  if (toml.size() > largest_manifest) return malformed(file, fmt::format("larger than {} bytes", largest_manifest));
  auto config = base::Config::parse(toml, std::move(file));
  if (!config) return config.error();
  Manifest out = read(config->root());
  if (auto done = config->finish(); !done) return done.error();
  out.text = std::string(toml);
  out.digest = base::sha256(base::view(toml));
  out.index = std::make_shared<const PartyIndex>(out.parties);
  return out;
}

std::vector<std::string> manifest_keys(std::string_view toml) {
  auto config = base::Config::parse(toml, "manifest");
  if (!config) return {};
  read(config->root());
  return config->known();
}

}  // namespace cloister::attest

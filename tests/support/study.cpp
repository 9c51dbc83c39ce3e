#include "tests/support/study.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/log.hpp"

namespace cloister::tests {
namespace {

using base::PrivateKey;

constexpr const char* purpose = "DUA 2026-114, cardiac risk";
const std::vector<std::string> columns = {"age", "sex", "cp"};

Keys make_keys(const std::string& owner) {
  Keys out{.owner = owner, .signers = {}};
  const std::vector<std::string> signers =
      owner == "charite" ? std::vector<std::string>{"dpo", "it"} : std::vector<std::string>{"officer"};
  for (const std::string& s : signers) out.signers.emplace_back(s, PrivateKey::generate());
  if (owner == "acme")
    out.order = PrivateKey::generate();
  else if (owner == "cloudco")
    out.grant = PrivateKey::generate();
  else
    out.witness = PrivateKey::generate();
  return out;
}

std::string quoted(const std::vector<std::string>& names) {
  return fmt::format("[\"{}\"]", fmt::join(names, "\", \""));
}

void apply(std::string& text, const std::string& of, const std::vector<Edit>& edits) {
  for (const Edit& e : edits) {
    if (e.of != of) continue;
    const std::size_t at = text.find(e.from);
    if (at == std::string::npos)
      throw Exception(base::malformed(of, fmt::format("the edit's \"{}\" is not in it:\n{}", e.from, text)));
    text.replace(at, e.from.size(), e.to);
  }
}

template <class T>
T must(Result<T> result) {
  if (!result) throw Exception(result.error());
  return *std::move(result);
}

attest::Role role_of(const Keys& k) {
  return k.order ? attest::Role::model : k.grant ? attest::Role::compute : attest::Role::data;
}

base::Sha256 some_digest(std::string_view of) {
  return base::sha256(base::view(of));
}

std::string party_text(const Keys& k, const StudyOptions& o) {
  std::string signers;
  for (const auto& [name, key] : k.signers)
    signers += fmt::format("{}{} = \"{}\"", signers.empty() ? "" : ", ", name, key.public_key().text());
  std::string out = fmt::format(
      "\n[[party]]\nrole = \"{}\"\nowner = \"{}\"\nsigners = {{ at_least = {}, keys = {{ {} }} }}\ntls = \"{}\"\n",
      attest::name(role_of(k)), k.owner, k.signers.size(), signers, k.tls.public_key().text());
  if (k.witness) out += fmt::format("witness = \"{}\"\n", k.witness->public_key().text());
  if (k.order)
    out += fmt::format("order = \"{}\"\nhost = \"127.0.0.1\"\nport = {}\n", k.order->public_key().text(),
                       o.coordinator_port);
  if (k.grant)
    out +=
        fmt::format("grant = \"{}\"\nhost = \"127.0.0.1\"\nport = {}\n", k.grant->public_key().text(), o.launcher_port);
  return out;
}

std::string bounds_text(const std::vector<std::string>& owners) {
  return fmt::format(R"(
[study]
participants = {{ at_least = 3, among = {} }}
runs = {{ at_most = 20 }}
rounds = {{ at_most = 50 }}
publish = {{ model = "final", evaluate = "every-round", statistics = "cohort" }}
)",
                     quoted(owners));
}

}  // namespace

Study::Study(StudyOptions o) : options(std::move(o)), at(options.at) {
  owners.push_back(make_keys("acme"));
  owners.push_back(make_keys("cloudco"));
  for (const std::string& name : options.data_owners) owners.push_back(make_keys(name));
  manifest = manifest_text();
  apply(manifest, "manifest", options.edits);
  for (const Keys& k : owners) {
    policies.emplace_back(k.owner + ".policy.toml", policy_text(k));
    apply(policies.back().second, k.owner, options.edits);
  }
  charter = found(manifest, policies);
}

const Keys& Study::keys(std::string_view owner) const {
  return *std::find_if(owners.begin(), owners.end(), [&](const Keys& k) { return k.owner == owner; });
}

Bytes Study::measurement() const {
  return options.measurement ? *options.measurement : base::copy(base::sha384(base::view("cloister-aggregator")));
}

std::string Study::platform() const {
  return options.platform ? *options.platform : "simulated:" + base::hex(some_digest("cloudco's machine"));
}

std::string Study::manifest_text() const {
  std::string out =
      fmt::format("format = 1\nstudy = \"heart\"\npurpose = \"{}\"\nruns = {{ at_most = 10 }}\n", purpose);
  for (const Keys& k : owners) out += party_text(k, options);
  out += fmt::format("\n[aggregator]\nhost = \"{}\"\nport = {}\nmeasurement = \"{}\"\n", options.aggregator_host,
                     options.aggregator_port, base::hex(measurement()));
  out += "memory = \"512 MiB\"\nconnections = 16\nduration = \"4h\"\n";
  out += fmt::format("\n[model]\narchitecture = \"logistic-regression\"\ninitial = \"{}\"\n",
                     base::digest_text(options.initial_model.value_or(some_digest("initial model"))));
  out += options.tensors.empty() ? "[[model.tensors]]\nname = \"weight\"\nshape = [1, 6]\ndtype = "
                                   "\"float32\"\n[[model.tensors]]\nname = \"bias\"\nshape = [1]\ndtype = \"float32\"\n"
                                 : options.tensors;
  out += fmt::format(R"(
[data]
label = {{ column = "num", positive = ["1", "2", "3", "4"] }}
[[data.columns]]
name = "age"
kind = "number"
missing = ["?"]
[[data.columns]]
name = "sex"
kind = "category"
categories = ["0", "1"]
missing = ["?"]
[[data.columns]]
name = "cp"
kind = "category"
categories = ["1", "2", "3", "4"]

[training]
algorithm = "fedavg"
trainer = "{}"
value_bound = 16.0
weight_at_most = 1000

[settings]
rounds = {{ from = 1, to = 20, otherwise = 10 }}
quorum = {{ from = 3, to = {}, otherwise = {} }}
local_epochs = {{ from = 1, to = 10, otherwise = 1 }}
batch_size = 16
learning_rate = {{ from = 0.001, to = 1.0, otherwise = 0.1 }}
weight_decay = 0.0
split = {{ from = 0, to = 1000, otherwise = 0 }}

[statistics]
kinds = ["mean", "variance", "frequency"]
minimum_count = 10

[evaluate]
kinds = ["auc"]
every = 1
bins = 1000
minimum_count = 10

[publish]
model = "final"
evaluate = "every-round"
statistics = "cohort"

[round]
deadline = "1m"

[channel]
deadline = "10s"
)",
                     base::digest_text(options.trainer.value_or(some_digest("trainer"))), options.data_owners.size(),
                     options.data_owners.size());
  return out;
}

std::string Study::policy_text(const Keys& k) const {
  std::vector<std::string> signers;
  for (const auto& [name, key] : k.signers) signers.push_back(name);
  const attest::Role role = role_of(k);
  std::string out = fmt::format(
      "role = \"{}\"\nowner = \"{}\"\nsigners = {{ at_least = {}, among = {} }}\nvalid = {{ from = {}, until = {} }}\n",
      attest::name(role), k.owner, signers.size(), quoted(signers), base::text(at - std::chrono::days(1)),
      base::text(at + std::chrono::days(365)));
  if (role == attest::Role::data) out += fmt::format("purpose = \"{}\"\n", purpose);
  const std::string tee = fmt::format(
      "tee = [\"simulated\"]\nmeasurement = [\"{}\"]\ntcb = {{ status = \"up-to-date\", date = {}, advisories = "
      "[\"INTEL-SA-00001\"] }}\ndebug = false\nsimulated = true\n",
      base::hex(measurement()), base::text(at - std::chrono::days(200)));
  out += "\n[aggregator]\n" + tee + fmt::format("platforms = [\"{}\"]\nrenew = \"1h\"\n", platform());
  const std::string bounds = bounds_text(options.data_owners);
  switch (role) {
    case attest::Role::model: {
      const std::string node = base::hex(base::sha384(base::view("cloister participant")));
      out +=
          "\n[participants]\n" + (options.attested_participants
                                      ? fmt::format("attested = true\ntee = [\"simulated\"]\nmeasurement = "
                                                    "[\"{}\"]\ntcb = {{ status = \"up-to-date\", date = {}, advisories "
                                                    "= [\"INTEL-SA-00001\"] }}\ndebug = false\nsimulated = true\n",
                                                    node, base::text(at - std::chrono::days(200)))
                                      : std::string("attested = false\n"));
      out +=
          fmt::format("\n[submitters]\nalice = {{ key = \"{}\", runs_at_most = 5 }}\n", submitter.public_key().text());
      return out + bounds;
    }
    case attest::Role::compute:
      return out + fmt::format(
                       "\n[launch]\nmodel_owners = [\"acme\"]\nconnect = {}\nmemory = {{ at_most = \"2 GiB\" "
                       "}}\nconnections = {{ at_most = 64 }}\nduration = {{ at_most = \"12h\" }}\n",
                       quoted(options.data_owners));
    case attest::Role::data:
      break;
  }
  std::vector<std::string> all = columns;
  all.push_back("num");
  out += fmt::format("\n[data]\nset = \"{}-cardiac\"\ncolumns = {}\nrecords = {{ at_most = 500 }}\n", k.owner,
                     quoted(all));
  out +=
      fmt::format("\n[tasks]\ntrain = {{ trainer = [\"{}\"], algorithms = [\"fedavg\", \"fedprox\", \"fedadam\"] }}\n",
                  base::digest_text(options.trainer.value_or(some_digest("trainer"))));
  out +=
      "statistics = { kinds = [\"mean\", \"variance\", \"frequency\"], minimum_count = 10, at_most = 2, exact = true }\n";
  out += "evaluate = { kinds = [\"auc\"], minimum_count = 10, at_most = 50, exact = true }\n";
  out += bounds + "\n[privacy]\nunit = \"none\"\n";
  if (options.attested_participants)
    out += fmt::format("\n[node]\nplatforms = [\"simulated:{}\"]\n", base::hex(some_digest(k.owner + "'s machine")));
  return out;
}

attest::Charter Study::found(const std::string& manifest_toml,
                             const std::vector<std::pair<std::string, std::string>>& texts,
                             const attest::Charter* previous) const {
  const Bytes measured = measurement();
  attest::Charter out = must(attest::draft_charter(
      manifest_toml, texts, {attest::sign_reference("cloister-aggregator 1.2", measured, reference_signer)},
      at + std::chrono::days(30), previous));
  for (const Keys& k : owners) {
    if (out.manifest.party(k.owner) == nullptr) continue;
    for (const auto& [name, key] : k.signers)
      if (auto ok = attest::sign_charter(out, k.owner, name, key); !ok) throw Exception(ok.error());
    if (previous != nullptr && k.witness && attest::is_witness(previous->manifest, k.owner))
      if (auto ok = attest::sign_succession(out, k.owner, *k.witness); !ok) throw Exception(ok.error());
  }
  return out;
}

attest::Claims Study::claims() const {
  attest::Claims out;
  out.kind = "simulated";
  out.simulated = true;
  out.measurement = measurement();
  out.tcb_status = "up-to-date";
  out.tcb_date = at - std::chrono::days(10);
  out.advisories = {"INTEL-SA-00001"};
  out.debug = false;
  const std::string text = platform();
  out.platform = must(base::from_hex(text.substr(text.find(':') + 1), "platform"));
  return out;
}

attest::Claims Study::participant_claims(std::string_view owner) const {
  attest::Claims out = claims();
  out.measurement = base::copy(base::sha384(base::view("cloister participant")));
  out.platform = base::copy(some_digest(std::string(owner) + "'s machine"));
  return out;
}

attest::Launch Study::launch() const {
  const attest::Manifest& m = charter.manifest;
  return {m.aggregator_measurement, m.launch_memory, m.launch_connections, m.launch_duration};
}

attest::RunOrder Study::run_order(attest::Settings settings, std::uint64_t run) const {
  attest::RunOrder out;
  out.charter = charter.digest;
  out.submitter = "alice";
  out.settings = std::move(settings);
  out.nonce = base::random_array<16>();
  out.note = "a test";
  out.submit(submitter);
  out.number(run, *keys("acme").order);
  return out;
}

attest::Task Study::task(std::string kind) const {
  attest::Task out{.kind = std::move(kind),
                   .cohort = static_cast<std::uint32_t>(options.data_owners.size()),
                   .algorithm = charter.manifest.algorithm};
  out.trainer = charter.manifest.trainer;
  return out;
}

}  // namespace cloister::tests

#include "bench/scale_study.hpp"

#include <chrono>
#include <fmt/format.h>

#include "attest/charter.hpp"
#include "attest/simulated/measure.hpp"

namespace cloister::bench {
namespace {

namespace simulated = attest::simulated;
constexpr const char* purpose = "a measurement of scale";
constexpr std::size_t witnesses = 7;

template <class T>
T must(Result<T> result) {
  if (!result) throw Exception(result.error());
  return *std::move(result);
}

aggregation::Model zeros(std::size_t values) {
  auto schema = must(aggregation::Schema::make(
      {{"weight", {1, values - 1}, aggregation::Dtype::float32}, {"bias", {1}, aggregation::Dtype::float32}}));
  return {.schema = std::move(schema), .values = std::vector<float>(values)};
}

double since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::string party(const Owner& o, std::string_view role, std::string_view extra, std::string_view where) {
  return fmt::format(
      "\n[[party]]\nrole = \"{}\"\nowner = \"{}\"\nsigners = {{ at_least = 1, keys = {{ officer = \"{}\" }} }}\n"
      "tls = \"{}\"\n{} = \"{}\"\n{}",
      role, o.name, o.signer.public_key().text(), o.tls.public_key().text(), extra, o.extra.public_key().text(), where);
}

}  // namespace

ScaleStudy::ScaleStudy(std::size_t data_owners, std::size_t values, std::string aggregator)
    : platform(base::PrivateKey::generate(), simulated::PlatformFacts{}),
      model{.name = "model"},
      compute{.name = "compute"},
      initial(zeros(values)),
      initial_file(initial.serialize()),
      measurement(base::copy(must(simulated::measure_file(aggregator, {})))) {
  auto key = base::PrivateKey::generate();
  platform_pem = key.pem();
  platform = simulated::Platform(std::move(key), simulated::PlatformFacts{});
  for (std::size_t i = 0; i < data_owners; ++i) data.push_back(Owner{.name = fmt::format("site-{:05}", i)});
  const auto start = std::chrono::steady_clock::now();
  manifest = manifest_text();
  std::vector<std::pair<std::string, std::string>> policies;
  policies.emplace_back("model.policy.toml", policy_text(model, "model"));
  policies.emplace_back("compute.policy.toml", policy_text(compute, "compute"));
  for (const Owner& o : data) policies.emplace_back(o.name + ".policy.toml", policy_text(o, "data"));
  attest::Charter draft =
      must(attest::draft_charter(manifest, std::move(policies), {}, base::now() + std::chrono::days(30)));
  const auto sign = [&](const Owner& o) {
    if (auto ok = attest::sign_charter(draft, o.name, "officer", o.signer); !ok) throw Exception(ok.error());
  };
  sign(model), sign(compute);
  for (const Owner& o : data) sign(o);
  charter_file = draft.serialize();
  founding_seconds = since(start);
  const auto load = std::chrono::steady_clock::now();
  charter = std::make_shared<const attest::Charter>(must(attest::load_charter(charter_file, "charter", base::now())));
  loading_seconds = since(load);
}

std::string ScaleStudy::manifest_text() const {
  std::string out =
      fmt::format("format = 1\nstudy = \"scale\"\npurpose = \"{}\"\nruns = {{ at_most = 10 }}\n", purpose);
  out += party(model, "model", "order", "host = \"127.0.0.1\"\nport = 7001\n");
  out += party(compute, "compute", "grant", "host = \"127.0.0.1\"\nport = 7002\n");
  std::string witness_names;
  for (std::size_t i = 0; i < data.size(); ++i) {
    out += party(data[i], "data", "witness", "");
    if (i < witnesses) witness_names += fmt::format("{}\"{}\"", i == 0 ? "" : ", ", data[i].name);
  }
  out += fmt::format(
      "\n[aggregator]\nhost = \"127.0.0.1\"\nport = 7443\nmeasurement = \"{}\"\nmemory = \"8 GiB\"\n"
      "connections = {}\nduration = \"4h\"\n",
      base::hex(measurement), data.size() + 16);
  out += fmt::format(
      "\n[model]\narchitecture = \"logistic-regression\"\ninitial = \"{}\"\n"
      "tensors = [{{ name = \"weight\", shape = [1, {}], dtype = \"float32\" }}, "
      "{{ name = \"bias\", shape = [1], dtype = \"float32\" }}]\n",
      base::digest_text(base::sha256(initial_file)), initial.values.size() - 1);
  out += fmt::format(R"(
[data]
columns = [{{ name = "x", kind = "number", missing = ["?"] }}]
label = {{ column = "y", positive = ["1"] }}

[training]
trainer = "{}"
algorithm = "fedavg"
value_bound = 16.0
weight_at_most = 1000

[settings]
rounds = {{ from = 1, to = 100000, otherwise = 1 }}
quorum = {{ from = 2, to = {}, otherwise = {} }}
local_epochs = 1
batch_size = 1
learning_rate = 0.1

[publish]
model = "final"
evaluate = "never"
statistics = "never"

[witnesses]
among = [{}]
lying = 1

[round]
deadline = "10m"

[channel]
deadline = "5m"
)",
                     base::digest_text(base::sha256(base::view("trainer"))), data.size(), data.size(), witness_names);
  return out;
}

std::string ScaleStudy::policy_text(const Owner& owner, std::string_view role) const {
  std::string out = fmt::format(
      "role = \"{}\"\nowner = \"{}\"\nsigners = {{ at_least = 1, among = [\"officer\"] }}\n"
      "valid = {{ from = {}, until = {} }}\n",
      role, owner.name, base::text(base::now() - std::chrono::days(1)),
      base::text(base::now() + std::chrono::days(60)));
  if (role == "data") out += fmt::format("purpose = \"{}\"\n", purpose);
  out += fmt::format(
      "\n[aggregator]\ntee = [\"simulated\"]\nmeasurement = [\"{}\"]\ntcb = \"up-to-date\"\ndebug = false\n"
      "simulated = true\nrenew = \"4h\"\n",
      base::hex(measurement));
  if (role == "compute") {
    return out + fmt::format(
                     "platforms = [\"{}\"]\n\n[launch]\nmodel_owners = [\"model\"]\nconnect = [\"anyone\"]\n"
                     "memory = {{ at_most = \"8 GiB\" }}\nconnections = {{ at_most = 1000000 }}\n"
                     "duration = {{ at_most = \"12h\" }}\n",
                     platform.identity());
  }
  if (role == "model")
    out += fmt::format(
        "\n[participants]\nattested = false\n\n[submitters]\nalice = {{ key = \"{}\", runs_at_most = 10 }}\n",
        submitter.public_key().text());
  if (role == "data")
    out += fmt::format(
        "\n[data]\nset = \"records-{}\"\ncolumns = [\"x\", \"y\"]\nrecords = {{ at_most = 1000 }}\n"
        "\n[tasks]\ntrain = {{ trainer = [\"{}\"], algorithms = [\"fedavg\"] }}\n",
        owner.name, base::digest_text(base::sha256(base::view("trainer"))));
  out +=
      "\n[study]\nparticipants = { at_least = 2, among = [\"anyone\"] }\nruns = { at_most = 10 }\n"
      "rounds = { at_most = 100000 }\npublish = { model = \"final\", evaluate = \"never\", statistics = \"never\" }\n";
  if (role == "data") out += "\n[privacy]\nunit = \"none\"\n";
  return out;
}

attest::RunOrder ScaleStudy::order(std::uint32_t rounds, std::size_t quorum) const {
  attest::RunOrder out;
  out.charter = charter->digest;
  out.submitter = "alice";
  out.settings = {{"rounds", static_cast<double>(rounds)}};
  if (quorum != 0) out.settings["quorum"] = static_cast<double>(quorum);
  out.nonce = base::random_array<16>();
  out.note = "scale";
  out.submit(submitter);
  out.number(1, model.extra);
  return out;
}

}  // namespace cloister::bench

#include "attest/policy.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <limits>

namespace cloister::attest {

using base::malformed;

namespace {

using base::Section;

constexpr std::size_t largest_policy = 256 * 1024;
constexpr std::int64_t largest_count = 1'000'000'000;

/// A list of names, or ["anyone"] where that may be written.
std::vector<std::string> read_names(Section s, std::string_view key, bool anyone_allowed) {
  std::vector<std::string> out = s.strings(key);
  for (const std::string& n : out)
    if (!valid_name(n) && !(anyone_allowed && n == "anyone" && out.size() == 1))
      s.fail(key, n == "anyone"
                      ? anyone_allowed ? "\"anyone\" stands alone or not at all" : "names people, not \"anyone\""
                      : fmt::format("wanted names of a-z, 0-9 and -, found \"{}\"", n));
  return out;
}

std::vector<std::string> read_words(Section s, std::string_view key) {
  std::vector<std::string> out = s.strings(key);
  if (out.empty() && s.has(key)) s.fail(key, "an empty list allows nothing; leave the section out if that is meant");
  return out;
}

std::int64_t read_bound(Section s, std::string_view key, std::int64_t highest = largest_count) {
  return s.section(key).integer("at_most", 1, highest);
}

void check_platforms(Section s, std::string_view key, const std::vector<std::string>& platforms) {
  for (const std::string& p : platforms) {
    const std::size_t colon = p.find(':');
    const bool hexadecimal = colon != std::string::npos && colon + 1 < p.size() && colon > 0 &&
                             p.find_first_not_of("0123456789abcdef", colon + 1) == std::string::npos;
    if (!hexadecimal) s.fail(key, fmt::format("wanted a TEE kind, a colon and lower-case hex, found \"{}\"", p));
  }
}

std::vector<AcceptedMeasurement> read_measurements(Section s) {
  std::vector<AcceptedMeasurement> out;
  const std::vector<Section> elements = s.elements("measurement");
  if (elements.empty() && !s.missing())
    s.fail("measurement", "wanted at least one measurement in hex or {name, signed_by}");
  for (Section e : elements) {
    AcceptedMeasurement m;
    if (!e.plain()) {
      m.named = e.string("name");
      m.signed_by = e.key("signed_by");
    } else {
      auto bytes = base::from_hex(e.string("value"), "");
      if (bytes && bytes->size() == 48)
        m.value = *std::move(bytes);
      else
        s.fail("measurement", "wanted 96 hex digits (48 bytes) or {name, signed_by}");
    }
    out.push_back(std::move(m));
  }
  return out;
}

// "up-to-date", a list of statuses, or { status, date, advisories }: the explicit floor.
void read_tcb(Section s, TeeRequirements& out) {
  switch (s.kind("tcb")) {
    case Section::Kind::array:
      out.tcb = read_words(s, "tcb");
      return;
    case Section::Kind::table: {
      Section t = *s.maybe_section("tcb");
      if (t.kind("status") == Section::Kind::array)
        out.tcb = read_words(t, "status");
      else
        out.tcb = {t.string("status")};
      if (t.has("date")) out.tcb_date = t.time("date");
      out.advisories = t.maybe_strings("advisories").value_or(std::vector<std::string>{});
      return;
    }
    default:
      out.tcb = {s.string("tcb")};
  }
}

enum class Of { aggregator, compute_aggregator, participants };

TeeRequirements read_tee(Section s, Of of) {
  TeeRequirements out;
  out.tee = read_words(s, "tee");
  out.measurement = read_measurements(s);
  read_tcb(s, out);
  out.debug = s.boolean("debug");
  out.simulated = s.maybe_boolean("simulated").value_or(false);
  if (of == Of::compute_aggregator)
    out.platforms = read_words(s, "platforms");
  else if (of == Of::aggregator)
    out.platforms = s.maybe_strings("platforms");
  if (out.platforms) check_platforms(s, "platforms", *out.platforms);
  if (of == Of::participants) return out;  // a participant proves itself at every connection; nobody asks it again
  out.renew = s.duration("renew");
  if (s.has("renew") && out.renew < std::chrono::seconds(1)) s.fail("renew", "wanted at least \"1s\"");
  return out;
}

StudyBounds read_bounds(Section s) {
  StudyBounds out;
  Section participants = s.section("participants");
  out.participants_at_least = static_cast<std::uint32_t>(participants.integer("at_least", 1, 1'000'000));
  out.participants_among = read_names(participants, "among", true);
  out.runs_at_most = static_cast<std::uint32_t>(read_bound(s, "runs"));
  out.rounds_at_most = static_cast<std::uint32_t>(read_bound(s, "rounds"));
  Section publish = s.section("publish");
  out.publish_model = publish.one_of("model", {"never", "final", "every-round"});
  out.publish_evaluate = publish.one_of("evaluate", {"never", "final", "every-round"});
  out.publish_statistics = publish.one_of("statistics", {"never", "cohort"});
  return out;
}

ModelPolicy read_model(Section root) {
  ModelPolicy out;
  Section participants = root.section("participants");
  out.participants_attested = participants.boolean("attested");
  if (out.participants_attested) out.participants = read_tee(participants, Of::participants);
  Section submitters = root.section("submitters");
  for (const std::string& n : submitters.keys()) {
    if (!valid_name(n)) submitters.fail(n, "wanted a name of a-z, 0-9 and -");
    Section s = submitters.section(n);
    out.submitters.push_back(
        {n, s.key("key"), static_cast<std::uint32_t>(s.integer("runs_at_most", 1, largest_count))});
  }
  out.study = read_bounds(root.section("study"));
  return out;
}

TaskExact read_exact(Section s) {
  TaskExact out;
  out.kinds = read_words(s, "kinds");
  out.minimum_count = static_cast<std::uint32_t>(s.integer("minimum_count", 1, largest_count));
  out.at_most = static_cast<std::uint32_t>(s.integer("at_most", 1, largest_count));
  out.exact = s.maybe_boolean("exact").value_or(false);
  return out;
}

void read_tasks(Section s, DataPolicy& out) {
  if (auto t = s.maybe_section("train")) {
    out.train.emplace();
    for (const std::string& text : read_words(*t, "trainer")) {
      auto digest = base::parse_digest(text, "");
      if (digest)
        out.train->trainer.push_back(*digest);
      else
        t->fail("trainer", digest.error().what);
    }
    out.train->algorithms = read_words(*t, "algorithms");
  }
  if (auto t = s.maybe_section("statistics")) out.statistics = read_exact(*t);
  if (auto t = s.maybe_section("evaluate")) out.evaluate = read_exact(*t);
}

void read_privacy(Section s, DataPolicy& out) {
  out.privacy_unit = s.one_of("unit", {"none", "patient", "site"});
  const bool budget = out.privacy_unit != "none";
  for (const char* key : {"epsilon", "delta"}) {
    double& value = key == std::string_view("epsilon") ? out.epsilon : out.delta;
    if (budget) {
      value = s.number(key);
      if (s.has(key) && value <= 0) s.fail(key, "wanted a number above 0");
    } else if (s.has(key)) {
      s.fail(key, "unit \"none\" has no budget: take it out, or name the unit that it protects");
    }
  }
  if (out.delta >= 1) s.fail("delta", "wanted a number below 1");
}

DataPolicy read_data(Section root) {
  DataPolicy out;
  out.purpose = root.string("purpose");
  Section data = root.section("data");
  out.data_set = data.string("set");
  if (data.has("set") && !valid_name(out.data_set)) data.fail("set", "wanted a name of a-z, 0-9 and -");
  out.columns = read_words(data, "columns");
  out.records_at_most = static_cast<std::uint64_t>(read_bound(data, "records"));
  read_tasks(root.section("tasks"), out);
  out.study = read_bounds(root.section("study"));
  read_privacy(root.section("privacy"), out);
  if (auto node = root.maybe_section("node")) {
    out.node_platforms = read_words(*node, "platforms");
    check_platforms(*node, "platforms", out.node_platforms);
  }
  return out;
}

ComputePolicy read_compute(Section root) {
  ComputePolicy out;
  Section launch = root.section("launch");
  out.model_owners = read_names(launch, "model_owners", true);
  out.connect_among = read_names(launch, "connect", true);
  out.memory_at_most = launch.section("memory").size("at_most");
  out.connections_at_most = static_cast<std::uint32_t>(read_bound(launch, "connections", 1'000'000));
  out.duration_at_most = launch.section("duration").duration("at_most");
  return out;
}

Policy read(Section root) {
  Policy out;
  const std::string role = root.one_of("role", {"model", "data", "compute"});
  out.role = role == "model" ? Role::model : role == "data" ? Role::data : Role::compute;
  out.owner = root.string("owner");
  if (root.has("owner") && !valid_name(out.owner))
    root.fail("owner", "wanted a name of a-z, 0-9 and -, not \"anyone\"");
  Section signers = root.section("signers");
  out.signers_among = read_names(signers, "among", false);
  out.signers_at_least = static_cast<std::uint32_t>(signers.integer("at_least", 1, 1000));
  if (!out.signers_among.empty() && out.signers_at_least > out.signers_among.size())
    signers.fail("at_least", fmt::format("wants {} of {} signers", out.signers_at_least, out.signers_among.size()));
  Section valid = root.section("valid");
  out.valid_from = valid.time("from");
  out.valid_until = valid.time("until");
  if (valid.has("from") && valid.has("until") && out.valid_until <= out.valid_from)
    valid.fail("until", "wanted a time after valid.from");
  out.aggregator =
      read_tee(root.section("aggregator"), out.role == Role::compute ? Of::compute_aggregator : Of::aggregator);
  switch (out.role) {
    case Role::model:
      out.of = read_model(root);
      break;
    case Role::data:
      out.of = read_data(root);
      break;
    case Role::compute:
      out.of = read_compute(root);
      break;
  }
  return out;
}

}  // namespace

std::string_view name(Role role) {
  switch (role) {
    case Role::model:
      return "model";
    case Role::data:
      return "data";
    case Role::compute:
      return "compute";
  }
  return "";
}

bool valid_name(std::string_view name) {
  return !name.empty() && name.size() <= 63 && name.front() != '-' && name != "anyone" &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string_view::npos;
}

bool admits(const std::vector<std::string>& list, std::string_view name) {
  return list == std::vector<std::string>{"anyone"} || std::find(list.begin(), list.end(), name) != list.end();
}

std::string Policy::owner_text() const {
  return fmt::format("{} ({})", owner, name(role));
}

Result<Policy> parse_policy(std::string_view toml, std::string file) {
  if (toml.size() > largest_policy) return malformed(file, fmt::format("larger than {} bytes", largest_policy));
  auto config = base::Config::parse(toml, std::move(file));
  if (!config) return config.error();
  Policy out = read(config->root());
  if (auto done = config->finish(); !done) return done.error();
  out.text = std::string(toml);
  out.digest = base::sha256(base::view(toml));
  return out;
}

std::vector<std::string> policy_keys(std::string_view toml) {
  auto config = base::Config::parse(toml, "policy");
  if (!config) return {};
  read(config->root());
  return config->known();
}

base::Signature sign_policy(const Policy& policy, const base::PrivateKey& signer) {
  return signer.sign("cloister policy v1", base::view(policy.text));
}

bool policy_signed(const Policy& policy, const base::PublicKey& signer, const base::Signature& signature) {
  return signer.verifies("cloister policy v1", base::view(policy.text), signature);
}

}  // namespace cloister::attest

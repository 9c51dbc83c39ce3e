#include "participant/doctor.hpp"

#include <chrono>
#include <filesystem>
#include <fmt/format.h>
#include <sys/stat.h>

#include "base/deadline.hpp"
#include "base/file.hpp"
#include "base/log.hpp"
#include "participant/data/table.hpp"
#include "participant/formats.hpp"
#include "participant/ledger.hpp"
#include "participant/loading.hpp"
#include "participant/sandbox.hpp"
#include "protocols/channel/proxy.hpp"

namespace cloister::participant {
namespace {

namespace fs = std::filesystem;
using Grade = Check::Grade;

constexpr std::size_t data_cap = std::size_t{4} << 30;

std::string_view name(Grade grade) {
  return grade == Grade::ok ? "ok" : grade == Grade::warning ? "warning" : "wrong";
}

// An Error's text names what was wanted and what would fix it already.
Check wrong(std::string check, const Error& error, std::string remedy) {
  return {Grade::wrong, std::move(check), error.text(), std::move(remedy)};
}

Check check_charter(const attest::Charter& charter, const Config& config, Time at) {
  const auto left = std::chrono::duration_cast<std::chrono::days>(charter.not_after - at);
  const attest::Policy& policy = *charter.policy(config.owner);
  const std::string found = fmt::format("study {}, {}, founded by all owners, valid until {}", charter.manifest.study,
                                        base::digest_text(charter.digest), base::text(charter.not_after));
  if (left < std::chrono::days(14))
    return {Grade::warning, "charter", found + fmt::format(" ({} days)", left.count()),
            "found a successor before it ends"};
  if (at < policy.valid_from || at >= policy.valid_until)
    return {Grade::wrong, "charter", found + "; this hospital's policy is not in force now",
            "check the clock, or sign a new policy and found a charter with it"};
  return {Grade::ok, "charter", found, ""};
}

// The hospital's policy over what the study asks, before anybody asks it (the dry run).
Check check_agreement(const attest::Charter& charter, const Config& config, Time at) {
  const attest::Decision d =
      attest::judge(nullptr, {.charter = charter, .at = at, .dry_run = true}, *charter.policy(config.owner));
  if (d.allowed())
    return {Grade::ok, "agreement",
            fmt::format("this hospital's policy admits the study ({} requirements)", d.findings.size()), ""};
  return {Grade::wrong, "agreement", d.explain(),
          "the gate will refuse every task until policy and manifest agree in a new charter"};
}

Check check_key(const std::string& path, const std::optional<base::PublicKey>& in_charter, std::string_view role) {
  const std::string check = fmt::format("{} key", role);
  const auto key = load_own_key(path, in_charter, role);
  if (!key) return wrong(check, key.error(), "keep the charter's key here, readable by this user only (chmod 600)");
  return {Grade::ok, check, fmt::format("{} is the charter's, readable by this user only", path), ""};
}

Check check_data(const attest::Charter& charter, const Config& config) {
  const auto bytes = base::read_file(config.data_file, data_cap);
  if (!bytes) return wrong("data", bytes.error(), "put the exported CSV where [data] file says");
  const auto declaration = data::Declaration::of(charter.manifest);
  const auto table = data::read_table(base::text(*bytes), declaration, fs::path(config.data_file).filename().string());
  if (!table) return wrong("data", table.error(), "export the columns as the manifest declares them");
  const std::uint64_t bound =
      std::min(charter.policy(config.owner)->data()->records_at_most, charter.manifest.weight_at_most);
  std::string found = fmt::format("{} records follow the declared columns", table->records());
  for (const std::string& column : table->lacking)
    found += fmt::format("; column {} is not there (counts as missing)", column);
  if (table->records() == 0) return {Grade::wrong, "data", found, "export the records"};
  if (table->records() > bound)
    return {Grade::warning, "data", found + fmt::format("; policy and charter let {} train", bound),
            "the gate refuses if the run's split trains on more"};
  struct stat s = {};
  if (::stat(config.data_file.c_str(), &s) == 0 && (s.st_mode & S_IROTH) != 0)
    return {Grade::warning, "data", found + "; every user of this machine may read the file",
            "chmod o-r, or keep it in a folder of this user"};
  return {Grade::ok, "data", found, ""};
}

Check check_ledger(const attest::Charter& charter, const Config& config) {
  const std::string& set = charter.policy(config.owner)->data()->data_set;
  const std::string path = (fs::path(config.ledger_folder) / ledger_file_name(set)).string();
  if (!fs::exists(path))
    return {Grade::warning, "ledger", fmt::format("{} is not there: nothing counts as spent", path),
            "right for a first start; otherwise restore it from a copy first"};
  const auto state = Ledger::read(config.ledger_folder, set);
  if (!state) return wrong("ledger", state.error(), "restore the ledger from a copy");
  return {Grade::ok, "ledger",
          fmt::format("{}: {} runs, {} rounds recorded, every checksum holds", path, state->runs.size(),
                      state->rounds.size()),
          ""};
}

Check check_trainer(const attest::Charter& charter, const Config& config) {
  const auto digest = load_trainer(config, charter);
  if (!digest) return wrong("trainer", digest.error(), "install the trainer that the charter names");
  return {Grade::ok, "trainer", fmt::format("{} is the charter's ({})", config.trainer, base::digest_text(*digest)),
          ""};
}

// A program that everybody has, in the very sandbox that the trainer gets.
Check check_sandbox(const Config& config) {
  SandboxOptions o;
  o.program = "/bin/true";
  const auto bytes = base::read_file(o.program, std::size_t{1} << 26);
  if (!bytes) return wrong("sandbox", bytes.error(), "");
  o.digest = base::sha256(*bytes);
  o.required = config.isolation_required;
  auto child = SandboxedChild::start(o);
  if (!child)
    return wrong("sandbox", child.error(),
                 "let this user make namespaces (sysctl kernel.unprivileged_userns_clone), or run outside a container");
  for (const Guarantee& g : child->guarantees())
    if (!g.held())
      return {Grade::warning, "sandbox", summary(child->guarantees()),
              "run where the kernel offers more, or require it: isolation = \"required\""};
  return {Grade::ok, "sandbox", summary(child->guarantees()), ""};
}

// A clock before the charter's own beginning or a build from the future is wrong whatever the time zone.
Check check_clock(const attest::Charter& charter, const Config& config, Time at) {
  const attest::Policy& policy = *charter.policy(config.owner);
  const bool sane = at >= policy.valid_from && at < charter.not_after;
  return {sane ? Grade::ok : Grade::wrong, "clock",
          base::text(at) + (sane ? ", inside the charter's period" : ", outside the charter's period"),
          sane ? "" : "set this machine's clock (freshness is judged by it), or use the charter in force"};
}

Check check_tee(const std::string& platform) {
  const bool there = fs::is_directory(platform);
  return {there ? Grade::ok : Grade::wrong, "tee",
          platform + (there ? ": the node runs in a simulated TEE" : " is not a platform's folder"),
          there ? "" : "make one: cloister launcher identity --platform " + platform};
}

void examine_study(Diagnosis& d, const Config& config, Time at) {
  const auto charter = load_own_charter(config, at);
  if (!charter) {
    d.checks.push_back(wrong("charter", charter.error(),
                             "get the founded charter from the model owner, and check it: cloister charter show"));
    return;
  }
  const attest::Party& party = *charter->manifest.party(config.owner);
  d.checks.push_back(check_charter(*charter, config, at));
  d.checks.push_back(check_clock(*charter, config, at));
  const auto policy = check_own_policy(config, *charter);
  d.checks.push_back(policy ? Check{Grade::ok, "policy", "the charter holds it byte for byte", ""}
                            : wrong("policy", policy.error(), "keep the policy as it was signed"));
  d.checks.push_back(check_agreement(*charter, config, at));
  d.checks.push_back(check_key(config.tls_key, party.tls, "tls"));
  d.checks.push_back(check_key(config.witness_key, party.witness, "witness"));
  d.checks.push_back(check_data(*charter, config));
  d.checks.push_back(check_ledger(*charter, config));
  d.checks.push_back(check_trainer(*charter, config));
}

}  // namespace

bool Diagnosis::healthy() const {
  return std::none_of(checks.begin(), checks.end(), [](const Check& c) { return c.grade == Grade::wrong; });
}

std::string Diagnosis::text() const {
  std::string out;
  for (const Check& c : checks) {
    out += fmt::format("{:8} {:12} {}\n", name(c.grade), c.name, c.found);
    if (!c.remedy.empty()) out += fmt::format("{:21} fix: {}\n", "", c.remedy);
  }
  return out;
}

std::string Diagnosis::json() const {
  std::string out = fmt::format("{{\"healthy\":{},\"checks\":[", healthy());
  for (const Check& c : checks)
    out +=
        fmt::format("{}{{\"check\":{},\"grade\":\"{}\",\"found\":{},\"remedy\":{}}}", out.back() == '[' ? "" : ",",
                    base::json_escape(c.name), name(c.grade), base::json_escape(c.found), base::json_escape(c.remedy));
  return out + "]}";
}

Diagnosis examine(const std::string& config_file, std::string tee_platform, Time at) {
  Diagnosis d;
  const auto config = load_config(config_file);
  if (!config) {
    d.checks.push_back(wrong("config", config.error(), "see participant/README.md for every setting"));
    return d;
  }
  d.checks.push_back({Grade::ok, "config", config->file, ""});
  examine_study(d, *config, at);
  d.checks.push_back(check_sandbox(*config));
  if (tee_platform.empty()) tee_platform = config->tee_platform;
  if (!tee_platform.empty()) d.checks.push_back(check_tee(tee_platform));
  return d;
}

boost::asio::awaitable<void> examine_network(const std::string& config_file, Diagnosis& diagnosis, Time at) {
  const auto config = load_config(config_file);
  if (!config) co_return;
  const auto charter = load_own_charter(*config, at);
  if (!charter) co_return;
  const protocols::channel::Endpoint to{charter->manifest.aggregator_host, charter->manifest.aggregator_port,
                                        config->proxy};
  const std::string through = config->proxy.empty() ? "" : " through proxy " + config->proxy;
  Check check{Grade::ok, "network", to.text() + through + " answers", ""};
  try {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    co_await protocols::channel::dial(to, deadline);
  } catch (const Exception& e) {
    check.grade = e.error().kind == Error::Kind::unavailable ? Grade::warning : Grade::wrong;
    check.found = e.what();
    check.remedy = "between runs nobody listens there; during one, let this machine open TCP connections to " +
                   to.text() + through;
  }
  diagnosis.checks.push_back(std::move(check));
}

}  // namespace cloister::participant

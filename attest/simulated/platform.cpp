#include "attest/simulated/platform.hpp"

#include <filesystem>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "attest/evidence.hpp"
#include "base/config.hpp"
#include "base/file.hpp"

namespace cloister::attest::simulated {
namespace {

constexpr std::size_t toml_cap = 64 << 10;

std::string key_path(const std::string& folder) {
  return folder + "/platform.key";
}
std::string toml_path(const std::string& folder) {
  return folder + "/platform.toml";
}

}  // namespace

std::string PlatformFacts::toml() const {
  std::vector<std::string> quoted;
  for (const std::string& a : advisories) quoted.push_back('"' + a + '"');
  return fmt::format(
      "# What this simulated platform says about itself in its evidence. No hardware stands behind it.\n"
      "[tcb]\nversion = {}\nstatus = \"{}\"\ndate = {}\nadvisories = [{}]\n\n"
      "[guest]\ndebug = {}\nvmpl = {}\nsvn = {}\n\n"
      "[certificate]\nfrom = {}\nuntil = {}\n",
      tcb_version, tcb_status, base::text(tcb_date), fmt::join(quoted, ", "), debug, vmpl, guest_svn,
      base::text(not_before), base::text(not_after));
}

Result<PlatformFacts> PlatformFacts::parse(std::string_view toml, std::string file) {
  auto config = base::Config::parse(toml, std::move(file));
  if (!config) return config.error();
  base::Section root = config->root();
  PlatformFacts out;
  base::Section tcb = root.section("tcb");
  out.tcb_version = static_cast<std::uint64_t>(tcb.integer("version", 0, INT64_MAX));
  out.tcb_status = tcb.one_of("status", tcb_statuses());
  out.tcb_date = tcb.time("date");
  out.advisories = tcb.strings("advisories");
  if (out.advisories.size() > advisories_cap) tcb.fail("advisories", fmt::format("wanted at most {}", advisories_cap));
  for (const std::string& a : out.advisories)
    if (a.empty() || a.size() > text_cap)
      tcb.fail("advisories", fmt::format("wanted 1 to {} bytes each, found \"{}\"", text_cap, a));
  base::Section guest = root.section("guest");
  out.debug = guest.boolean("debug");
  out.vmpl = static_cast<std::uint32_t>(guest.integer("vmpl", 0, 3));
  out.guest_svn = static_cast<std::uint32_t>(guest.integer("svn", 0, UINT32_MAX));
  base::Section certificate = root.section("certificate");
  out.not_before = certificate.time("from");
  out.not_after = certificate.time("until");
  if (auto ok = config->finish(); !ok) return ok.error();
  return out;
}

Platform::Platform(base::PrivateKey key, PlatformFacts facts) : key_(std::move(key)), facts_(std::move(facts)) {
  certificate_ = {key_.public_key(), facts_.not_before, facts_.not_after, {}};
  certificate_.signature = key_.sign("cloister simulated platform 1", certificate_.signed_bytes());
}

Result<Platform> Platform::create(const std::string& folder) {
  namespace fs = std::filesystem;
  std::error_code e;
  const bool has_key = fs::exists(key_path(folder), e), has_toml = fs::exists(toml_path(folder), e);
  if (has_key && has_toml) return load(folder);
  if (has_key != has_toml)
    return base::malformed(
        folder, fmt::format("has {} but no {}; a platform is both, or make a new folder",
                            has_key ? "platform.key" : "platform.toml", has_key ? "platform.toml" : "platform.key"));
  PlatformFacts facts;
  const auto today = std::chrono::floor<std::chrono::days>(base::now());
  facts.not_before = today - std::chrono::days(1);  // clocks of other owners may be a little behind
  facts.not_after = today + std::chrono::days(3650);
  if (auto ok = base::make_folder(folder, 0700); !ok) return ok.error();
  const auto key = base::PrivateKey::generate();
  if (auto ok = base::write_file(key_path(folder), base::view(key.pem()), 0600); !ok) return ok.error();
  if (auto ok = base::write_file(toml_path(folder), base::view(facts.toml())); !ok) return ok.error();
  return Platform(key, facts);
}

Result<Platform> Platform::load(const std::string& folder) {
  auto key = base::PrivateKey::load(key_path(folder));
  if (!key) return key.error();
  auto toml = base::read_file(toml_path(folder), toml_cap);
  if (!toml) return toml.error();
  auto facts = PlatformFacts::parse(base::text(*toml), toml_path(folder));
  if (!facts) return facts.error();
  return Platform(std::move(*key), std::move(*facts));
}

std::string Platform::identity() const {
  return "simulated:" + base::hex(certificate_.identity());
}

Report Platform::sign(Report report) const {
  report.certificate = certificate_;
  report.tcb_version = facts_.tcb_version;
  report.tcb_status = facts_.tcb_status;
  report.tcb_date = facts_.tcb_date;
  report.advisories = facts_.advisories;
  report.debug = facts_.debug;
  report.vmpl = facts_.vmpl;
  report.guest_svn = facts_.guest_svn;
  report.signature = key_.sign("cloister simulated evidence 1", report.signed_bytes());
  return report;
}

Bytes Platform::attest(const Measurement& measurement, const Array<32>& host_data, const Array<64>& report_data,
                       Time at) const {
  Report report;
  report.measurement = measurement;
  report.host_data = host_data;
  report.report_data = report_data;
  report.made_at = at;
  return Evidence{"simulated", sign(std::move(report)).serialize()}.serialize();
}

}  // namespace cloister::attest::simulated

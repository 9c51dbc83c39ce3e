#include "launcher/config.hpp"

#include <filesystem>

#include "base/config.hpp"
#include "base/file.hpp"

namespace cloister::launcher {
namespace {

constexpr std::size_t config_cap = 256 << 10;

}  // namespace

Result<Config> parse_config(std::string_view toml, const std::string& file) {
  auto config = base::Config::parse(toml, file);
  if (!config) return config.error();
  const std::filesystem::path folder = std::filesystem::path(file).parent_path();
  const auto path = [&](const std::string& p) { return p.empty() ? p : (folder / p).string(); };
  base::Section root = config->root();
  Config out;
  for (const std::string& c : root.strings("charters")) out.charters.push_back(path(c));
  if (root.has("charters") && out.charters.empty()) root.fail("charters", "wanted at least one founded charter");
  out.log = path(root.string("log"));
  out.work = path(root.string("work"));
  out.grant_lifetime = root.duration("grant_lifetime");
  if (root.has("grant_lifetime") &&
      (out.grant_lifetime < std::chrono::seconds(2) || out.grant_lifetime > std::chrono::hours(24)))
    root.fail("grant_lifetime", "wanted \"2s\" to \"24h\"");
  base::Section keys = root.section("keys");
  out.tls_key = path(keys.string("tls"));
  out.grant_key = path(keys.string("grant"));
  base::Section tee = root.section("tee");
  tee.one_of("kind", {"simulated"});
  out.tee_program = path(tee.string("program"));
  out.platform = path(tee.string("platform"));
  for (base::Section a : root.sections("aggregator"))
    out.aggregators.push_back(
        {path(a.string("program")), a.maybe_strings("arguments").value_or(std::vector<std::string>{})});
  if (out.aggregators.empty()) root.fail("aggregator", "wanted at least one [[aggregator]] with its program");
  if (auto ok = config->finish(); !ok) return ok.error();
  return out;
}

Result<Config> load_config(const std::string& path) {
  auto toml = base::read_file(path, config_cap);
  if (!toml) return toml.error();
  return parse_config(base::text(*toml), path);
}

}  // namespace cloister::launcher

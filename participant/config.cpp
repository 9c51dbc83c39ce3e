#include "participant/config.hpp"

#include <filesystem>

#include "base/file.hpp"

namespace cloister::participant {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t config_cap = 1 << 20;

// Every path is made absolute at once: a guest in a TEE and a sandbox have other current folders.
std::string resolve(const fs::path& folder, const std::string& path) {
  return path.empty() ? path : fs::absolute(folder / path).lexically_normal().string();
}

void check_proxy(base::Section& root, const std::string& proxy) {
  const auto colon = proxy.rfind(':');
  if (!proxy.empty() &&
      (colon == std::string::npos || colon == 0 || colon + 1 == proxy.size() || proxy.find("://") != std::string::npos))
    root.fail("proxy", "wanted \"host:port\" of an HTTP CONNECT proxy, found \"" + proxy + "\"");
}

void read_trainer(base::Section trainer, Config& out) {
  out.trainer = trainer.string("program");
  out.isolation_required = trainer.one_of("isolation", {"required", "best-effort"}) == "required";
  if (trainer.has("memory")) out.trainer_memory = trainer.size("memory");
  if (const auto cpu = trainer.maybe_duration("cpu")) out.trainer_cpu = std::chrono::ceil<std::chrono::seconds>(*cpu);
  out.trainer_readable = trainer.maybe_strings("readable").value_or(std::vector<std::string>{});
}

}  // namespace

Result<Config> parse_config(std::string_view toml, const std::string& file) {
  Result<base::Config> document = base::Config::parse(toml, fs::path(file).filename().string());
  if (!document) return document.error();
  base::Section root = document->root();
  Config out;
  out.file = fs::absolute(file).lexically_normal().string();
  out.owner = root.string("owner");
  out.charter = root.string("charter");
  out.policy = root.string("policy");
  out.proxy = root.maybe_string("proxy").value_or("");
  check_proxy(root, out.proxy);
  base::Section keys = root.section("keys");
  out.tls_key = keys.string("tls");
  out.witness_key = keys.string("witness");
  out.data_file = root.section("data").string("file");
  out.ledger_folder = root.section("ledger").string("folder");
  read_trainer(root.section("trainer"), out);
  out.log_file = root.section("log").string("file");
  if (auto tee = root.maybe_section("tee")) out.tee_platform = tee->string("platform");
  if (auto done = document->finish(); !done) return done.error();
  const fs::path folder = fs::path(out.file).parent_path();
  for (std::string* path : {&out.charter, &out.policy, &out.tls_key, &out.witness_key, &out.data_file,
                            &out.ledger_folder, &out.trainer, &out.log_file, &out.tee_platform})
    *path = resolve(folder, *path);
  for (std::string& path : out.trainer_readable) path = resolve(folder, path);
  return out;
}

Result<Config> load_config(const std::string& file) {
  const Result<Bytes> bytes = base::read_file(file, config_cap);
  if (!bytes) return bytes.error();
  return parse_config(base::text(*bytes), file);
}

}  // namespace cloister::participant

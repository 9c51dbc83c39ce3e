#pragma once
// participant.toml: where a hospital's node finds its things. Strict: every mistake at once, with file, line and
// nearest name.

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "base/config.hpp"

namespace cloister::participant {

struct Config {
  std::string owner;
  std::string charter;  ///< founded
  std::string policy;   ///< this owner's, as it was signed
  std::string proxy;    ///< HTTP CONNECT, "host:port"; empty: dial directly
  std::string tls_key, witness_key;
  std::string data_file;
  std::string ledger_folder;  ///< the ledger, updates on their way out, the record of each run, the withdrawal
  std::string trainer;
  bool isolation_required = false;
  std::uint64_t trainer_memory = std::uint64_t{8} << 30;  ///< bytes
  std::chrono::seconds trainer_cpu{0};                    ///< 0: unlimited
  std::vector<std::string> trainer_readable;              ///< beside its libraries: an interpreter's packages
  std::string log_file;
  std::string tee_platform;  ///< of this node's own simulated TEE; empty: none

  std::string file;  ///< where it was read from
};

/// Relative paths are relative to the folder of `file`.
Result<Config> parse_config(std::string_view toml, const std::string& file);
Result<Config> load_config(const std::string& file);

}  // namespace cloister::participant

#pragma once
// launcher.toml. Where to listen, whom to serve and what to allow stand in the charters, not here.

#include <chrono>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace cloister::launcher {

/// Paths are absolute or relative to the working directory: the loader has put the file's folder before relative ones.
struct Config {
  std::vector<std::string> charters;  ///< founded charters that name this launcher
  std::string tls_key;                ///< files
  std::string grant_key;
  std::chrono::milliseconds grant_lifetime{};  ///< a grant is renewed at half of it
  std::string log;                             ///< JSON lines
  std::string work;                            ///< folder with aggregator.log: what instances print
  std::string tee_program;                     ///< cloister-simulated-tee
  std::string platform;                        ///< its platform folder
  struct Aggregator {
    std::string program;
    std::vector<std::string> arguments;
  };
  std::vector<Aggregator> aggregators;  ///< what may be started, chosen by measurement
};

Result<Config> parse_config(std::string_view toml, const std::string& file);
Result<Config> load_config(const std::string& path);

}  // namespace cloister::launcher

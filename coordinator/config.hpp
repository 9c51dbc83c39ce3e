#pragma once
// coordinator.toml (README.md shows one): strict, and checked against the charters before anything listens.

#include <chrono>
#include <string>
#include <vector>

#include "attest/charter.hpp"
#include "base/crypto.hpp"

namespace cloister::coordinator {

/// A study that this coordinator keeps: its founded charter and the model that its runs start from.
struct StudyFiles {
  attest::Charter charter;
  std::string initial_model;  ///< path of a model file whose SHA-256 is the manifest's
  std::uint64_t model_length = 0;
};

struct Configuration {
  std::vector<StudyFiles> studies;
  base::PrivateKey tls;    ///< the model owner's TLS key, as every charter names it
  base::PrivateKey order;  ///< signs run orders
  std::string host;        ///< where to listen: `listen`, or the model owner's host in the manifest
  std::uint16_t port = 0;
  std::string database;  ///< folder
  std::string log;       ///< JSON lines
  std::string proxy;     ///< "host:port" of an HTTP CONNECT proxy towards launcher and enclave, or empty
  std::chrono::milliseconds instance_idle{};  ///< an instance without a run is ended after this
};

/// Reads the file and all that it names; paths are relative to its folder. Errors: malformed (all mistakes of the file
/// at once), untrusted (a key, policy or initial model is not the one in the charter), denied (a charter is not
/// founded).
Result<Configuration> load_configuration(const std::string& path, Time at);

}  // namespace cloister::coordinator

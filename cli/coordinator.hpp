#pragma once
// What the model owner runs.

#include <string>

namespace cloister::cli {

struct CoordinatorOptions {
  std::string config;
};
/// Listens until SIGINT or SIGTERM. What it was doing is picked up by the next start.
int run_coordinator(const CoordinatorOptions& options, bool json);
/// Reads the configuration with all that it names, and says what it would serve.
int run_coordinator_check(const CoordinatorOptions& options, bool json);

}  // namespace cloister::cli

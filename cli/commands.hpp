#pragma once
// The subcommands, one file each (keygen.cpp has setup_keygen), in the order of `cloister --help`.

#include <vector>

#include "cli/command.hpp"

namespace cloister::cli {

void setup_keygen(CLI::App& app, Context& context);       // keygen.cpp
void setup_reference(CLI::App& app, Context& context);    // keygen.cpp
void setup_policy(CLI::App& app, Context& context);       // policy.cpp
void setup_charter(CLI::App& app, Context& context);      // charter.cpp
void setup_coordinator(CLI::App& app, Context& context);  // coordinator.cpp
void setup_run(CLI::App& app, Context& context);          // run_options.cpp
void setup_measure(CLI::App& app, Context& context);      // measure.cpp
void setup_launcher(CLI::App& app, Context& context);     // launcher.cpp
void setup_participant(CLI::App& app, Context& context);  // participant.cpp

inline const std::vector<Setup> subcommands = {
    setup_keygen, setup_reference, setup_policy,   setup_charter,     setup_coordinator,
    setup_run,    setup_measure,   setup_launcher, setup_participant,
};

}  // namespace cloister::cli

#pragma once
// The subcommands, one file each (keygen.cpp has setup_keygen), in the order of `cloister --help`.

#include <vector>

#include "cli/command.hpp"

namespace cloister::cli {

inline const std::vector<Setup> subcommands = {
};

}  // namespace cloister::cli

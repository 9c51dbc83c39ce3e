#pragma once
// How a subcommand looks: options in a struct, setup_ registers it, run_ does it and gives an exit code, so that tests
// can call it.

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "cli/exit.hpp"

namespace cloister::cli {

/// What main hands to every subcommand. `chosen` is set by the callback of the subcommand that was given.
struct Context {
  bool json = false;            ///< facts as one JSON document on standard output
  std::function<int()> chosen;  ///< gives the exit code
};

/// Registers a subcommand; the table of all is in commands.hpp.
using Setup = void (*)(CLI::App& app, Context& context);

}  // namespace cloister::cli

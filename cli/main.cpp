#include <cstdio>
#include <exception>

#include "base/result.hpp"
#include "cli/command.hpp"
#include "cli/commands.hpp"

// `cloister`: one command, a file per subcommand. Exit codes: 0 done, 1 failed, 2 wrong use, 3 denied by a policy.
int main(int argc, char** argv) {
  using namespace cloister;
  CLI::App app("Cloister: confidential federated learning", "cloister");
  app.set_version_flag("--version", CLOISTER_VERSION);
  app.require_subcommand(1);
  cli::Context context;
  app.add_flag("--json", context.json, "print facts as JSON on standard output");
  app.fallthrough();
  for (cli::Setup setup : cli::subcommands) setup(app, context);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? cli::done : cli::wrong_use;
  }
  try {
    return context.chosen ? context.chosen() : cli::wrong_use;
  } catch (const Exception& e) {
    std::fprintf(stderr, "cloister: %s\n", e.what());
    return e.error().kind == Error::Kind::denied ? cli::denied : cli::failed;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "cloister: %s\n", e.what());
    return cli::failed;
  }
}

#include <google/protobuf/stubs/logging.h>

#include <cstdio>
#include <exception>

#include "base/result.hpp"
#include "cli/command.hpp"
#include "cli/commands.hpp"

// `cloister`: one command, a file per subcommand. Exit codes: 0 done, 1 failed, 2 wrong use, 3 denied by a policy.
int main(int argc, char** argv) {
  using namespace cloister;
  google::protobuf::SetLogHandler(nullptr);  // it would write to standard error at a peer's will
  CLI::App app(
      "Cloister: confidential federated learning. Data owners, a model owner and a compute owner train one model "
      "inside an\n"
      "attested enclave, each under its own signed policy.",
      "cloister");
  app.set_version_flag("--version", "cloister " CLOISTER_VERSION);
  app.require_subcommand(1);
  cli::Context context;
  app.add_flag("--json", context.json, "print facts as JSON on standard output");
  app.fallthrough();
  for (cli::Setup setup : cli::subcommands) setup(app, context);
  // After the subcommands, which would inherit it.
  app.footer(
      "Who runs what:\n"
      "  every owner          keygen, policy, charter\n"
      "  the model owner      coordinator; its submitters: run\n"
      "  a data owner         participant\n"
      "  the compute owner    launcher\n"
      "Exit codes: 0 done, 1 failed, 2 wrong use, 3 denied by a policy (every reason is on standard error).");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? cli::done : cli::wrong_use;
  }
  try {
    return context.chosen ? context.chosen() : cli::wrong_use;
  } catch (const cli::WrongUse& e) {
    std::fprintf(stderr, "cloister: %s\n", e.what());
    return cli::wrong_use;
  } catch (const Exception& e) {
    std::fprintf(stderr, "cloister: %s\n", e.what());
    return e.error().kind == Error::Kind::denied ? cli::denied : cli::failed;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "cloister: %s\n", e.what());
    return cli::failed;
  }
}

// `cloister measure`: what evidence for a program states, so that policies and manifests can name it.

#include "attest/simulated/measure.hpp"

#include <fmt/format.h>

#include "base/log.hpp"
#include "cli/command.hpp"

namespace cloister::cli {
namespace {

struct Options {
  std::string program;
  std::vector<std::string> arguments;
};

int run_measure(const Options& o, bool json) {
  const std::string measured = base::hex(attest::simulated::measure_file(o.program, o.arguments).value());
  if (json)
    fmt::print("{{\"program\": {}, \"tee\": \"simulated\", \"measurement\": \"{}\"}}\n", base::json_escape(o.program),
               measured);
  else
    fmt::print("{}\n", measured);
  return done;
}

}  // namespace

void setup_measure(CLI::App& app, Context& context) {
  auto o = std::make_shared<Options>();
  CLI::App* c = app.add_subcommand("measure", "what the simulated TEE measures of a program and its fixed arguments");
  c->add_option("PROGRAM", o->program, "an ELF program")->required();
  c->add_option("ARGUMENTS", o->arguments, "its fixed arguments, after --");
  c->callback([o, &context] { context.chosen = [o, &context] { return run_measure(*o, context.json); }; });
}

}  // namespace cloister::cli

// `cloister coordinator …`: the model owner's service.

#include "cli/coordinator.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <csignal>
#include <fmt/format.h>
#include <unistd.h>

#include "base/process.hpp"
#include "cli/command.hpp"
#include "coordinator/service.hpp"

namespace cloister::cli {

namespace {

/// A dial that is under way may take its whole deadline to give up; nothing is lost by not waiting for it.
constexpr std::chrono::seconds goodbye{3};

}  // namespace

int run_coordinator(const CoordinatorOptions& options, bool) {
  base::forbid_core_dumps().value();  // keys, models
  const coordinator::Configuration configuration = coordinator::load_configuration(options.config, base::now()).value();
  const auto log = base::Log::open("coordinator", configuration.log).value();
  const auto store = coordinator::Store::open(configuration.database);
  coordinator::NetworkPeers peers(configuration.tls, configuration.proxy, log);

  boost::asio::io_context io(1);
  coordinator::Service service(io.get_executor(), configuration, *store, peers, log);
  boost::asio::signal_set signals(io, SIGINT, SIGTERM);
  bool stopped = false;
  signals.async_wait([&](const boost::system::error_code& failed, int number) {
    if (failed) return;
    log->event("stopping", fmt::format("signal {}: runs and instances stay as they are, for the next start", number));
    stopped = true;
    service.stop();
  });
  std::signal(SIGPIPE, SIG_IGN);
  service.start();
  while (!stopped && service.failure().empty() && io.run_one() > 0) continue;
  signals.cancel();
  io.run_for(goodbye);
  if (!service.failure().empty()) fmt::print(stderr, "cloister: {}\n", service.failure());
  std::fflush(nullptr);
  // Every change is on the disk already: the store needs no goodbye, and a pending dial gets none.
  ::_exit(service.failure().empty() ? done : failed);
}

int run_coordinator_check(const CoordinatorOptions& options, bool json) {
  const coordinator::Configuration configuration = coordinator::load_configuration(options.config, base::now()).value();
  std::string list;
  for (const coordinator::StudyFiles& study : configuration.studies) {
    const attest::Manifest& manifest = study.charter.manifest;
    if (json)
      list += fmt::format(R"({}{{"study": {}, "charter": "{}", "not_after": "{}"}})", list.empty() ? "" : ", ",
                          base::json_escape(manifest.study), base::digest_text(study.charter.digest),
                          base::text(study.charter.not_after));
    else
      fmt::print("{}  {}  until {}\n", manifest.study, base::digest_text(study.charter.digest),
                 base::text(study.charter.not_after));
  }
  if (json)
    fmt::print(R"({{"host": {}, "port": {}, "studies": [{}]}})"
               "\n",
               base::json_escape(configuration.host), configuration.port, list);
  else
    fmt::print("would listen on {}:{}\n", configuration.host, configuration.port);
  return done;
}

void setup_coordinator(CLI::App& app, Context& context) {
  CLI::App& command =
      *app.add_subcommand("coordinator", "the model owner's service: takes submissions, drives runs, keeps records");
  command.require_subcommand(1);
  auto add = [&](const char* name, const char* help, int (*todo)(const CoordinatorOptions&, bool)) {
    auto options = std::make_shared<CoordinatorOptions>();
    CLI::App* sub = command.add_subcommand(name, help);
    sub->add_option("--config", options->config, "coordinator.toml (coordinator/README.md shows one)")
        ->required()
        ->check(CLI::ExistingFile);
    sub->callback([&context, options, todo] {
      context.chosen = [&context, options, todo] { return todo(*options, context.json); };
    });
  };
  add("run", "listen until it is told to stop; a killed one is simply started again", run_coordinator);
  add("check", "read the configuration and all that it names", run_coordinator_check);
}

}  // namespace cloister::cli

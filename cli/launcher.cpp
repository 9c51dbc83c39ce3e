// `cloister launcher run|identity`: the compute owner's agent.

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/signal_set.hpp>
#include <csignal>
#include <filesystem>
#include <fmt/format.h>

#include "attest/simulated/measure.hpp"
#include "base/file.hpp"
#include "base/process.hpp"
#include "cli/command.hpp"
#include "launcher/config.hpp"
#include "launcher/service.hpp"

namespace cloister::cli {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

constexpr std::size_t charter_cap = 64 << 20;

struct Options {
  std::string config;
  std::string platform, tee;
};

std::vector<attest::Charter> load_charters(const launcher::Config& config) {
  std::vector<attest::Charter> out;
  for (const std::string& path : config.charters)
    out.push_back(attest::load_charter(base::read_file(path, charter_cap).value(), path, base::now()).value());
  return out;
}

std::vector<launcher::Binary> measure(const launcher::Config& config, base::Log& log) {
  std::vector<launcher::Binary> out;
  for (const auto& a : config.aggregators) {
    const auto measurement = attest::simulated::measure_file(a.program, a.arguments).value();
    out.push_back({a.program, a.arguments, base::copy(measurement)});
    log.event("aggregator", fmt::format("{} measures {}", a.program, base::hex(measurement)),
              {{"program", a.program}, {"measurement", base::hex(measurement)}});
  }
  return out;
}

tcp::acceptor listen(asio::io_context& io, const attest::Party& party) {
  boost::system::error_code e;
  const auto found = tcp::resolver(io).resolve(party.host, std::to_string(party.port), tcp::resolver::passive, e);
  if (e || found.empty())
    throw Exception(base::unavailable(fmt::format("{}:{}", party.host, party.port),
                                      "cannot resolve the charter's address: " + e.message()));
  tcp::acceptor out(io);
  const auto endpoint = found.begin()->endpoint();
  out.open(endpoint.protocol());
  out.set_option(tcp::acceptor::reuse_address(true));
  if (out.bind(endpoint, e); !e) out.listen(asio::socket_base::max_listen_connections, e);
  if (e)
    throw Exception(
        base::unavailable(fmt::format("{}:{}", party.host, party.port), "cannot listen there: " + e.message()));
  return out;
}

int run(const Options& o) {
  base::forbid_core_dumps().value();  // the grant key
  const launcher::Config config = launcher::load_config(o.config).value();
  base::make_folder(config.work, 0700).value();
  const auto tls = base::PrivateKey::load(config.tls_key).value();
  const auto grant = base::PrivateKey::load(config.grant_key).value();
  auto charters = load_charters(config);
  const auto log = base::Log::open("launcher " + charters.front().manifest.compute_owner().owner, config.log).value();
  const auto agent = launcher::Agent::make({tls.public_key(), grant, config.grant_lifetime}, std::move(charters),
                                           measure(config, *log))
                         .value();
  log->set_simulated(agent.simulated());

  asio::io_context io(1);
  launcher::Service service(listen(io, agent.party()),
                            {agent, tls, {config.tee_program, config.platform}, config.work, log});
  asio::signal_set signals(io, SIGINT, SIGTERM);
  signals.async_wait([&](boost::system::error_code e, int) {
    if (!e) service.stop();
  });
  std::exception_ptr failure;
  asio::co_spawn(io, service.run(), [&](std::exception_ptr e) {
    failure = e;
    signals.cancel();
  });
  log->event("listening", fmt::format("listening on {}:{}", agent.party().host, agent.party().port),
             {{"host", agent.party().host}, {"port", agent.party().port}});
  io.run();
  if (failure) std::rethrow_exception(failure);
  log->event("stopped", "stopped");
  return done;
}

std::string beside_this_program(const std::string& name) {
  return std::filesystem::read_symlink("/proc/self/exe").replace_filename(name).string();
}

int identity(const Options& o, bool json) {
  launcher::TeeSettings tee{o.tee.empty() ? beside_this_program("cloister-simulated-tee") : o.tee, o.platform};
  if (!o.config.empty()) {
    const launcher::Config config = launcher::load_config(o.config).value();
    tee = {config.tee_program, config.platform};
  }
  if (tee.platform.empty())
    throw Exception(base::malformed("launcher identity", "wanted --config FILE or --platform DIR"));
  const std::string found = launcher::platform_identity(tee).value();
  if (json)
    fmt::print("{{\"identity\": {}}}\n", base::json_escape(found));
  else
    fmt::print("{}\n", found);
  return done;
}

}  // namespace

void setup_launcher(CLI::App& app, Context& context) {
  CLI::App* c = app.add_subcommand("launcher", "the compute owner's agent")->require_subcommand(1);
  auto o = std::make_shared<Options>();
  CLI::App* r = c->add_subcommand("run", "start aggregators for the charters in launcher.toml");
  r->add_option("--config", o->config, "launcher.toml")->required();
  r->callback([o, &context] { context.chosen = [o] { return run(*o); }; });
  CLI::App* i = c->add_subcommand("identity", "this machine's platform identity, for the compute owner's policy");
  i->add_option("--config", o->config, "launcher.toml");
  i->add_option("--platform", o->platform, "folder of the simulated platform; made when it is not there");
  i->add_option("--tee", o->tee, "cloister-simulated-tee; the one beside this program when not given");
  i->callback([o, &context] { context.chosen = [o, &context] { return identity(*o, context.json); }; });
}

}  // namespace cloister::cli

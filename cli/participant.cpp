// `cloister participant …`: a hospital's node, its ledger, its way out of a study, and a look at whether all is well.

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <csignal>
#include <filesystem>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <memory>

#include "attest/simulated/guest.hpp"
#include "base/encoding.hpp"
#include "base/file.hpp"
#include "base/process.hpp"
#include "cli/command.hpp"
#include "participant/doctor.hpp"
#include "participant/guest.hpp"
#include "participant/loading.hpp"
#include "participant/node.hpp"

namespace cloister::cli {
namespace {

namespace asio = boost::asio;

struct Options {
  std::string config = "participant.toml";
  std::string tee;
  std::uint32_t runs = 0;
  bool once = false;
  std::string reason;
  bool undo = false;
  std::string out;
};

int exit_code(participant::NodeEnd::Kind kind) {
  switch (kind) {
    case participant::NodeEnd::Kind::done:
    case participant::NodeEnd::Kind::stopped:
      return done;
    case participant::NodeEnd::Kind::denied:
      return denied;
    case participant::NodeEnd::Kind::failed:
      return failed;
  }
  return failed;
}

int serve(participant::NodeOptions options) {
  std::signal(SIGPIPE, SIG_IGN);
  const auto log = base::Log::open("participant " + options.config.owner, options.config.log_file).value();
  asio::io_context io(1);
  const auto node = participant::Node::open(std::move(options), io.get_executor(), log).value();
  asio::signal_set signals(io, SIGINT, SIGTERM);
  signals.async_wait([&](boost::system::error_code e, int number) {
    if (!e) node->stop(fmt::format("stopped by signal {}", number));
  });
  participant::NodeEnd end;
  std::exception_ptr failure;
  asio::co_spawn(io, node->run(), [&](std::exception_ptr e, participant::NodeEnd how) {
    failure = e;
    end = std::move(how);
    signals.cancel();
  });
  io.run();
  if (failure) std::rethrow_exception(failure);
  fmt::print(stderr, "cloister participant: {}\n", end.reason);
  return exit_code(end.kind);
}

std::string own_program() {
  return std::filesystem::read_symlink("/proc/self/exe").string();
}

int run(const Options& o) {
  base::forbid_core_dumps().value();  // keys, an update, results
  participant::Config config = participant::load_config(o.config).value();
  const std::string platform = o.tee.empty() ? config.tee_platform : std::filesystem::absolute(o.tee).string();
  if (platform.empty()) return serve({.config = std::move(config), .runs = o.runs, .once = o.once});
  const auto charter = participant::load_own_charter(config, base::now()).value();
  participant::GuestDocument document{.config_file = config.file,
                                      .config = base::text(base::read_file(config.file, 1 << 20).value()),
                                      .runs = o.runs,
                                      .once = o.once};
  const std::string tee = std::filesystem::path(own_program()).replace_filename("cloister-simulated-tee").string();
  throw Exception(participant::become_tee(tee, platform, own_program(), charter.digest, document));
}

// Inside the TEE. No option steers it: what is not measured comes in the launch document.
int guest() {
  auto tee = attest::simulated::Guest::open().value();
  const auto document = participant::GuestDocument::parse(tee.document().value()).value();
  participant::NodeOptions options;
  options.config = participant::parse_config(document.config, document.config_file).value();
  options.runs = document.runs;
  options.once = document.once;
  options.attester = tee.attester();
  return serve(std::move(options));
}

/// The data set whose ledger this node keeps.
std::string data_set_of(const participant::Config& config) {
  const auto charter = attest::parse_charter(base::read_file(config.charter, 64 << 20).value(), config.charter).value();
  const attest::Policy* policy = charter.policy(config.owner);
  if (policy == nullptr || policy->data() == nullptr)
    throw Exception(
        base::denied(config.file, fmt::format("owner: the charter has no data owner \"{}\"", config.owner)));
  return policy->data()->data_set;
}

int ledger(const Options& o, bool json) {
  const participant::Config config = participant::load_config(o.config).value();
  const auto state = participant::Ledger::read(config.ledger_folder, data_set_of(config)).value();
  fmt::print("{}{}", json ? state.json() : state.text(), json ? "\n" : "");
  return done;
}

std::string receipt_file(const participant::RoundId& id) {
  return fmt::format("{}-run-{}-round-{}.receipt", base::hex(View(id.charter).first(8)), id.run, id.round);
}

int receipts(const Options& o, bool json) {
  const participant::Config config = participant::load_config(o.config).value();
  const auto all = participant::Ledger::read_receipts(config.ledger_folder, data_set_of(config)).value();
  if (!o.out.empty()) base::make_folder(o.out, 0700).value();
  std::vector<std::string> lines;
  for (const participant::LedgerReceipt& r : all) {
    const std::string charter = base::digest_text(r.id.charter), digest = base::digest_text(r.digest);
    lines.push_back(json ? fmt::format(R"({{"charter":"{}","run":{},"round":{},"receipt":"{}","acknowledgements":{}}})",
                                       charter, r.id.run, r.id.round, digest, r.acknowledgements.size())
                         : fmt::format("run {} round {}: {}, {} witnesses (charter {})", r.id.run, r.id.round, digest,
                                       r.acknowledgements.size(), charter));
    if (o.out.empty()) continue;
    base::Writer w;
    w.field(r.receipt).u32(static_cast<std::uint32_t>(r.acknowledgements.size()));
    for (const Bytes& a : r.acknowledgements) w.field(a);
    base::write_file((std::filesystem::path(o.out) / receipt_file(r.id)).string(), w.bytes(), 0600).value();
  }
  fmt::print("{}{}{}\n", json ? "[" : "", fmt::join(lines, json ? "," : "\n"), json ? "]" : "");
  return done;
}

int withdraw(const Options& o, bool json) {
  const participant::Config config = participant::load_config(o.config).value();
  const auto charter = participant::load_own_charter(config, base::now()).value();
  if (o.undo) {
    const bool there = participant::take_back(config.ledger_folder, charter.digest).value();
    if (json)
      fmt::print("{{\"withdrawn\": false, \"was\": {}}}\n", there);
    else
      fmt::print("{}\n",
                 there ? "taken back; an instance that has seen it goes on without this hospital, the next one does not"
                       : "no withdrawal was in force");
    return done;
  }
  const attest::Party& party = *charter.manifest.party(config.owner);
  const auto key = participant::load_own_key(config.witness_key, party.witness, "witness").value();
  const auto statement =
      participant::withdraw(config.ledger_folder, config.owner, charter, key, o.reason, base::now()).value();
  if (json)
    fmt::print("{{\"withdrawn\": true, \"study\": {}, \"serial\": {}, \"from\": \"{}\"}}\n",
               base::json_escape(statement.study), statement.serial, base::text(statement.from));
  else
    fmt::print(
        "{} withdraws from study {} (statement {}, {}). The running node tells the aggregator now, a later one at its "
        "start; the next "
        "round runs without this hospital, or fails.\n",
        config.owner, statement.study, statement.serial, base::text(statement.from));
  return done;
}

int doctor(const Options& o, bool json) {
  participant::Diagnosis diagnosis = participant::examine(o.config, o.tee, base::now());
  asio::io_context io(1);
  asio::co_spawn(io, participant::examine_network(o.config, diagnosis, base::now()), [](std::exception_ptr e) {
    if (e) std::rethrow_exception(e);
  });
  io.run();
  fmt::print("{}{}", json ? diagnosis.json() : diagnosis.text(), json ? "\n" : "");
  return diagnosis.healthy() ? done : failed;
}

}  // namespace

void setup_participant(CLI::App& app, Context& context) {
  auto o = std::make_shared<Options>();
  CLI::App* participant = app.add_subcommand("participant", "a data owner's node")->require_subcommand(1);
  const auto command = [&](const char* name, const char* what, auto what_to_do) {
    CLI::App* c = participant->add_subcommand(name, what);
    c->add_option("--config", o->config, "the node's configuration")->capture_default_str();
    c->callback([o, &context, what_to_do] {
      context.chosen = [o, &context, what_to_do] { return what_to_do(*o, context.json); };
    });
    return c;
  };
  CLI::App* r =
      command("run", "serve the study until ended", [](const Options& options, bool) { return run(options); });
  r->add_option("--runs", o->runs, "end after as many runs have ended (1 failed: exit code 1)");
  r->add_flag("--once", o->once, "end at the first refusal (exit code 3) instead of trying again");
  r->add_option("--tee", o->tee, "folder of a simulated TEE's platform: node and trainer run inside");
  command("ledger", "what has been charged and signed, for good", ledger);
  CLI::App* k = command("receipts", "the committed rounds with their witnesses, as the ledger keeps them", receipts);
  k->add_option("--out", o->out, "a folder: writes each receipt with its acknowledgements");
  CLI::App* w = command("withdraw", "leave the study: signed, shown to every instance", withdraw);
  w->add_option("--reason", o->reason, "kept here, not sent");
  w->add_flag("--undo", o->undo, "take it back, for instances that have not seen it");
  CLI::App* d = command("doctor", "is everything in place?", doctor);
  d->add_option("--tee", o->tee, "folder of a simulated TEE's platform");
  CLI::App* g = participant->add_subcommand("guest", "what a TEE starts; nothing for people")->group("");
  g->callback([&context] { context.chosen = [] { return guest(); }; });
}

}  // namespace cloister::cli

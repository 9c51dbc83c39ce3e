// The options of `cloister run …`; run.cpp does it.

#include "cli/command.hpp"
#include "cli/run.hpp"

namespace cloister::cli {

namespace {

void add_remote(CLI::App& command, RemoteOptions& remote) {
  command.add_option("--charter", remote.charter, "the founded charter: names the coordinator and its key")
      ->check(CLI::ExistingFile);
  command.add_option("--coordinator", remote.coordinator, "HOST:PORT, when it is not the charter's");
  command.add_option("--server-key", remote.server_key, "the coordinator's TLS key, ed25519:…; nobody else may answer");
  command.add_option("--key", remote.key, "your private key, as the model owner's policy names it")
      ->required()
      ->check(CLI::ExistingFile);
  command.add_option("--proxy", remote.proxy, "HOST:PORT of an HTTP CONNECT proxy");
  command.add_option("--study", remote.study, "a study's name or charter digest, when the coordinator keeps several");
}

void add_run(CLI::App& command, RunOptions& options) {
  command.add_option("run", options.run, "its number")->required();
  add_remote(command, options.remote);
}

/// One subcommand of `run` with options of its own.
template <class Options>
std::pair<CLI::App*, std::shared_ptr<Options>> add(CLI::App& run, Context& context, const char* name, const char* help,
                                                   int (*todo)(const Options&, bool)) {
  auto options = std::make_shared<Options>();
  CLI::App* command = run.add_subcommand(name, help);
  command->callback([&context, options, todo] {
    context.chosen = [&context, options, todo] { return todo(*options, context.json); };
  });
  return {command, options};
}

}  // namespace

void setup_run(CLI::App& app, Context& context) {
  CLI::App& run = *app.add_subcommand("run", "submit runs to a coordinator, watch them, fetch what they publish");
  run.require_subcommand(1);

  auto [submit, submitted] =
      add<SubmitOptions>(run, context, "submit", "sign a submission here and send it", run_submit);
  add_remote(*submit, submitted->remote);
  submit->add_option("--set", submitted->set, "NAME=VALUE of a setting, inside the manifest's range; again for each")
      ->take_all()
      ->expected(1);
  submit->add_option("--note", submitted->note, "your words, shown to every owner");
  submit->add_flag("--watch", submitted->watch, "and watch it");

  auto [list, listed] = add<RemoteOptions>(run, context, "list", "all runs of your studies", run_list);
  add_remote(*list, *listed);

  auto [show, shown] = add<RunOptions>(run, context, "show", "one run with its events, receipts and results", run_show);
  add_run(*show, *shown);

  auto [watch, watched] = add<RunOptions>(
      run, context, "watch", "live: round, task, who is where and why; exit code 0 when the run is done, 1 when not",
      run_watch);
  add_run(*watch, *watched);

  auto [cancel, cancelled] = add<CancelOptions>(run, context, "cancel", "end a run of yours", run_cancel);
  add_run(*cancel, *cancelled);
  cancel->add_option("--reason", cancelled->reason, "for the records and for every owner")->required();

  auto [fetch, fetched] = add<FetchOptions>(run, context, "fetch", "write what a run published into a file", run_fetch);
  add_run(*fetch, *fetched);
  fetch->add_option("--kind", fetched->kind, "model, evaluate or statistics")
      ->required()
      ->check(CLI::IsMember({"model", "evaluate", "statistics"}));
  fetch->add_option("--round", fetched->round, "of which round; the last by default");
  fetch->add_option("--out", fetched->out, "the file")->required();

  auto [receipts, received] =
      add<ReceiptsOptions>(run, context, "receipts", "the run's receipts and who witnessed them", run_receipts);
  add_run(*receipts, *received);
  receipts->add_flag("--verify", received->verify, "check instance, chain and witnesses here, against the charter");
  receipts->add_option("--at", received->at,
                       "judge the instance's evidence at this time; the run's submission by default");
  receipts->add_option("--out", received->out, "a folder for the signed bytes");
}

}  // namespace cloister::cli

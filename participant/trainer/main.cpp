// `cloister-trainer`: the child process of a participant's node, and the researcher's tool for a study's model.
//
// Without a subcommand it is the child and speaks contract 1 on descriptors 3 to 6 (README.md). Exit codes: 0 done, 1
// failed, 2 wrong use.

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fmt/format.h>
#include <functional>
#include <nlohmann/json.hpp>

#include "base/file.hpp"
#include "participant/trainer/alone.hpp"
#include "participant/trainer/child.hpp"

namespace {

using namespace cloister;
using namespace cloister::participant;
using Json = nlohmann::json;

struct Options {
  std::string manifest, model, statistics, out, model_out, statistics_out;
  std::vector<std::string> data, score, set, suppress;
  std::uint64_t seed = 0;
  std::optional<std::uint32_t> rounds;
  bool json = false;
};

Bytes read(const std::string& path) {
  return base::read_file(path, std::size_t{4} << 30).value();
}

void write(const std::string& path, View bytes) {
  base::write_file(path, bytes).value();
}

attest::Manifest read_manifest(const Options& o) {
  return attest::parse_manifest(base::text(read(o.manifest)), o.manifest).value();
}

attest::Settings read_settings(const Options& o, const attest::Manifest& manifest) {
  attest::Settings chosen;
  for (const std::string& pair : o.set) {
    const std::size_t equals = pair.find('=');
    char* end = nullptr;
    const double value = equals == std::string::npos ? 0 : std::strtod(pair.c_str() + equals + 1, &end);
    if (end == nullptr || end == pair.c_str() + equals + 1 || *end != '\0')
      throw CLI::ValidationError("--set", "wanted name=number, found " + pair);
    chosen[pair.substr(0, equals)] = value;
  }
  if (o.rounds) chosen["rounds"] = *o.rounds;
  return attest::complete_settings(manifest, chosen).value();
}

std::vector<trainer::File> load_all(const attest::Manifest& manifest, const std::vector<std::string>& paths) {
  std::vector<trainer::File> out;
  for (const std::string& path : paths) out.push_back(trainer::load(manifest, path).value());
  return out;
}

std::string quoted(const std::string& cell) {
  if (cell.find_first_of(",\"\n") == std::string::npos) return cell;
  std::string out = "\"";
  for (const char c : cell) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + '"';
}

Json number_or_null(const std::optional<double>& v) {
  return v ? Json(*v) : Json();
}

/// Writes the scores and gives the AUC of each file and of all.
Json report(const Options& o, const std::vector<trainer::Score>& scores) {
  std::string csv = "file,label,score\n";
  for (const trainer::Score& s : scores) csv += fmt::format("{},{},{}\n", quoted(o.score[s.file]), s.label, s.score);
  if (!o.out.empty()) write(o.out, base::view(csv));
  Json files = Json::array();
  for (std::size_t f = 0; f < o.score.size(); ++f) {
    std::vector<trainer::Score> own;
    std::copy_if(scores.begin(), scores.end(), std::back_inserter(own), [&](const auto& s) { return s.file == f; });
    files.push_back({{"file", o.score[f]}, {"test_records", own.size()}, {"auc", number_or_null(trainer::auc(own))}});
  }
  return {{"auc", number_or_null(trainer::auc(scores))}, {"test_records", scores.size()}, {"files", files}};
}

void print(const Options& o, const Json& facts) {
  if (o.json) {
    fmt::print("{}\n", facts.dump());
    return;
  }
  const auto area = [](const Json& auc) {
    return auc.is_null() ? "undefined (one class)" : fmt::format("{:.4f}", auc.get<double>());
  };
  for (const Json& f : facts.at("files"))
    fmt::print("{}: AUC {} on {} test records\n", f.at("file").get<std::string>(), area(f.at("auc")),
               f.at("test_records").dump());
  fmt::print("all: AUC {} on {} test records\n", area(facts.at("auc")), facts.at("test_records").dump());
}

int init(const Options& o) {
  const attest::Manifest manifest = read_manifest(o);
  const auto architecture = trainer::Architecture::of(manifest).value();
  const auto schema = aggregation::Schema::make(architecture.tensors()).value();
  const aggregation::Model model{schema, trainer::Network(architecture, o.seed).values()};
  write(o.out, model.serialize());
  const std::string digest = base::digest_text(model.digest());
  if (o.json)
    fmt::print("{}\n",
               Json{{"digest", digest}, {"tensors", trainer::tensors_toml(schema)}, {"features", architecture.features}}
                   .dump());
  else
    fmt::print("# initial = \"{}\"\n{}", digest, trainer::tensors_toml(schema));
  return 0;
}

int digest(const Options& o) {
  const std::string own = base::digest_text(base::sha256(read("/proc/self/exe")));
  if (o.json)
    fmt::print("{}\n", Json{{"digest", own}, {"torch", trainer::torch_version()}}.dump());
  else
    fmt::print("{}\n", own);
  return 0;
}

int local(const Options& o) {
  const attest::Manifest manifest = read_manifest(o);
  const attest::Settings settings = read_settings(o, manifest);
  const trainer::AloneOptions options{{o.suppress.begin(), o.suppress.end()}, o.seed};
  const auto alone = trainer::train_alone(manifest, settings, load_all(manifest, o.data), options).value();
  if (!o.model_out.empty()) write(o.model_out, alone.model.serialize());
  if (!o.statistics_out.empty() && alone.statistics) write(o.statistics_out, alone.statistics->serialize());
  Options scored = o;
  if (scored.score.empty()) scored.score = o.data;
  Json facts = report(
      scored,
      trainer::score(manifest, settings, alone.model, alone.statistics, load_all(manifest, scored.score)).value());
  facts["without"] = alone.without;
  facts["model"] = base::digest_text(alone.model.digest());
  print(o, facts);
  return 0;
}

int score(const Options& o) {
  const attest::Manifest manifest = read_manifest(o);
  const auto model = aggregation::parse_model(read(o.model)).value();
  std::optional<aggregation::Statistics> statistics;
  if (!o.statistics.empty()) statistics = aggregation::Statistics::parse(read(o.statistics)).value();
  print(o,
        report(o, trainer::score(manifest, read_settings(o, manifest), model, statistics, load_all(manifest, o.score))
                      .value()));
  return 0;
}

/// Registers a subcommand with what all have.
CLI::App* subcommand(CLI::App& app, Options& o, const char* name, const char* what) {
  CLI::App* s = app.add_subcommand(name, what);
  s->add_flag("--json", o.json, "facts as one JSON object on standard output");
  return s;
}

void add_manifest(CLI::App* s, Options& o) {
  s->add_option("--manifest", o.manifest, "the study's manifest")->required();
}

void add_settings(CLI::App* s, Options& o) {
  s->add_option("--set", o.set, "a setting of the manifest: name=number")->allow_extra_args(false);
}

/// What the subcommand's callback chose; main runs it.
std::function<int()> chosen;

void set_up(CLI::App& app, Options& o) {
  CLI::App* s = subcommand(app, o, "init", "write a model's initial weights, print what the manifest says of them");
  add_manifest(s, o);
  s->add_option("--out", o.out, "the model file")->required();
  s->add_option("--seed", o.seed, "of the weights (0)");
  s->callback([&o] { chosen = [&o] { return init(o); }; });

  s = subcommand(app, o, "digest", "print this program's digest, as manifests and policies name a trainer");
  s->callback([&o] { chosen = [&o] { return digest(o); }; });

  s = subcommand(app, o, "local", "train without anybody, on the training records of one or several files together");
  add_manifest(s, o);
  add_settings(s, o);
  s->add_option("--data", o.data, "CSV files to train on")->required();
  s->add_option("--score", o.score, "CSV files whose test records are scored (those of --data)");
  s->add_option("--suppress", o.suppress, "columns to leave out, with commas")->delimiter(',');
  s->add_option("--rounds", o.rounds, "as --set rounds=");
  s->add_option("--seed", o.seed, "of the initial weights (0)");
  s->add_option("--out", o.out, "scores: a CSV file with file, label, score");
  s->add_option("--model-out", o.model_out, "the trained model");
  s->add_option("--statistics-out", o.statistics_out, "the records' own statistics");
  s->callback([&o] { chosen = [&o] { return local(o); }; });

  s = subcommand(app, o, "score", "score test records with a model");
  add_manifest(s, o);
  add_settings(s, o);
  s->add_option("--model", o.model, "a model file")->required();
  s->add_option("--statistics", o.statistics, "the statistics that were in force in its run");
  s->add_option("--score,--data", o.score, "CSV files whose test records are scored")->required();
  s->add_option("--out", o.out, "scores: a CSV file with file, label, score");
  s->callback([&o] { chosen = [&o] { return score(o); }; });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 1) return trainer::serve({});
  CLI::App app(
      "Trains the built-in models of a Cloister study. Without a subcommand: the child of a participant's node.",
      "cloister-trainer");
  Options options;
  app.require_subcommand(1);
  set_up(app, options);
  try {
    app.parse(argc, argv);
    return chosen();
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  } catch (const std::exception& e) {
    fmt::print(stderr, "cloister-trainer: {}\n", e.what());
    return 1;
  }
}

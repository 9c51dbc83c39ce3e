// `cloister run …`: what a submitter does. The submission is signed here, with a key that stays here.

#include "cli/run.hpp"

#include <charconv>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sys/ioctl.h>
#include <unistd.h>

#include "aggregation/evaluate.hpp"
#include "aggregation/statistics.hpp"
#include "attest/run_order.hpp"
#include "base/file.hpp"
#include "cli/command.hpp"
#include "cli/progress.hpp"
#include "coordinator/client.hpp"
#include "coordinator/receipts.hpp"

namespace cloister::cli {

namespace messages = protocols::messages;
using nlohmann::ordered_json;
using protocols::channel::Frame;

namespace {

constexpr std::size_t charter_cap = 64 << 20;

[[noreturn]] void misused(std::string option, std::string what) {
  throw WrongUse(std::move(option) + ": " + std::move(what));
}

attest::Charter load_charter(const std::string& path) {
  return attest::parse_charter(base::read_file(path, charter_cap).value(), path).value();
}

void take_address(const std::string& text, coordinator::Remote& remote) {
  const auto colon = text.rfind(':');
  unsigned port = 0;
  const char* end = text.data() + text.size();
  if (colon == std::string::npos || std::from_chars(text.data() + colon + 1, end, port).ptr != end || port == 0 ||
      port > 65535)
    misused("--coordinator", "wanted HOST:PORT; found \"" + text + "\"");
  remote.host = text.substr(0, colon);
  remote.port = static_cast<std::uint16_t>(port);
}

/// Address and key of the coordinator: as given, else the model owner's in the charter.
coordinator::Remote remote_of(const RemoteOptions& options) {
  coordinator::Remote remote{{}, 0, options.proxy, {}, base::PrivateKey::load(options.key).value()};
  if (!options.charter.empty()) {
    const attest::Charter charter = load_charter(options.charter);
    const attest::Party& owner = charter.manifest.model_owner();
    remote.host = owner.host;
    remote.port = owner.port;
    remote.server = owner.tls;
  } else if (options.coordinator.empty() || options.server_key.empty()) {
    misused("--charter", "wanted the charter, or --coordinator and --server-key");
  }
  if (!options.coordinator.empty()) take_address(options.coordinator, remote);
  if (!options.server_key.empty()) remote.server = base::PublicKey::parse(options.server_key, "--server-key").value();
  return remote;
}

/// The study that a request is about: as given, else the charter's digest, else the coordinator's only one.
std::string study_of(const RemoteOptions& options) {
  if (!options.study.empty() || options.charter.empty()) return options.study;
  return base::digest_text(load_charter(options.charter).digest);
}

ordered_json json_of(const std::string& text) {
  ordered_json value = ordered_json::parse(text, nullptr, false);
  return value.is_discarded() ? ordered_json(text) : value;
}

std::string charter_text(const messages::RunRow& row) {
  return row.charter().size() == 32 ? base::digest_text(base::array<32>(base::view(row.charter()))) : "";
}

ordered_json json_of(const messages::RunRow& row) {
  return {{"run", row.run()},
          {"study", row.study()},
          {"charter", charter_text(row)},
          {"submitter", row.submitter()},
          {"state", row.state()},
          {"reason", row.reason()},
          {"round", row.round()},
          {"rounds", row.rounds()},
          {"submitted_at", row.submitted_at()},
          {"ended_at", row.ended_at()},
          {"note", row.note()},
          {"settings", json_of(row.settings_json())},
          {"simulated", row.simulated()}};
}

std::string dump(const ordered_json& value) {
  return value.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

std::string line_of(const messages::RunRow& row) {
  std::string line = fmt::format("{:>5}  {:<20} {:<10} {:<14} {:>3} rounds  {}", row.run(), printable(row.study()),
                                 row.state(), printable(row.submitter()), row.rounds(), row.submitted_at());
  if (row.simulated()) line += "  simulated";
  if (!row.note().empty()) line += "  \"" + printable(row.note()) + "\"";
  if (!row.reason().empty()) line += "  (" + printable(row.reason()) + ")";
  return line;
}

/// The answer to a request that is one message of rows.
messages::RunRows ask_rows(const coordinator::Remote& remote, messages::MessageType type,
                           const google::protobuf::MessageLite& request) {
  messages::RunRows rows;
  coordinator::ask(remote, type, request, [&](const Frame& frame) {
    if (frame.type != messages::RUN_ROWS ||
        !rows.ParseFromArray(frame.payload.data(), static_cast<int>(frame.payload.size())))
      throw Exception(
          base::malformed("coordinator", "wanted rows of runs; found a message of type " + std::to_string(frame.type)));
    return false;
  });
  return rows;
}

messages::RunRow ask_row(const coordinator::Remote& remote, messages::MessageType type,
                         const google::protobuf::MessageLite& request, std::string* details = nullptr) {
  const messages::RunRows rows = ask_rows(remote, type, request);
  if (rows.rows_size() != 1)
    throw Exception(base::malformed("coordinator", "wanted one run; found " + std::to_string(rows.rows_size())));
  if (details) *details = rows.details_json();
  return rows.rows(0);
}

template <class Message>
Message request_of(const RunOptions& options) {
  Message request;
  request.set_run(options.run);
  request.set_study(study_of(options.remote));
  return request;
}

void print_row(const messages::RunRow& row, bool json) {
  fmt::print("{}\n", json ? dump(json_of(row)) : line_of(row));
}

attest::Settings settings_of(const std::vector<std::string>& set) {
  attest::Settings out;
  for (const std::string& item : set) {
    const auto equals = item.find('=');
    double value = 0;
    const char* end = item.data() + item.size();
    if (equals == std::string::npos || equals == 0 ||
        std::from_chars(item.data() + equals + 1, end, value).ptr != end || equals + 1 == item.size() ||
        !std::isfinite(value))
      misused("--set", "wanted NAME=NUMBER; found \"" + item + "\"");
    if (!out.emplace(item.substr(0, equals), value).second)
      misused("--set", item.substr(0, equals) + " is given twice");
  }
  return out;
}

/// Under which name the model owner's policy lists this key.
std::string submitter_name(const attest::Charter& charter, const base::PublicKey& key) {
  const attest::Policy* policy = charter.policy(charter.manifest.model_owner().owner);
  std::string names;
  for (const attest::Submitter& submitter : policy->model()->submitters) {
    if (submitter.key == key) return submitter.name;
    names += (names.empty() ? "" : ", ") + submitter.name;
  }
  throw Exception(base::denied("denied by " + policy->owner_text(),
                               "submitters: wanted the key of one of " + names + ", found " + key.text() +
                                   "; found a charter whose policy names this key"));
}

/// Where people watch: a screen that is drawn again on a terminal, lines elsewhere.
class Watcher {
 public:
  explicit Watcher(bool json) : json_(json), terminal_(!json && ::isatty(STDOUT_FILENO)) {}

  /// True when the run has ended.
  bool on(const messages::RunEvent& event) {
    const std::string line = progress_.on(event.json());
    if (json_)
      fmt::print("{}\n", event.json());
    else if (terminal_)
      draw();
    else if (!line.empty())
      fmt::print("{}\n", line);
    std::fflush(stdout);
    return event.last();
  }
  const Progress& progress() const { return progress_; }

 private:
  void draw() {
    winsize size{};
    ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
    const auto lines = progress_.screen(size.ws_col > 0 ? size.ws_col : 80);
    const std::size_t fits = size.ws_row > 1 ? size.ws_row - 1u : lines.size();
    std::string out = drawn_ > 0 ? fmt::format("\x1b[{}A\x1b[J", drawn_) : "";  // up, and clear what was drawn
    const std::size_t first = lines.size() > fits ? lines.size() - fits : 0;
    for (std::size_t i = first; i < lines.size(); ++i) out += lines[i] + "\n";
    drawn_ = lines.size() - first;
    fmt::print("{}", out);
  }
  Progress progress_;
  bool json_, terminal_;
  std::size_t drawn_ = 0;
};

int watch(const coordinator::Remote& remote, const messages::WatchRun& request, bool json) {
  Watcher watcher(json);
  std::uint64_t seen = 0;
  bool last = false;
  auto on = [&](const Frame& frame) {
    messages::RunEvent event;
    if (frame.type != messages::RUN_EVENT ||
        !event.ParseFromArray(frame.payload.data(), static_cast<int>(frame.payload.size())))
      throw Exception(
          base::malformed("coordinator", "wanted an event; found a message of type " + std::to_string(frame.type)));
    if (event.json().empty()) return true;  // only a sign of life
    const std::uint64_t number = json_of(event.json()).value("number", std::uint64_t{0});
    if (number != 0 && number <= seen) return true;  // told again after a cut
    if (number != 0) seen = number;
    last = watcher.on(event);
    return !last;
  };
  constexpr std::chrono::seconds patience{60}, restart{30};  // a coordinator that is restarted is back by then
  for (bool again = false; !last; again = true) {
    const std::uint64_t before = seen;
    try {
      coordinator::ask(remote, messages::WATCH_RUN, request, on, patience, again ? restart : std::chrono::seconds(0));
    } catch (const Exception& e) {
      if (e.error().kind != Error::Kind::unavailable || (seen == before && (again || seen == 0))) throw;
    }
  }
  return watcher.progress().ended() == "done" ? done : failed;
}

}  // namespace

int run_submit(const SubmitOptions& options, bool json) {
  if (options.remote.charter.empty())
    misused("--charter", "a submission names its charter: give the founded charter's file");
  const coordinator::Remote remote = remote_of(options.remote);
  const attest::Charter charter = attest::load_charter(base::read_file(options.remote.charter, charter_cap).value(),
                                                       options.remote.charter, base::now())
                                      .value();
  attest::RunOrder order;
  order.charter = charter.digest;
  order.submitter = submitter_name(charter, remote.key.public_key());
  order.settings = settings_of(options.set);
  order.nonce = base::random_array<16>();
  order.note = options.note;
  order.submit(remote.key);

  messages::Submit request;
  const Bytes submission = order.submission();
  request.set_submission(submission.data(), submission.size());
  request.set_signature(order.submitted.data(), order.submitted.size());
  const messages::RunRow row = ask_row(remote, messages::SUBMIT, request);
  if (!options.watch || !json) print_row(row, json);
  if (!options.watch) return done;
  messages::WatchRun watched;
  watched.set_run(row.run());
  watched.set_study(charter_text(row));
  return watch(remote, watched, json);
}

int run_list(const RemoteOptions& options, bool json) {
  messages::ListRuns request;
  request.set_study(options.study);
  const messages::RunRows rows = ask_rows(remote_of(options), messages::LIST_RUNS, request);
  ordered_json list = ordered_json::array();
  for (const messages::RunRow& row : rows.rows()) {
    if (json)
      list.push_back(json_of(row));
    else
      fmt::print("{}\n", line_of(row));
  }
  if (json) fmt::print("{}\n", dump({{"runs", std::move(list)}}));
  if (!json && rows.rows_size() == 0) fmt::print("no runs yet; `cloister run submit` makes one\n");
  return done;
}

int run_show(const RunOptions& options, bool json) {
  std::string details;
  const messages::RunRow row =
      ask_row(remote_of(options.remote), messages::SHOW_RUN, request_of<messages::ShowRun>(options), &details);
  ordered_json all = json_of(row);
  const ordered_json more = json_of(details);
  if (more.is_object()) all.update(more);
  if (json) {
    fmt::print("{}\n", dump(all));
    return done;
  }
  for (const auto& [name, value] : all.items()) {
    if (value.is_array() || value == "") continue;
    fmt::print("{:<13} {}\n", name, printable(value.is_string() ? value.get<std::string>() : dump(value)));
  }
  Progress progress;
  for (const auto& event : all.value("events", ordered_json::array()))
    if (const std::string line = progress.on(dump(event)); !line.empty()) fmt::print("  {}\n", line);
  return done;
}

int run_watch(const RunOptions& options, bool json) {
  return watch(remote_of(options.remote), request_of<messages::WatchRun>(options), json);
}

int run_cancel(const CancelOptions& options, bool json) {
  auto request = request_of<messages::CancelRun>(options);
  request.set_reason(options.reason);
  print_row(ask_row(remote_of(options.remote), messages::CANCEL_RUN, request), json);
  return done;
}

int run_fetch(const FetchOptions& options, bool json) {
  auto request = request_of<messages::FetchResult>(options);
  request.set_kind(options.kind);
  request.set_round(options.round);
  messages::Result result;
  messages::Transfer transfer;
  const std::string part = options.out + ".part";
  std::ofstream file;
  base::Hasher hash;
  std::uint64_t left = 0;
  auto take = [&](View bytes) {
    file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    hash.add(bytes);
  };
  auto parsed = [](const Frame& frame, auto& message) {
    if (!message.ParseFromArray(frame.payload.data(), static_cast<int>(frame.payload.size())))
      throw Exception(base::malformed("coordinator", "its answer does not parse"));
  };
  coordinator::ask(remote_of(options.remote), messages::FETCH_RESULT, request, [&](const Frame& frame) {
    if (frame.type == messages::RESULT && !file.is_open()) {
      parsed(frame, result);
      file.open(part, std::ios::binary | std::ios::trunc);
      if (!file) throw Exception(base::unavailable(part, "cannot be written"));
      if (result.kind() == "model") return true;
      take(base::view(result.value()));
      return false;
    }
    if (frame.type == messages::TRANSFER && file.is_open() && left == 0) {
      parsed(frame, transfer);
      left = transfer.length();
      return left != 0;
    }
    if (frame.type != messages::DATA || frame.payload.size() > left)
      throw Exception(
          base::malformed("coordinator", "a message of type " + std::to_string(frame.type) + " in a result"));
    take(frame.payload);
    left -= frame.payload.size();
    return left != 0;
  });
  file.close();
  const base::Sha256 digest = std::move(hash).finish();
  if (!file || base::text(digest) != result.digest()) {
    std::filesystem::remove(part);
    throw Exception(base::untrusted(
        options.out, "the bytes that came are not the published ones; found " + base::digest_text(digest)));
  }
  std::filesystem::rename(part, options.out);

  ordered_json facts = {{"run", options.run},
                        {"round", result.round()},
                        {"kind", result.kind()},
                        {"digest", base::digest_text(digest)},
                        {"out", options.out}};
  if (result.kind() == "evaluate")
    facts["value"] = json_of(aggregation::Evaluation::parse(base::view(result.value())).value().json());
  if (result.kind() == "statistics")
    facts["value"] = json_of(aggregation::Statistics::parse(base::view(result.value())).value().json());
  if (json)
    fmt::print("{}\n", dump(facts));
  else
    fmt::print("{}: {} of round {}, {}\n", options.out, result.kind(), result.round(), base::digest_text(digest));
  return done;
}

int run_receipts(const ReceiptsOptions& options, bool json) {
  if (options.verify && options.remote.charter.empty())
    misused("--verify", "needs --charter: the charter says whose receipts these must be");
  messages::RunRow row;
  Bytes record, evidence;
  std::vector<coordinator::Receipt> receipts;
  coordinator::ask(remote_of(options.remote), messages::FETCH_RECEIPTS, request_of<messages::FetchReceipts>(options),
                   [&](const Frame& frame) {
                     const auto size = static_cast<int>(frame.payload.size());
                     messages::RunRows rows;
                     if (frame.type == messages::RUN_ROWS && rows.ParseFromArray(frame.payload.data(), size) &&
                         rows.rows_size() == 1) {
                       row = rows.rows(0);
                       return row.receipts() != 0;
                     }
                     messages::ReceiptRecord one;
                     if (frame.type != messages::RECEIPT_RECORD || !one.ParseFromArray(frame.payload.data(), size))
                       throw Exception(base::malformed(
                           "coordinator", "wanted a receipt; found a message of type " + std::to_string(frame.type)));
                     if (receipts.empty()) {
                       record = base::copy(base::view(one.record()));
                       evidence = base::copy(base::view(one.instance_evidence()));
                     }
                     auto signed_receipt = protocols::round::SignedReceipt::parse(base::view(one.receipt())).value();
                     receipts.push_back({signed_receipt.receipt.round, base::copy(base::view(one.receipt())), {}});
                     for (const std::string& acknowledgement : one.acknowledgements())
                       receipts.back().acknowledgements.push_back(base::copy(base::view(acknowledgement)));
                     return receipts.size() < row.receipts();
                   });

  std::optional<attest::Charter> charter;  // names the members too
  if (!options.remote.charter.empty()) charter = load_charter(options.remote.charter);
  if (options.verify) {
    const Time at = base::parse_time(options.at.empty() ? row.submitted_at() : options.at, "--at").value();
    coordinator::verify_run(*charter, record, evidence, receipts, at).value();
  }
  ordered_json list = ordered_json::array();
  for (const coordinator::Receipt& receipt : receipts) {
    const auto parsed = protocols::round::SignedReceipt::parse(receipt.receipt).value();
    if (!options.out.empty()) {
      base::make_folder(options.out).value();
      base::write_file(fmt::format("{}/round-{}.receipt", options.out, receipt.round), receipt.receipt).value();
    }
    ordered_json one = json_of(parsed.receipt.json(charter ? &charter->manifest : nullptr));
    one["digest"] = base::digest_text(parsed.digest);
    one["acknowledgements"] = receipt.acknowledgements.size();
    if (!json)
      fmt::print("round {} {}: {}, {} contributed, {} witnesses signed\n", receipt.round, parsed.receipt.task,
                 base::digest_text(parsed.digest), parsed.receipt.contributors(), receipt.acknowledgements.size());
    list.push_back(std::move(one));
  }
  if (json)
    fmt::print("{}\n", dump({{"run", row.run()},
                             {"verified", options.verify},
                             {"simulated", row.simulated()},
                             {"receipts", std::move(list)}}));
  else if (options.verify)
    fmt::print("verified: {} receipts, a chain of one allowed instance, each committed by its witnesses{}\n",
               receipts.size(), row.simulated() ? " (SIMULATED: no hardware stands behind the instance)" : "");
  return done;
}

}  // namespace cloister::cli

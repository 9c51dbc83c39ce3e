#include "coordinator/requests.hpp"

#include <filesystem>
#include <fstream>

#include "base/deadline.hpp"

namespace cloister::coordinator {

using std::chrono::steady_clock;

namespace {

/// A submitter's terminal is a person's: a frame that does not leave in this time has nobody to read it.
constexpr std::chrono::seconds send_at_most{30}, request_at_most{30}, keep_alive{20};

}  // namespace

const attest::Submitter* submitter_of(const attest::Charter& charter, const base::PublicKey& key) {
  const attest::Policy* policy = charter.policy(charter.manifest.model_owner().owner);
  if (!policy || !policy->model()) return nullptr;
  for (const attest::Submitter& submitter : policy->model()->submitters)
    if (submitter.key == key) return &submitter;
  return nullptr;
}

std::optional<std::string> Requests::known(const base::PublicKey& key) const {
  for (const auto& driver : drivers_)
    if (const auto* submitter = submitter_of(driver->charter(), key)) return submitter->name;
  return std::nullopt;
}

Driver* Requests::driver(const base::Sha256& charter) const {
  for (const auto& driver : drivers_)
    if (driver->charter().digest == charter) return driver.get();
  return nullptr;
}

std::vector<Driver*> Requests::visible(const base::PublicKey& key, const std::string& study) const {
  std::vector<Driver*> out;
  for (const auto& driver : drivers_) {
    const attest::Charter& charter = driver->charter();
    if (!submitter_of(charter, key)) continue;
    if (study.empty() || study == charter.manifest.study || study == base::digest_text(charter.digest))
      out.push_back(driver.get());
  }
  return out;
}

Result<Run> Requests::find(const base::PublicKey& key, const std::string& study, std::uint64_t number) {
  std::vector<Run> found;
  const auto seen = visible(key, study);
  for (Driver* driver : seen)
    if (auto run = store_.run({driver->charter().digest, number})) found.push_back(std::move(*run));
  const std::string what = "run " + std::to_string(number) + (study.empty() ? "" : " of " + study);
  if (seen.empty())
    return base::denied("study", "this key submits to no study" + (study.empty() ? "" : " named " + study) + " here");
  if (found.empty()) return base::unavailable(what, "there is no such run; `cloister run list` shows all");
  if (found.size() == 1) return std::move(found.front());
  std::string choices;
  for (const Run& run : found) choices += "\n  " + run.study + " " + base::digest_text(run.id.charter);
  return base::unavailable(what, "several charters have one; name the charter's digest:" + choices);
}

awaitable<void> Requests::send(channel::Connection& connection, messages::MessageType type,
                               const google::protobuf::MessageLite& message) {
  co_await with_deadline(connection.send(type, message), steady_clock::now() + send_at_most,
                         "answering " + connection.peer_owner());
}

awaitable<void> Requests::refuse(channel::ConnectionPtr connection, Error error) {
  log_->event("request_refused", error.text(), {{"submitter", connection->peer_owner()}, {"reason", error.text()}});
  attest::Decision decision;  // a no of the policies has a finding; without one, the request only cannot be met
  if (error.kind == Error::Kind::denied)
    decision.add({.met = false,
                  .owner = "coordinator",
                  .requirement = error.where,
                  .wanted = "one that its charters let this key ask for",
                  .found = error.what,
                  .remedy = "name a study whose model owner's policy lists this key"});
  if (!decision.findings.empty()) attest::log_refusals(*log_, decision, "a request of " + connection->peer_owner());
  co_await channel::refuse(connection, decision, error.text(), error.kind == Error::Kind::unavailable);
}

awaitable<void> Requests::serve(channel::ConnectionPtr connection) {
  const auto frame =
      co_await with_deadline(connection->receive(), steady_clock::now() + request_at_most, "request of a submitter");
  switch (frame.type) {
    case messages::SUBMIT:
      co_return co_await submit(connection, channel::parse<messages::Submit>(frame));
    case messages::LIST_RUNS:
      co_return co_await list(connection, channel::parse<messages::ListRuns>(frame));
    case messages::SHOW_RUN:
      co_return co_await show(connection, channel::parse<messages::ShowRun>(frame));
    case messages::WATCH_RUN:
      co_return co_await watch(connection, channel::parse<messages::WatchRun>(frame));
    case messages::CANCEL_RUN:
      co_return co_await cancel(connection, channel::parse<messages::CancelRun>(frame));
    case messages::FETCH_RESULT:
      co_return co_await fetch(connection, channel::parse<messages::FetchResult>(frame));
    case messages::FETCH_RECEIPTS:
      co_return co_await receipts(connection, channel::parse<messages::FetchReceipts>(frame));
    default:
      co_return co_await refuse(connection,
                                base::unsupported("request", "no request is of type " + std::to_string(frame.type)));
  }
}

awaitable<void> Requests::submit(channel::ConnectionPtr connection, messages::Submit request) {
  auto order = attest::RunOrder::parse_submission(base::view(request.submission()));
  if (!order) co_return co_await refuse(connection, order.error());
  if (request.signature().size() != order->submitted.size())
    co_return co_await refuse(connection,
                              base::malformed("submission", "wanted a signature of 64 bytes; found " +
                                                                std::to_string(request.signature().size())));
  order->submitted = base::array<64>(base::view(request.signature()));
  Driver* to = driver(order->charter);
  if (!to)
    co_return co_await refuse(
        connection, base::denied("charter", "this coordinator does not keep " + base::digest_text(order->charter)));

  const attest::Charter& charter = to->charter();
  const auto* submitter = submitter_of(charter, connection->peer_key());
  const Submission submission{*order, submitter ? submitter->name : connection->peer_owner()};
  const Time at = base::now();
  attest::Decision decision;
  auto decide = [&](const Usage& usage) -> Result<NewRun> {
    decision = judge_submission(submission, charter, usage, at);
    if (!decision.allowed()) return base::denied("submission", decision.explain());
    const attest::Settings settings = attest::complete_settings(charter.manifest, order->settings).value();
    const auto rounds = settings.find("rounds");
    order->number(usage.next_run, order_key_);
    return NewRun{*order, rounds == settings.end() ? 0 : static_cast<std::uint32_t>(rounds->second),
                  settings_json(settings)};
  };
  // The nonce makes two submissions two; the same one again, after a lost answer, is the same run.
  const auto digest = base::sha256(base::view(request.submission()));
  auto run = store_.submit(charter.digest, order->submitter, digest, decide, submitted_event, at);
  if (!run) {
    if (!decision.findings.empty()) attest::log_refusals(*log_, decision, "a submission by " + order->submitter);
    log_->event("submission_refused", run.error().text(),
                {{"submitter", order->submitter}, {"reason", run.error().text()}});
    co_return co_await channel::refuse(connection, decision, "the submission is refused");
  }
  log_->event("run_queued", "run " + std::to_string(run->id.run) + " by " + run->submitter + " is queued",
              {{"run", run->id.run}, {"submitter", run->submitter}, {"study", run->study}});
  to->wake();
  // After a succession both charters' instances listen at one address, and two cannot listen there.
  for (const auto& other : drivers_)
    if (other.get() != to && other->charter().manifest.aggregator_host == charter.manifest.aggregator_host &&
        other->charter().manifest.aggregator_port == charter.manifest.aggregator_port)
      other->make_room();
  board_.notice.raise();
  co_await send_row(*connection, *run, false);
}

awaitable<void> Requests::send_row(channel::Connection& connection, const Run& run, bool details) {
  const auto receipts = store_.receipts(run.id);
  messages::RunRows rows;
  *rows.add_rows() = row_of(run, receipts.size());
  if (details) rows.set_details_json(details_json(run, receipts, store_.results(run.id), store_.events(run.id)));
  co_await send(connection, messages::RUN_ROWS, rows);
}

awaitable<void> Requests::list(channel::ConnectionPtr connection, messages::ListRuns request) {
  messages::RunRows rows;
  const auto seen = visible(connection->peer_key(), request.study());
  if (seen.empty())
    co_return co_await refuse(connection,
                              base::denied("study", "this key submits to no study named " + request.study() + " here"));
  for (const Run& run : store_.runs())
    for (const Driver* driver : seen)
      if (driver->charter().digest == run.id.charter) *rows.add_rows() = row_of(run, run.round);
  co_await send(*connection, messages::RUN_ROWS, rows);
}

awaitable<void> Requests::show(channel::ConnectionPtr connection, messages::ShowRun request) {
  auto run = find(connection->peer_key(), request.study(), request.run());
  if (!run) co_return co_await refuse(connection, run.error());
  co_await send_row(*connection, *run, true);
}

awaitable<void> Requests::watch(channel::ConnectionPtr connection, messages::WatchRun request) {
  auto found = find(connection->peer_key(), request.study(), request.run());
  if (!found) co_return co_await refuse(connection, found.error());
  const RunId id = found->id;
  std::uint64_t stored = 0, live = 0;
  while (!board_.stopping) {
    const std::uint64_t seen = board_.notice.version();
    const bool last = ended(store_.run(id)->state);
    const auto events = store_.events(id, stored);
    for (const Event& event : events) {
      messages::RunEvent message;
      message.set_run(id.run);
      message.set_json(stamped(event.json, id.run, event.number, event.at));
      message.set_last(last && &event == &events.back());
      stored = event.number;
      co_await send(*connection, messages::RUN_EVENT, message);
      if (message.last()) co_return;
    }
    const auto status = board_.live.find(id);
    if (status != board_.live.end() && status->second.version != live) {
      live = status->second.version;
      messages::RunEvent message;
      message.set_run(id.run);
      message.set_json(stamped(status->second.json, id.run, 0, base::now()));
      co_await send(*connection, messages::RUN_EVENT, message);
    }
    // An empty event keeps the connection known to be alive at both ends.
    if (!co_await board_.notice.after(seen, steady_clock::now() + keep_alive)) {
      messages::RunEvent nothing;
      nothing.set_run(id.run);
      co_await send(*connection, messages::RUN_EVENT, nothing);
    }
  }
}

awaitable<void> Requests::cancel(channel::ConnectionPtr connection, messages::CancelRun request) {
  auto run = find(connection->peer_key(), request.study(), request.run());
  if (!run) co_return co_await refuse(connection, run.error());
  Driver* of = driver(run->id.charter);
  const auto* submitter = submitter_of(of->charter(), connection->peer_key());
  const attest::Decision decision = judge_cancel(*run, submitter->name, of->charter());
  if (!decision.allowed()) {
    attest::log_refusals(*log_, decision, "a cancellation by " + submitter->name);
    co_return co_await channel::refuse(connection, decision, "the cancellation is refused");
  }
  if (!of->cancel(run->id, submitter->name, request.reason()))
    co_return co_await refuse(connection, base::unsupported("run " + std::to_string(run->id.run),
                                                            "it has ended already: " + std::string(name(run->state))));
  co_await send_row(*connection, *store_.run(run->id), false);
}

awaitable<void> Requests::send_file(channel::Connection& connection, const base::Sha256& digest) {
  const std::string path = store_.model_path(digest);
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Exception(base::unavailable(path, "the model's file is not there any more"));
  std::uint64_t left = std::filesystem::file_size(path);
  messages::Transfer transfer;
  transfer.set_what("model");
  transfer.set_digest(digest.data(), digest.size());
  transfer.set_length(left);
  co_await send(connection, messages::TRANSFER, transfer);
  Bytes block(channel::data_cap);
  while (left != 0) {
    const auto n = static_cast<std::size_t>(std::min<std::uint64_t>(left, block.size()));
    if (!file.read(reinterpret_cast<char*>(block.data()), static_cast<std::streamsize>(n)))
      throw Exception(base::unavailable(path, "it is shorter than it was"));
    co_await with_deadline(connection.send_data(View(block).first(n)), steady_clock::now() + send_at_most,
                           "sending a model");
    left -= n;
  }
}

awaitable<void> Requests::fetch(channel::ConnectionPtr connection, messages::FetchResult request) {
  auto run = find(connection->peer_key(), request.study(), request.run());
  if (!run) co_return co_await refuse(connection, run.error());
  const auto published = store_.result(run->id, request.kind(), request.round());
  if (!published) {
    const std::string of = request.round() == 0 ? "" : " of round " + std::to_string(request.round());
    co_return co_await refuse(
        connection, base::unsupported("run " + std::to_string(run->id.run), "no " + request.kind() + of +
                                                                                " has been published; the run is " +
                                                                                std::string(name(run->state))));
  }
  messages::Result result;
  result.set_run(run->id.run);
  result.set_round(published->round);
  result.set_kind(published->kind);
  result.set_value(published->value.data(), published->value.size());
  result.set_digest(published->digest.data(), published->digest.size());
  co_await send(*connection, messages::RESULT, result);
  if (published->kind == "model") co_await send_file(*connection, published->digest);
}

awaitable<void> Requests::receipts(channel::ConnectionPtr connection, messages::FetchReceipts request) {
  auto run = find(connection->peer_key(), request.study(), request.run());
  if (!run) co_return co_await refuse(connection, run.error());
  const auto rows = store_.receipts(run->id);
  messages::RunRows head;
  *head.add_rows() = row_of(*run, rows.size());
  co_await send(*connection, messages::RUN_ROWS, head);
  bool first = true;
  for (const Receipt& row : rows) {
    messages::ReceiptRecord record;
    record.set_receipt(row.receipt.data(), row.receipt.size());
    for (const Bytes& acknowledgement : row.acknowledgements)
      record.add_acknowledgements(acknowledgement.data(), acknowledgement.size());
    if (std::exchange(first, false)) {
      record.set_instance_evidence(run->evidence.data(), run->evidence.size());
      record.set_record(run->record.data(), run->record.size());
    }
    co_await send(*connection, messages::RECEIPT_RECORD, record);
  }
}

}  // namespace cloister::coordinator

#pragma once
// What a submitter may ask (protocols/messages, "Coordinator and submitter"): one request per connection, each answered
// or refused with its reason. Submitters see the runs of the studies whose model owner's policy names their key, and
// cancel their own.

#include <map>
#include <memory>

#include "coordinator/driver.hpp"
#include "coordinator/rules.hpp"

namespace cloister::coordinator {

class Requests {
 public:
  /// All of them outlive it. `drivers`: one per study.
  Requests(std::vector<std::unique_ptr<Driver>>& drivers, Store& store, Board& board, base::PrivateKey order_key,
           std::shared_ptr<base::Log> log)
      : drivers_(drivers), store_(store), board_(board), order_key_(std::move(order_key)), log_(std::move(log)) {}

  /// Whose key this is in any of the studies; nothing for a stranger.
  std::optional<std::string> known(const base::PublicKey& key) const;
  /// Serves the connection's one request. Throws cloister::Exception when the connection breaks.
  awaitable<void> serve(channel::ConnectionPtr connection);

 private:
  awaitable<void> submit(channel::ConnectionPtr connection, messages::Submit request);
  awaitable<void> list(channel::ConnectionPtr connection, messages::ListRuns request);
  awaitable<void> show(channel::ConnectionPtr connection, messages::ShowRun request);
  awaitable<void> watch(channel::ConnectionPtr connection, messages::WatchRun request);
  awaitable<void> cancel(channel::ConnectionPtr connection, messages::CancelRun request);
  awaitable<void> fetch(channel::ConnectionPtr connection, messages::FetchResult request);
  awaitable<void> receipts(channel::ConnectionPtr connection, messages::FetchReceipts request);

  /// The run of a study that this key may see. Errors: denied (not its study), unavailable (no such run, or which study
  /// is not clear), each with the text for the submitter.
  Result<Run> find(const base::PublicKey& key, const std::string& study, std::uint64_t run);
  std::vector<Driver*> visible(const base::PublicKey& key, const std::string& study) const;
  Driver* driver(const base::Sha256& charter) const;
  awaitable<void> refuse(channel::ConnectionPtr connection, Error error);
  awaitable<void> send(channel::Connection& connection, messages::MessageType type,
                       const google::protobuf::MessageLite& message);
  awaitable<void> send_row(channel::Connection& connection, const Run& run, bool details);
  awaitable<void> send_file(channel::Connection& connection, const base::Sha256& digest);

  std::vector<std::unique_ptr<Driver>>& drivers_;
  Store& store_;
  Board& board_;
  base::PrivateKey order_key_;
  std::shared_ptr<base::Log> log_;
};

/// The submitter of the charter's model owner's policy with this key.
const attest::Submitter* submitter_of(const attest::Charter& charter, const base::PublicKey& key);

}  // namespace cloister::coordinator

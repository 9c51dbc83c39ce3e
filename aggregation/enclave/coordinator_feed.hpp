#pragma once
// What the coordinator is told of a run. It outlives the coordinator's connection: a coordinator that was cut off or
// restarted asks for its run and hears everything from round 1 on, then goes on live.

#include <optional>

#include "aggregation/enclave/link.hpp"
#include "aggregation/enclave/sealed_log.hpp"

namespace cloister::enclave {

/// Keeps the present or last run's receipts and results, models too, in sealed logs: memory does not grow with the
/// rounds. Not thread-safe: lives on the server's strand.
class CoordinatorFeed {
 public:
  /// A new run begins: what is here of the one before is forgotten.
  void begin(std::uint64_t run);
  std::optional<std::uint64_t> run() const { return run_; }

  void record(messages::ReceiptRecord record);
  /// `model`: the file of a Result of kind "model", otherwise null.
  void result(messages::Result result, std::shared_ptr<const aggregation::ModelFile> model);
  void status(messages::RunStatus status);
  void end(messages::RunEnd end);

  /// From now on `link` hears it live, after everything so far. Only one link listens: the last.
  void attach(LinkPtr link);
  void detach(const LinkPtr& link);
  const LinkPtr& link() const { return link_; }

 private:
  /// What a run leaves behind: receipts, results, and the models of those results that are models, each in its order.
  struct Past {
    SealedLog records, results, models;
  };
  Link::Series replay() const;
  static Source source_of(std::shared_ptr<const Past> past, std::size_t model);
  void send(const messages::Result& result, bool model);

  std::optional<std::uint64_t> run_;
  std::shared_ptr<Past> past_;  ///< a replay under way may outlive its run
  std::optional<messages::RunStatus> status_;
  std::optional<messages::RunEnd> end_;
  LinkPtr link_;
};

}  // namespace cloister::enclave

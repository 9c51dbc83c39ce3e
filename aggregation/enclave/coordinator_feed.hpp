#pragma once
// What the coordinator is told of a run. It outlives the coordinator's connection: a coordinator that was cut off or
// restarted asks for its run and hears everything from round 1 on, then goes on live.

#include <optional>

#include "aggregation/enclave/link.hpp"
#include "aggregation/enclave/sealed_file.hpp"

namespace cloister::enclave {

/// Holds the present or last run's receipts and results; published models wait in sealed files. Not thread-safe: lives
/// on the server's strand.
class CoordinatorFeed {
 public:
  /// A new run begins: what is here of the one before is forgotten.
  void begin(std::uint64_t run);
  std::optional<std::uint64_t> run() const { return run_; }

  void record(messages::ReceiptRecord record);
  /// `model`: the file of a Result of kind "model", otherwise null. It is sealed away, or kept where no sealed file can
  /// be made.
  void result(messages::Result result, std::shared_ptr<const Bytes> model);
  void status(messages::RunStatus status);
  void end(messages::RunEnd end);

  /// From now on `link` hears it live, after everything so far. Only one link listens: the last.
  void attach(LinkPtr link);
  void detach(const LinkPtr& link);
  const LinkPtr& link() const { return link_; }

 private:
  struct Published {
    messages::Result result;
    std::shared_ptr<const SealedFile> sealed;
    std::shared_ptr<const Bytes> plain;
  };
  void send(const Published& published);

  std::optional<std::uint64_t> run_;
  std::vector<messages::ReceiptRecord> records_;
  std::vector<Published> results_;
  std::optional<messages::RunStatus> status_;
  std::optional<messages::RunEnd> end_;
  LinkPtr link_;
};

}  // namespace cloister::enclave

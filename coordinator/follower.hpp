#pragma once
// What the coordinator makes of an enclave's messages about one run: checks each, stores it, and says how the run
// ended. No I/O but the store, no clock of its own; the driver feeds it frames. Not thread-safe.

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "coordinator/receipts.hpp"
#include "coordinator/store.hpp"
#include "coordinator/view.hpp"
#include "protocols/channel/frame.hpp"

namespace cloister::coordinator {

/// How a run ended, once it has.
struct End {
  RunState state = RunState::failed;  ///< done, failed or cancelled
  std::string reason;
};

class Follower {
 public:
  /// `run`: in state running, with its record. What the store has of it is not asked for again and must not come back
  /// different. `changed`: an event was stored. `status`: a live status came, which is not.
  Follower(const attest::Charter& charter, Store& store, const Run& run, std::function<void()> changed,
           std::function<void(std::string)> status);

  /// The next frame of the enclave. Errors end the run as failed: untrusted (a receipt or a result that does not hold),
  /// malformed (a message that cannot stand here). Gives the end when this was the last message.
  Result<std::optional<End>> on(const protocols::channel::Frame& frame, Time at);

  /// Nothing more is expected of the model that is under way: the connection was cut.
  void cut() { model_.reset(); }
  /// The bytes of a model are on their way.
  bool receiving() const { return model_ != nullptr; }
  std::uint32_t round() const { return last_ ? last_->receipt.round : 0; }

 private:
  struct Model;
  Result<void> on_status(const messages::RunStatus& status);
  Result<void> on_receipt(const messages::ReceiptRecord& message, Time at);
  Result<void> check_instance(const messages::ReceiptRecord& message, Time at);
  Result<void> on_result(const messages::Result& message, Time at);
  Result<void> on_transfer(const messages::Transfer& transfer);
  Result<void> on_data(View bytes, Time at);
  Result<End> on_end(const messages::RunEnd& end);
  Result<void> check_run(std::uint64_t run, std::string_view message) const;
  /// A stored receipt of this run; nothing when that round has none.
  std::optional<protocols::round::SignedReceipt> receipt(std::uint32_t round) const;
  bool published(const base::Sha256& model) const;
  Result<void> keep(const Published& published, std::optional<double> auc, Time at);

  const attest::Charter& charter_;
  Store& store_;
  RunId id_;
  Bytes record_, evidence_;
  base::Sha256 order_digest_{};
  base::PublicKey receipt_key_;
  std::function<void()> changed_;
  std::function<void(std::string)> status_;
  std::optional<protocols::round::SignedReceipt> last_;  ///< stored; those before it are the store's
  std::shared_ptr<Model> model_;                         ///< announced, still coming
};

}  // namespace cloister::coordinator

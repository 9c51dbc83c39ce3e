#pragma once
// The aggregator's side of all rounds of one run (round.hpp has the diagram). It holds the owners to their charter: who
// is asked, what is accepted, what is added, and that nothing leaves before its receipt has gathered its witnesses.
//
// The caller owns connections, slots and sums. It feeds what happened and does the steps of each answer strictly in
// order. Not thread-safe; one strand per run.

#include <memory>
#include <set>

#include "protocols/round/round.hpp"

namespace cloister::protocols::round {

/// Where a run's committed rounds wait for those who missed them, so that memory does not grow with the rounds: what
/// was appended n-th, from 0. The run is as good as over when an append throws.
class History {
 public:
  virtual ~History() = default;
  virtual void append(View round) = 0;
  virtual Result<Bytes> at(std::uint32_t index) const = 0;
};

/// What an aggregator brings to a run.
struct AggregatorSetup {
  std::shared_ptr<const attest::Charter> charter;
  attest::RunOrder order;
  base::PrivateKey receipt_key;  ///< of the instance record
  Array<32> leaf_secret{};       ///< fresh random bytes; the leaves' random bytes derive from it
  base::Sha256 evidence{};       ///< SHA-256 of the instance evidence
  bool simulated = false;
  std::string kernel_set;              ///< "cpu"
  Shapes shapes;                       ///< of every task in the run's schedule
  std::uint64_t model_length = 0;      ///< bytes of a model file
  std::vector<Bytes> withdrawals;      ///< statements that this instance has seen in earlier runs
  std::shared_ptr<History> history{};  ///< empty, or null: in memory
};

/// What the reduction of a round gave. Whatever a task does not make stays empty.
struct Reduction {
  std::optional<base::Sha256> model;      ///< train: digest of the new model file, stored and ready to be sent
  std::optional<base::Sha256> optimizer;  ///< train with a server optimizer: digest of its state
  Bytes value;                            ///< statistics, evaluate: canonical encoding
};

// --- Steps of the aggregator -----------------------------------------------------------------------------------------

/// Queue a message for an owner's connection; to nobody if it is gone.
struct SendTo {
  std::string owner;
  std::shared_ptr<const Message> message;  ///< one for all whom it goes to
};
/// Queue missed(owner, from) for `from` = this one's, then for as many further rounds as each gave, up to `to`: asked
/// when the connection is ready for more, so that a long absence costs no memory. What is queued after it waits.
struct SendMissed {
  std::string owner;
  std::uint32_t from = 0;  ///< rounds that the owner has
  std::uint32_t to = 0;
};
/// Queue Transfer {"model", digest, length, offset} and the file's bytes from `offset`.
struct SendModel {
  std::string owner;
  base::Sha256 digest{};
  std::uint64_t offset = 0;
};
/// A task begins: make an empty sum for it.
struct BeginTask {
  std::uint32_t round = 0;
  std::string task;
  std::uint32_t train_round = 0;
  std::vector<std::string> cohort;
  std::optional<base::Sha256> model;
  Shape shape;
};
/// Open a slot of `length` bytes, or find the one that is open for this owner and digest. When it is there (slots are
/// few), answer with slot_open(owner, round, bytes it holds already).
struct OpenSlot {
  std::string owner;
  std::uint32_t round = 0;
  base::Sha256 digest{};
  std::uint64_t length = 0;
};
/// The owner's next DATA frames, `length` bytes, go into its slot. Then answer staged() or stage_refused(). A DATA
/// frame that no Receive or dropped slot explains: data_unexpected().
struct Receive {
  std::string owner;
  std::uint32_t round = 0;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
};
/// The owner's next `length` bytes of DATA frames belong to a round that closed while they were on their way.
struct Swallow {
  std::string owner;
  std::uint64_t length = 0;
};
/// Forget the slot; what is still on its way for it is swallowed.
struct DropSlot {
  std::string owner;
  std::uint32_t round = 0;
};
/// Add the staged slot to the sum and free it. Every check has been made: it cannot fail.
struct Add {
  std::string owner;
  std::uint32_t round = 0;
  std::uint64_t weight = 1;
};
/// Turn the sum into the result; answer with reduced() or reduction_failed().
struct Reduce {
  std::uint32_t round = 0;
  std::string task;
  std::uint32_t train_round = 0;
  std::vector<std::string> contributors;  ///< manifest order
};
/// What status() says has changed: the coordinator is to see it soon.
struct Report {};
/// To the coordinator, once committed. With the first of a run the caller adds record and instance evidence.
struct Record {
  messages::ReceiptRecord record;
  bool first = false;
};
/// To the coordinator: the policies publish this. Kind "model": the model file follows.
struct PublishResult {
  messages::Result result;
};
/// Tell this peer why and close its connection: it broke the protocol. It may dial again.
struct Refuse {
  std::string owner;
  std::string reason;
};
/// An event for the log: who was refused what. Never a value derived from data.
struct LogRefusal {
  std::string about;
  attest::Decision decision;
};

using AggregatorStep =
    std::variant<SendTo, SendMissed, SendModel, BeginTask, OpenSlot, Receive, Swallow, DropSlot, Add, Reduce,
                 SetDeadline, ClearDeadline, Report, Record, PublishResult, Refuse, LogRefusal, Finish>;
using AggregatorSteps = std::vector<AggregatorStep>;

class Aggregator {
 public:
  /// Errors: denied (the order does not hold under the charter, a shape is missing, the policies forbid what the run
  /// needs).
  static Result<Aggregator> create(AggregatorSetup setup);
  Aggregator(Aggregator&&) noexcept;
  Aggregator& operator=(Aggregator&&) noexcept;
  ~Aggregator();

  /// Begins the first round. Called once; joined(), connected() and grant() may come before.
  AggregatorSteps start();

  // Connections. One per owner: a second one replaces the first (call disconnected for it).
  AggregatorSteps connected(const std::string& owner);     ///< its ParticipantHello is awaited
  AggregatorSteps joined(const std::string& owner);        ///< open and greeted since before this run
  AggregatorSteps disconnected(const std::string& owner);  ///< slots stay: it may resume
  AggregatorSteps on(const std::string& owner, const Message& message);
  /// A frame that is no message of a round, or does not parse.
  AggregatorSteps unexpected(const std::string& owner, std::string_view what);
  AggregatorSteps data_unexpected(const std::string& owner);

  AggregatorSteps model_sent(const std::string& owner);  ///< the last byte of a SendModel: for the status only

  // Slots. Answers for a round that is over are ignored.
  AggregatorSteps slot_open(const std::string& owner, std::uint32_t round, std::uint64_t offset);
  AggregatorSteps staged(const std::string& owner, std::uint32_t round, const base::Sha256& digest);
  /// NaN, infinity, out of range: `finding` names the check.
  AggregatorSteps stage_refused(const std::string& owner, std::uint32_t round, attest::Finding finding);

  AggregatorSteps reduced(std::uint32_t round, Reduction reduction);
  AggregatorSteps reduction_failed(std::uint32_t round, std::string reason);
  AggregatorSteps deadline(std::string_view name);
  /// Is a grant in force? Without one there are no new offers: the run waits for it one channel deadline, then fails.
  AggregatorSteps grant(bool valid);
  AggregatorSteps cancel(std::string reason);
  /// The enclave itself cannot go on (memory, a broken sealed file): the run ends as failed with this reason.
  AggregatorSteps fail(std::string reason);

  bool finished() const;
  std::uint64_t run() const;
  std::uint32_t round() const;
  /// For the coordinator: bytes and milliseconds are the caller's to fill in. Of more than `status_members` data owners
  /// it lists only some that did not do their part; its counts are of all. Costs time for each data owner.
  messages::RunStatus status() const;
  static constexpr std::size_t status_members = 256;
  /// For SendMissed: consecutive committed rounds after `from`, at least one, up to round `to`, and no more than some
  /// hundred KiB. Errors: the history cannot give them.
  Result<messages::MissedReceipts> missed(const std::string& owner, std::uint32_t from, std::uint32_t to) const;
  std::vector<Bytes> withdrawals() const;  ///< in force, for the next run of this instance

 private:
  friend struct Inspection;  ///< of the tests alone: copies a machine and reads its whole state
  struct Impl;
  explicit Aggregator(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace cloister::protocols::round

#pragma once
// A participant's side of all rounds of one run (round.hpp has the diagram): data owner and witness in one. It serves
// one receipt key per run, answers one offer and signs one receipt per (run, round), ever, also after a restart.
//
// The caller owns the connection, the child and the disk. It does the steps of each answer strictly in order; a step
// that says *durable* is on disk (fsync) before the next one is begun. When a step fails, the rest of its list is
// dropped and the machine is made anew from the record on disk. Not thread-safe; one strand.

#include <memory>

#include "protocols/round/round.hpp"

namespace cloister::protocols::round {

/// What must survive a restart, one per run. Its size does not grow with the rounds. A node makes it from its ledger
/// (participant/run_files.hpp).
struct ParticipantRecord {
  std::uint64_t run = 0;
  std::optional<base::PublicKey> receipt_key;  ///< the one that this run is served under
  base::Sha256 order{};                        ///< SHA-256 of the serialized run order, once an offer was answered
  std::uint32_t answered = 0;                  ///< last round whose offer was charged, 0: none
  base::Sha256 offer{};                        ///< offer_digest of that offer
  std::vector<std::string> withdrawn;          ///< the data owners that this offer left out, in the manifest's order
  std::uint32_t stored = 0;                    ///< last round whose update was stored, 0: none
  base::Sha256 update{};                       ///< its digest
  std::uint64_t update_length = 0;
  std::uint64_t weight = 0;
  /// By round: the receipt that was signed, or seen committed; of the last committed round and the one after it.
  std::map<std::uint32_t, base::Sha256> receipts;
  Bytes committed;  ///< SignedReceipt of the last round known committed, or empty

  Bytes serialize() const;
  static Result<ParticipantRecord> parse(View bytes);
};

/// An offer after all checks of the protocol, for the gate.
struct OfferedTask {
  attest::RunOrder order;
  attest::Settings settings;  ///< complete
  std::uint32_t round = 0;
  std::string task;
  std::uint32_t train_round = 0;
  std::uint32_t cohort = 0;  ///< how many: the charter's data owners without those that withdrew
  std::chrono::milliseconds deadline{};
};

struct ParticipantSetup {
  std::string owner;
  std::shared_ptr<const attest::Charter> charter;
  std::uint64_t run = 0;
  base::PrivateKey witness_key;
  Shapes shapes;  ///< of every task that the charter may ask for
  /// The owner's gate: its policy over task, ledger and the channel's claims. Asked once per round; pure towards the
  /// machine.
  std::function<attest::Decision(const OfferedTask&)> gate;
  Bytes withdrawal{};  ///< this owner's statement in force, or empty
  /// The digest of the receipt that this owner signed or kept of a round before the last committed one, if its disk
  /// has it: tells another receipt from the same one again. May be empty: then an earlier round's receipt counts for
  /// nothing.
  std::function<std::optional<base::Sha256>(std::uint32_t round)> receipt_of{};
};

// --- Steps of a participant ------------------------------------------------------------------------------------------

struct Send {
  Message message;
};
/// In the ledger, with the record: the process's end takes it no more. On disk at the latest with StoreUpdate, before a
/// byte of the answer leaves; then the task counts, whatever becomes of it.
struct Charge {
  std::uint32_t round = 0;
  std::string task;
  std::uint32_t train_round = 0;
  ParticipantRecord record;
};
/// Have this model ready: model_ready(digest) when it is held whole, else fetch(digest, bytes held).
struct NeedModel {
  base::Sha256 digest{};
  std::uint64_t length = 0;
};
/// The next DATA frames, `length - offset` bytes, are the model's from `offset` on. When it is whole and its digest
/// holds: model_ready(digest); else model_broken(digest). A transfer that the machine no longer wants runs to its end
/// all the same.
struct ReceiveModel {
  base::Sha256 digest{};
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
};
/// Give the child its task; answer with task_done() or task_failed().
struct RunTask {
  OfferedTask offered;
  std::optional<base::Sha256> model;
  Bytes statistics;  ///< canonical encoding, empty before they exist
  Shape shape;       ///< what the update must look like
};
/// The round went on without this site: its task's answer is no longer wanted.
struct StopTask {
  std::uint32_t round = 0;
};
/// The update's bytes, so that the process's end does not take them; then, *durable*, the record. Bytes that a power cut
/// took are answered with update_lost().
struct StoreUpdate {
  std::uint32_t round = 0;
  base::Sha256 digest{};
  std::uint64_t length = 0;
  ParticipantRecord record;
};
/// Send the stored update's bytes from `offset` as DATA frames (its Transfer is a Send before).
struct SendUpdate {
  std::uint32_t round = 0;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
};
/// *Durable*: the record with the receipt that is about to be acknowledged, and the receipt itself (SignedReceipt).
struct SignReceipt {
  std::uint32_t round = 0;
  Bytes receipt;
  ParticipantRecord record;
};
/// *Durable*: this round is committed.
struct Keep {
  std::uint32_t round = 0;
  CommittedReceipt committed;
  ParticipantRecord record;
};
/// What the policies publish to the cohort; its digest stands in the committed receipt.
struct Publish {
  std::uint32_t round = 0;
  std::string kind;  ///< "statistics", "evaluate"
  Bytes value;
};
/// For the log, with attest::log_refusals: what this owner refused, or what the aggregator refused of it.
struct Refused {
  std::string about;  ///< "offer of round 3", "receipt of round 3", "update of round 3"
  attest::Decision decision;
  bool equivocation = false;  ///< two contents under one number: keep the bytes, tell people
};
/// Close the connection: the peer broke the protocol. Dial again.
struct Disconnect {
  std::string reason;
};
/// The run is over for this owner.
struct Ended {
  Outcome outcome = Outcome::failed;
  std::string reason;
  std::optional<base::Sha256> final_model;
};

using ParticipantStep =
    std::variant<Send, Charge, NeedModel, ReceiveModel, RunTask, StopTask, StoreUpdate, SendUpdate, SignReceipt, Keep,
                 Publish, Refused, Disconnect, SetDeadline, ClearDeadline, Ended>;
using ParticipantSteps = std::vector<ParticipantStep>;

class Participant {
 public:
  /// `record`: what is on disk for this run, or nothing.
  Participant(ParticipantSetup setup, std::optional<ParticipantRecord> record);
  Participant(Participant&&) noexcept;
  Participant& operator=(Participant&&) noexcept;
  ~Participant();

  /// A connection to an enclave that was allowed; `receipt_key` is the instance record's. Sends the hello.
  ParticipantSteps connected(const base::PublicKey& receipt_key);
  /// The same on a connection that is open and greeted since before this run.
  ParticipantSteps joined(const base::PublicKey& receipt_key);
  ParticipantSteps disconnected();
  ParticipantSteps on(const Message& message);
  /// A frame that is no message of a round, or DATA that no transfer announced.
  ParticipantSteps unexpected(std::string_view what);

  ParticipantSteps model_ready(const base::Sha256& digest);
  ParticipantSteps fetch(const base::Sha256& digest, std::uint64_t held);
  ParticipantSteps model_broken(const base::Sha256& digest);
  /// The child is done: its update's digest, length and weight (records; 1 unless the task trains).
  ParticipantSteps task_done(std::uint32_t round, const base::Sha256& digest, std::uint64_t length,
                             std::uint64_t weight);
  ParticipantSteps task_failed(std::uint32_t round, std::string reason);
  /// The stored update cannot be read back.
  ParticipantSteps update_lost(std::uint32_t round, std::string reason);
  ParticipantSteps deadline(std::string_view name);
  /// The owner leaves the study: the statement is sent now or with the next hello.
  ParticipantSteps withdraw(Bytes statement);

  bool finished() const;
  std::uint64_t run() const;
  const ParticipantRecord& record() const;
  /// For people: "training", "waiting for witnesses".
  std::string_view state() const;

 private:
  friend struct Inspection;  ///< of the tests alone: copies a machine and reads its whole state
  struct Impl;
  explicit Participant(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace cloister::protocols::round

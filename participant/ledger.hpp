#pragma once
// What has left this hospital, for good: one ledger per data set, over all studies and charters. It is asked before
// anything is done and written, durably, before anything is answered. Nothing in it is ever changed; a refund is a
// record of its own. Not thread-safe.

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "attest/judge.hpp"
#include "base/crypto.hpp"
#include "base/encoding.hpp"
#include "base/log.hpp"
#include "participant/ledger_file.hpp"

namespace cloister::participant {

/// A run under a charter; its number is used once.
struct RunId {
  base::Sha256 charter{};
  std::uint64_t run = 0;
  auto operator<=>(const RunId&) const = default;
};

/// A round of a run; its number is used once.
struct RoundId {
  base::Sha256 charter{};
  std::uint64_t run = 0;
  std::uint32_t round = 0;
  auto operator<=>(const RoundId&) const = default;
  RunId of() const { return {charter, run}; }
  std::string text() const;  ///< "run 3 round 7"
};

/// A task that this hospital agreed to do.
struct Charge {
  RoundId id;
  std::string study;
  std::string task;      ///< "statistics", "train", "evaluate"
  base::Sha256 offer{};  ///< of what was offered (gate.hpp, offer_digest): the same round is never done for two offers
  base::Sha256 order{};  ///< of the run order
  std::vector<std::string> withdrawn{};  ///< the data owners that the offer left out
};

struct StoredUpdate {
  base::Sha256 digest{};
  std::uint64_t length = 0;
  std::uint64_t weight = 0;
  auto operator<=>(const StoredUpdate&) const = default;
};

/// What the ledger knows of a round.
struct LedgerRound {
  std::optional<Charge> charge;
  Time charged{};
  bool refunded = false;                ///< the run ended before an update was recorded: nothing had left
  std::optional<StoredUpdate> update;   ///< from here on bytes may have left: never refunded
  std::optional<base::Sha256> receipt;  ///< digest of the one receipt that this witness signs, or knows as committed
  bool committed = false;               ///< its quorum's acknowledgements are in the ledger
};

/// A committed round as the ledger's file has it.
struct LedgerReceipt {
  RoundId id;
  base::Sha256 digest{};
  Bytes receipt{};  ///< SignedReceipt
  std::vector<Bytes> acknowledgements;
};

struct LedgerRun {
  std::optional<base::PublicKey> receipt_key;  ///< the one instance that this run is served
  std::string outcome, reason;                 ///< once it ended
  /// Of the last two rounds with a receipt: SignedReceipt, by round. Older ones are in the file only.
  std::map<std::uint32_t, Bytes> receipts;
};

/// The ledger's content. Reading needs no lock.
struct LedgerState {
  std::string data_set;
  std::map<RunId, LedgerRun> runs;
  std::map<RoundId, LedgerRound> rounds;
  std::map<base::Sha256, base::Sha256> successors;  ///< charter to the charter that this node adopted after it
  std::map<base::Sha256, base::Sha256> agreed;      ///< charter to the successor that this witness has signed
  std::map<base::Sha256, std::string> studies;      ///< charter to its study, for those adopted
  Time seen{};                                      ///< the latest time at which a task was charged, under any charter

  /// What has left already, without `id` itself, as judge() wants it.
  attest::Spent spent(const std::string& study, const RoundId& id) const;
  const LedgerRound* round(const RoundId& id) const;
  const LedgerRun* run(const RunId& id) const;
  /// The charter that has succeeded this one here: adopted by this node, or agreed to by its witness key.
  std::optional<base::Sha256> successor(const base::Sha256& charter) const;
  /// This hospital has served the run or signed a receipt of it: under a succeeded charter such a run may still finish.
  bool begun(const RunId& id) const;
  /// The last round of the run that `matches`; null when there is none.
  template <class Match>
  const std::pair<const RoundId, LedgerRound>* last(const RunId& id, Match matches) const {
    for (auto it = rounds.upper_bound({id.charter, id.run, ~std::uint32_t{0}}); it != rounds.begin();) {
      if ((--it)->first.of() != id) return nullptr;
      if (matches(it->second)) return &*it;
    }
    return nullptr;
  }
  /// The last round of the run with a signed receipt; null when there is none.
  const std::pair<const RoundId, LedgerRound>* last_receipt(const RunId& id) const;

  std::string text() const;  ///< for people
  std::string json() const;
};

class Ledger {
 public:
  /// `folder` is made when missing. Errors as LedgerFile::open, and denied when the file is another data set's.
  /// `clock` stamps the records: this hospital's own.
  static Result<std::unique_ptr<Ledger>> open(const std::string& folder, const std::string& data_set, base::Log& log,
                                              std::function<Time()> clock = base::now);
  /// For listings, also while a node runs. Error unavailable when there is none yet.
  static Result<LedgerState> read(const std::string& folder, const std::string& data_set);
  /// The committed rounds, in the order in which they were; also while a node runs.
  static Result<std::vector<LedgerReceipt>> read_receipts(const std::string& folder, const std::string& data_set);

  const LedgerState& state() const { return state_; }
  const std::string& path() const { return file_.path(); }

  // Each is durable on return, unless it says otherwise. The same again does nothing and succeeds; what contradicts an
  // earlier record is Error::denied.

  /// This node works under `charter`; with `previous` it serves no new run under that one from now on
  /// (docs/policies.md, succession).
  Result<void> adopt(const base::Sha256& charter, const std::string& study, std::optional<base::Sha256> previous);
  /// This hospital's witness key has signed `successor`: no new run under `charter` from now on, neither served nor
  /// witnessed. A node may still be started under `charter`, so that a run that has begun finishes.
  Result<void> agree(const base::Sha256& charter, const base::Sha256& successor);
  /// One receipt key per run, ever: a restarted or second instance has another (docs/how-it-works.md).
  Result<void> serve(const RunId& id, const base::PublicKey& receipt_key);
  /// Nothing leaves for a charge alone: it survives the process at once, and a power cut from record_update() on, which
  /// comes before the update's first byte. A charge that a power cut takes before was for an answer that never left.
  Result<void> charge(const Charge& charge);
  /// serve() and charge() in one step, likewise.
  Result<void> charge(const Charge& charge, const base::PublicKey& receipt_key);
  /// Before the update's digest is announced to anybody. Durable, and with it the charge.
  Result<void> record_update(const RoundId& id, const StoredUpdate& update);
  /// Before the acknowledgement is sent: this witness signs one receipt per round, ever.
  Result<void> sign_receipt(const RoundId& id, const base::Sha256& digest, View signed_receipt);
  /// The same and serve() in one durable step.
  Result<void> sign_receipt(const RoundId& id, const base::Sha256& digest, View signed_receipt,
                            const base::PublicKey& receipt_key);
  /// The round is committed by these acknowledgements. Nothing is answered for it: the record survives the process at
  /// once and a power cut with the next durable step, and an aggregator tells whoever lost it again. Durable where this
  /// node did not sign the receipt before.
  Result<void> commit(const RoundId& id, const base::Sha256& digest, View signed_receipt,
                      const std::vector<Bytes>& acknowledgements);
  /// The run is over. Charges of it whose update was never recorded are refunded: of those nothing has left.
  Result<void> end_run(const RunId& id, const std::string& outcome, const std::string& reason);

 private:
  Ledger(LedgerFile file, LedgerState state, std::function<Time()> clock)
      : file_(std::move(file)), state_(std::move(state)), clock_(std::move(clock)) {}
  base::Writer record(std::string_view kind) const;
  base::Writer record(std::string_view kind, const RunId& id) const;
  base::Writer record(std::string_view kind, const RoundId& id) const;
  /// Denied for a run that begins under a charter that has been succeeded here.
  Result<void> not_succeeded(const RunId& id) const;
  using Payload = std::optional<Bytes>;  ///< of a record that is to be written; nothing when it is there already
  Result<Payload> serve_record(const RunId& id, const base::PublicKey& receipt_key) const;
  Result<Payload> charge_record(const Charge& charge) const;
  Result<Payload> receipt_record(const RoundId& id, const base::Sha256& digest, View signed_receipt) const;
  Result<void> append(std::initializer_list<Payload> payloads,
                      LedgerFile::Until durable = LedgerFile::Until::power_cut);
  LedgerFile file_;
  LedgerState state_;
  std::function<Time()> clock_;
};

/// The file's name in the ledger's folder.
std::string ledger_file_name(const std::string& data_set);

}  // namespace cloister::participant

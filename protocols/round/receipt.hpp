#pragma once
// What a round leaves behind for good: its receipt, the acknowledgements that commit it, and the withdrawals it
// honoured (docs/formats.md, "Receipts"). Parsers take any bytes and give a Result; everything here is pure and
// thread-safe.

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "attest/charter.hpp"
#include "base/crypto.hpp"
#include "protocols/round/members.hpp"

namespace cloister::protocols::round {

/// One committed step of a run. Its digest is SHA-256 of serialize().
struct Receipt {
  base::Sha256 charter{};
  std::uint64_t run = 0;
  std::uint32_t round = 0;        ///< from 1
  std::string task;               ///< "statistics", "train", "evaluate"
  std::uint32_t train_round = 0;  ///< train tasks of this run up to and with this round
  base::Sha256 order{};           ///< SHA-256 of the serialized run order
  attest::Settings settings;      ///< complete: chosen values and defaults
  Members members;                ///< every data owner of the charter, in the manifest's order
  base::Sha256 updates{};         ///< merkle_root over the contributors' leaf entries, in the manifest's order
  std::string algorithm;
  std::optional<double> clip, noise, epsilon;       ///< absent: none was applied, nothing bounds the disclosure
  std::optional<base::Sha256> model_in, model_out;  ///< equal unless the task trained; absent in a statistics task
  std::optional<base::Sha256> optimizer;            ///< state of the server optimizer after this round
  std::optional<base::Sha256> statistics;           ///< in force when the round was offered
  std::optional<base::Sha256> result;               ///< of the value of a statistics or evaluate task
  std::string kernel_set;
  base::Sha256 evidence{};  ///< SHA-256 of the instance evidence
  bool simulated = false;
  std::optional<base::Sha256> previous;  ///< the receipt before; absent in round 1

  std::uint32_t contributors() const { return members.contributors(); }
  Bytes serialize() const;
  static Result<Receipt> parse(View bytes);
  /// An object for people and tools; not what is signed. Members: all of them, or of more than `json_members` only
  /// those who did not contribute; with their names when there is a manifest.
  std::string json(const attest::Manifest* manifest) const;
  static constexpr std::size_t json_members = 256;
};

/// A receipt under the receipt key that the instance evidence binds. On the wire field(receipt) || raw signature.
struct SignedReceipt {
  Receipt receipt;
  base::Signature signature{};  ///< context "cloister receipt 1"
  base::Sha256 digest{};        ///< of the receipt without its signature

  static SignedReceipt sign(Receipt receipt, const base::PrivateKey& receipt_key);
  /// Does not verify the signature.
  static Result<SignedReceipt> parse(View bytes);
  Bytes serialize() const;
  bool verifies(const base::PublicKey& receipt_key) const;
};

/// "I have stored this receipt durably, and will sign no other for its (run, round)."
struct Acknowledgement {
  std::string witness;  ///< data owner
  base::Sha256 charter{};
  std::uint64_t run = 0;
  std::uint32_t round = 0;
  base::Sha256 receipt{};       ///< digest
  base::Signature signature{};  ///< context "cloister acknowledgement 1", by the owner's witness key

  static Acknowledgement sign(std::string witness, const Receipt& receipt, const base::Sha256& digest,
                              const base::PrivateKey& witness_key);
  Bytes statement() const;
  Bytes serialize() const;  ///< field(statement) || raw signature
  static Result<Acknowledgement> parse(View bytes);
};

/// A data owner leaves a study: the next round runs without it. Effective as soon as an instance sees it, because an
/// enclave has no clock that it may trust; `from` is the owner's own record.
struct Withdrawal {
  std::string owner;
  base::Sha256 charter{};
  std::string study;
  std::uint64_t serial = 0;  ///< the owner's own count of its statements, from 1
  Time from{};
  base::Signature signature{};  ///< context "cloister withdrawal 1", by the owner's witness key

  static Withdrawal sign(std::string owner, const attest::Charter& charter, std::uint64_t serial, Time from,
                         const base::PrivateKey& witness_key);
  Bytes statement() const;
  Bytes serialize() const;  ///< field(statement) || raw signature
  static Result<Withdrawal> parse(View bytes);
  /// Charter, study, a data owner of it, its witness key's signature.
  Result<void> verify(const attest::Charter& charter) const;
};

/// A receipt with acknowledgements, as the coordinator stores and anybody checks it.
struct CommittedReceipt {
  Bytes receipt;                        ///< SignedReceipt
  std::vector<Bytes> acknowledgements;  ///< each an Acknowledgement
};

/// Is `acknowledgement` by a witness of the charter, for this receipt, and does its signature hold?
Result<void> verify_acknowledgement(const Acknowledgement& acknowledgement, const SignedReceipt& receipt,
                                    const attest::Charter& charter);

/// Do q = floor((n + b) / 2) + 1 different witnesses acknowledge it? Any acknowledgement that does not hold is an error
/// too.
Result<void> verify_quorum(const SignedReceipt& receipt, std::span<const Bytes> acknowledgements,
                           const attest::Charter& charter);

/// One link: signature, charter and run; round, previous receipt, model in, statistics and settings follow from
/// `previous` (null in round 1); task and train round are the ones that the charter schedules; members are the
/// charter's data owners and enough of them contributed. Needs no acknowledgements: a witness checks this before it
/// signs.
Result<void> verify_link(const SignedReceipt& receipt, const SignedReceipt* previous, const attest::Charter& charter,
                         const base::PublicKey& receipt_key);

/// The whole of a run from its first round, offline: every link and every quorum. Gives the receipts.
/// `evidence`: SHA-256 of the instance evidence whose record binds `receipt_key`; the caller judges that evidence.
Result<std::vector<SignedReceipt>> verify_chain(std::span<const CommittedReceipt> receipts,
                                                const attest::Charter& charter, const base::PublicKey& receipt_key,
                                                const base::Sha256& evidence);

/// The largest `study.participants.at_least` of all policies, and whose it is.
struct Minimum {
  std::uint32_t at_least = 0;
  std::string owner;  ///< "charite (data)"
};
Minimum minimum_contributors(const attest::Charter& charter);

/// A run's tasks in order: round r is element r - 1. Statistics first when the manifest asks for them, then the train
/// tasks, with an evaluate task after every `evaluate_every`-th of them.
struct ScheduledTask {
  std::string task;
  std::uint32_t train_round = 0;
};
/// Task of round `round`, from 1; nothing before the first and after the last.
std::optional<ScheduledTask> scheduled(const attest::Manifest& manifest, const attest::Settings& settings,
                                       std::uint32_t round);
std::uint32_t schedule_length(const attest::Manifest& manifest, const attest::Settings& settings);
std::vector<ScheduledTask> schedule(const attest::Manifest& manifest, const attest::Settings& settings);

}  // namespace cloister::protocols::round

#pragma once
// What the model owner's coordinator must not forget: studies, runs, events, receipts and results, as rows in SQLite
// through one SQL layer (SOCI), and models as files named by their digest.
//
// Durable: every change is one transaction in a write-ahead log that is synced before the call returns. Rows of runs
// are never deleted and a run's number comes from its study's counter in the same transaction, so no number is ever
// used twice. A database belongs to one process at a time. Not thread-safe. A disk or database that fails throws
// cloister::Exception (unavailable); what a caller asks wrongly comes back as a Result.

#include <cstdio>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "attest/run_order.hpp"
#include "base/crypto.hpp"
#include "base/time.hpp"

namespace cloister::coordinator {

/// A run number is used once under a charter; other charters count for themselves.
struct RunId {
  base::Sha256 charter{};
  std::uint64_t run = 0;
  auto operator<=>(const RunId&) const = default;
};

/// In the order of a run's life. `running`: the run order may have reached an aggregator, so the run is spent whatever
/// follows.
enum class RunState { queued, launching, running, done, failed, cancelled };
std::string_view name(RunState state);
Result<RunState> parse_run_state(std::string_view text);
inline bool ended(RunState state) {
  return state >= RunState::done;
}

struct Study {
  base::Sha256 charter{};
  std::string name;
  std::uint64_t sequence = 0;  ///< of the charter
  std::uint64_t next_run = 1;
  Time added_at{};
};

struct Run {
  RunId id;
  std::string study;
  std::string submitter;
  Bytes order;  ///< attest::RunOrder, serialized, with both signatures
  std::string note;
  std::string settings_json;  ///< complete settings
  RunState state = RunState::queued;
  std::string reason;                             ///< why it waits, failed or was cancelled
  std::string cancel;                             ///< why somebody asked for its end, or empty
  std::uint32_t round = 0;                        ///< last committed round, 0 before the first
  std::uint32_t rounds = 0;                       ///< train rounds asked for
  bool simulated = false;                         ///< the enclave that ran it had no hardware behind it
  Bytes record;                                   ///< instance record of the enclave that was given the order
  Bytes evidence;                                 ///< its instance evidence
  Time submitted_at{}, started_at{}, ended_at{};  ///< the epoch: not yet
};

/// What happened to a run, as a JSON object (view.hpp makes them).
struct Event {
  std::uint64_t number = 0;  ///< from 1 within its run
  Time at{};
  std::string json;
};

struct Receipt {
  std::uint32_t round = 0;
  Bytes receipt;  ///< SignedReceipt
  std::vector<Bytes> acknowledgements;
};

struct Published {
  std::uint32_t round = 0;
  std::string kind;       ///< "model", "evaluate", "statistics"
  Bytes value;            ///< canonical encoding; empty for a model
  base::Sha256 digest{};  ///< of the value, or of the model file
};

/// What decides about a submission, read in the transaction that will hold the run.
struct Usage {
  std::uint64_t next_run = 1;
  std::uint32_t runs_of_submitter = 0;  ///< accepted so far under this charter, whatever became of them
};

struct NewRun {
  attest::RunOrder order;  ///< numbered usage.next_run and signed
  std::uint32_t rounds = 0;
  std::string settings_json;
};

class Store {
 public:
  /// Makes the folder when it is not there, takes its lock, brings the schema up to this build's version.
  /// Throws: unavailable (another process has it), unsupported (written by a newer build).
  static std::unique_ptr<Store> open(const std::string& folder);
  ~Store();
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  int schema_version();

  /// Adds the study of a founded charter; a known one stays as it is.
  void add_study(const attest::Charter& charter, Time at);
  std::vector<Study> studies();

  /// One transaction: usage is read, `decide` numbers and signs, the run is queued with `event` made from it. The same
  /// submission again gives the run that it made, without asking `decide`. An error of `decide` leaves no trace.
  Result<Run> submit(const base::Sha256& charter, const std::string& submitter, const base::Sha256& submission,
                     const std::function<Result<NewRun>(const Usage&)>& decide,
                     const std::function<std::string(const Run&)>& event, Time at);

  std::optional<Run> run(const RunId& id);
  std::vector<Run> runs();                                   ///< by study, then number
  std::vector<Run> unfinished(const base::Sha256& charter);  ///< by number

  /// To `state` with its reason, and the event, in one transaction. False, and nothing changes, when the run had ended
  /// already.
  bool move(const RunId& id, RunState state, const std::string& reason, const std::string& event, Time at);
  /// To `running` under this instance, before the order is sent to it. False when the run had ended.
  bool start(const RunId& id, View record, bool simulated, const std::string& event, Time at);
  /// Somebody wants it to end; the run's state follows. False when it had ended.
  bool ask_cancel(const RunId& id, const std::string& reason, const std::string& event, Time at);
  /// Instance evidence, which comes with the first receipt.
  void set_evidence(const RunId& id, View evidence);

  void add_event(const RunId& id, const std::string& json, Time at);
  std::vector<Event> events(const RunId& id, std::uint64_t after = 0);

  /// A committed round: receipt, acknowledgements, the run's round, the event. The same receipt again is no change and
  /// gives false; another receipt for a round that has one is untrusted.
  Result<bool> add_receipt(const RunId& id, const Receipt& receipt, const std::string& event, Time at);
  std::vector<Receipt> receipts(const RunId& id);
  /// The signed receipt of one round; of the last one for round 0. Nothing when there is none.
  std::optional<Bytes> receipt(const RunId& id, std::uint32_t round);

  /// A published result, likewise. A model's file must be there already (ModelFile::keep).
  Result<bool> add_result(const RunId& id, const Published& result, const std::string& event, Time at);
  /// Of the given round, or of the last one for round 0.
  std::optional<Published> result(const RunId& id, std::string_view kind, std::uint32_t round);
  std::vector<Published> results(const RunId& id);

  /// An instance that the launcher named for this charter, and its end.
  void add_instance(const base::Sha256& charter, const std::string& instance, Time at);
  void end_instance(const base::Sha256& charter, const std::string& instance, const std::string& reason, Time at);
  std::vector<std::string> living_instances(const base::Sha256& charter);

  std::string model_path(const base::Sha256& digest) const;
  const std::string& folder() const { return folder_; }

 private:
  struct Database;
  Store(std::string folder, std::unique_ptr<Database> database);
  std::string folder_;
  std::unique_ptr<Database> db_;
};

/// A model on its way to its file: written aside, then kept under its digest. Dropped when it is destroyed before
/// keep().
class ModelFile {
 public:
  ModelFile(const Store& store, std::uint64_t length);
  ~ModelFile();
  ModelFile(const ModelFile&) = delete;
  ModelFile& operator=(const ModelFile&) = delete;

  /// Throws malformed when there is more than `length`.
  void write(View bytes);
  std::uint64_t left() const { return length_ - written_; }
  /// Synced and in place when it returns. Errors: malformed (too short), untrusted (another digest).
  Result<void> keep(const base::Sha256& digest);

 private:
  const Store& store_;
  std::uint64_t length_, written_ = 0;
  std::string path_;
  std::FILE* file_ = nullptr;
  base::Hasher hash_;
};

}  // namespace cloister::coordinator

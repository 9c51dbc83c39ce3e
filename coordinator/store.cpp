#include "coordinator/store.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <soci/soci.h>
#include <soci/sqlite3/soci-sqlite3.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/file.hpp"
#include "coordinator/schema.hpp"

namespace cloister::coordinator {

namespace {

using soci::into;
using soci::use;

constexpr std::string_view state_names[] = {"queued", "launching", "running", "done", "failed", "cancelled"};

std::string hex(View bytes) {
  return base::hex(bytes);
}
std::string hex(const base::Sha256& digest) {
  return base::hex(digest);
}

Bytes unhex(const std::string& text) {
  return base::from_hex(text, "database").value();
}
base::Sha256 unhex32(const std::string& text) {
  Bytes bytes = unhex(text);
  if (bytes.size() != 32)
    throw Exception(base::malformed("database", "a digest of " + std::to_string(bytes.size()) + " bytes"));
  return base::array<32>(bytes);
}

long long number(Time time) {
  return time.time_since_epoch().count();
}
Time time_of(long long seconds) {
  return Time(std::chrono::seconds(seconds));
}
long long number(std::uint64_t v) {
  return static_cast<long long>(v);
}

/// The key of a run's rows, as SOCI binds it.
struct Key {
  std::string charter;
  long long run;
  explicit Key(const RunId& id) : charter(hex(id.charter)), run(number(id.run)) {}
};

constexpr const char* run_columns =
    "SELECT r.charter, r.run, s.name, r.submitter, r.order_body, r.note, r.settings, r.state, r.reason, r.cancel,"
    " r.round, r.rounds, r.simulated, r.record, r.evidence, r.submitted_at, r.started_at, r.ended_at"
    " FROM runs r JOIN studies s ON s.charter = r.charter ";

Run run_of(const soci::row& row) {
  auto string = [&](std::size_t i) { return row.get<std::string>(i); };
  auto integer = [&](std::size_t i) { return row.get<long long>(i); };
  Run run;
  run.id = {unhex32(string(0)), static_cast<std::uint64_t>(integer(1))};
  run.study = string(2);
  run.submitter = string(3);
  run.order = unhex(string(4));
  run.note = string(5);
  run.settings_json = string(6);
  run.state = parse_run_state(string(7)).value();
  run.reason = string(8);
  run.cancel = string(9);
  run.round = static_cast<std::uint32_t>(integer(10));
  run.rounds = static_cast<std::uint32_t>(integer(11));
  run.simulated = integer(12) != 0;
  run.record = unhex(string(13));
  run.evidence = unhex(string(14));
  run.submitted_at = time_of(integer(15));
  run.started_at = time_of(integer(16));
  run.ended_at = time_of(integer(17));
  return run;
}

/// SOCI's errors are ours to report: the disk is full, the file is damaged, somebody else writes.
template <class F>
auto guarded(F&& f) {
  try {
    return f();
  } catch (const soci::soci_error& e) {
    throw Exception(base::unavailable("database", e.what()));
  }
}

[[noreturn]] void throw_errno(const std::string& path, const char* what) {
  throw Exception(base::unavailable(path, std::string(what) + ": " + std::strerror(errno)));
}

}  // namespace

std::string_view name(RunState state) {
  return state_names[static_cast<std::size_t>(state)];
}

Result<RunState> parse_run_state(std::string_view text) {
  for (std::size_t i = 0; i < std::size(state_names); ++i)
    if (text == state_names[i]) return static_cast<RunState>(i);
  return base::malformed(
      "run state", "\"" + std::string(text) + "\" is none of queued, launching, running, done, failed, cancelled");
}

struct Store::Database {
  int lock = -1;
  soci::session sql;
  ~Database() {
    if (lock >= 0) ::close(lock);
  }

  void event(const Key& key, const std::string& json, Time at) {
    const long long when = number(at);
    sql << "INSERT INTO events (charter, run, number, at, body) VALUES (:c, :r,"
           " (SELECT coalesce(max(number), 0) + 1 FROM events WHERE charter = :c2 AND run = :r2), :a, :b)",
        use(key.charter), use(key.run), use(key.charter), use(key.run), use(when), use(json);
  }
};

std::unique_ptr<Store> Store::open(const std::string& folder) {
  base::make_folder(folder, 0700).value();
  base::make_folder(folder + "/models", 0700).value();
  auto db = std::make_unique<Database>();
  const std::string lock = folder + "/lock";
  db->lock = ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (db->lock < 0) throw_errno(lock, "cannot be made");
  if (::flock(db->lock, LOCK_EX | LOCK_NB) != 0)
    throw Exception(base::unavailable(
        folder, "another coordinator has this database; end it first, or give this one its own folder"));
  guarded([&] {
    db->sql.open(soci::sqlite3, "dbname=\"" + folder + "/coordinator.db\" timeout=10");
    std::string mode;
    db->sql << "PRAGMA journal_mode = WAL", into(mode);
    if (mode != "wal")
      throw Exception(base::unavailable("database", "no write-ahead log on this file system: journal_mode is " + mode));
    db->sql << "PRAGMA synchronous = FULL";  // a commit is on the disk before it is believed
    db->sql << "PRAGMA foreign_keys = ON";
    migrate(db->sql, schema_versions());
  });
  // A model that was on its way when the last process died is nobody's.
  for (const auto& entry : std::filesystem::directory_iterator(folder + "/models"))
    if (entry.path().extension() == ".part") std::filesystem::remove(entry.path());
  return std::unique_ptr<Store>(new Store(folder, std::move(db)));
}

Store::Store(std::string folder, std::unique_ptr<Database> database)
    : folder_(std::move(folder)), db_(std::move(database)) {}
Store::~Store() = default;

int Store::schema_version() {
  return guarded([&] { return coordinator::schema_version(db_->sql); });
}

void Store::add_study(const attest::Charter& charter, Time at) {
  guarded([&] {
    const std::string digest = hex(charter.digest), body = hex(charter.serialize());
    const long long sequence = number(charter.sequence), when = number(at);
    db_->sql << "INSERT INTO studies (charter, name, sequence, body, next_run, added_at) VALUES (:c, :n, :s, :b, 1, :a)"
                " ON CONFLICT (charter) DO NOTHING",
        use(digest), use(charter.manifest.study), use(sequence), use(body), use(when);
  });
}

std::vector<Study> Store::studies() {
  return guarded([&] {
    std::vector<Study> out;
    soci::rowset<soci::row> rows =
        (db_->sql.prepare
         << "SELECT charter, name, sequence, next_run, added_at FROM studies ORDER BY added_at, charter");
    for (const soci::row& row : rows)
      out.push_back({unhex32(row.get<std::string>(0)), row.get<std::string>(1),
                     static_cast<std::uint64_t>(row.get<long long>(2)),
                     static_cast<std::uint64_t>(row.get<long long>(3)), time_of(row.get<long long>(4))});
    return out;
  });
}

Result<Run> Store::submit(const base::Sha256& charter, const std::string& submitter, const base::Sha256& submission,
                          const std::function<Result<NewRun>(const Usage&)>& decide,
                          const std::function<std::string(const Run&)>& event, Time at) {
  return guarded([&]() -> Result<Run> {
    const std::string c = hex(charter), s = hex(submission);
    soci::transaction transaction(db_->sql);
    long long known = 0;
    db_->sql << "SELECT coalesce(max(run), 0) FROM runs WHERE charter = :c AND submission = :s", use(c), use(s),
        into(known);
    if (known != 0) return *run({charter, static_cast<std::uint64_t>(known)});

    long long next = 0, used = 0;
    db_->sql << "SELECT coalesce(max(next_run), 0) FROM studies WHERE charter = :c", use(c), into(next);
    if (next == 0) return base::unavailable("study", "this coordinator has no charter " + base::digest_text(charter));
    db_->sql << "SELECT count(*) FROM runs WHERE charter = :c AND submitter = :s", use(c), use(submitter), into(used);
    auto decided = decide({static_cast<std::uint64_t>(next), static_cast<std::uint32_t>(used)});
    if (!decided) return decided.error();

    const RunId id{charter, static_cast<std::uint64_t>(next)};
    const std::string order = hex(decided->order.serialize());
    const std::string state(name(RunState::queued));
    const long long rounds = decided->rounds, when = number(at);
    db_->sql << "INSERT INTO runs (charter, run, submitter, submission, order_body, note, settings, state, rounds, "
                "submitted_at)"
                " VALUES (:c, :r, :s, :d, :o, :n, :j, :t, :k, :a)",
        use(c), use(next), use(submitter), use(s), use(order), use(decided->order.note), use(decided->settings_json),
        use(state), use(rounds), use(when);
    db_->sql << "UPDATE studies SET next_run = next_run + 1 WHERE charter = :c", use(c);
    Run made = *run(id);
    db_->event(Key(id), event(made), at);
    transaction.commit();
    return made;
  });
}

std::optional<Run> Store::run(const RunId& id) {
  return guarded([&]() -> std::optional<Run> {
    const Key key(id);
    soci::row row;
    db_->sql << std::string(run_columns) + "WHERE r.charter = :c AND r.run = :r", use(key.charter), use(key.run),
        into(row);
    if (!db_->sql.got_data()) return std::nullopt;
    return run_of(row);
  });
}

std::vector<Run> Store::runs() {
  return guarded([&] {
    std::vector<Run> out;
    soci::rowset<soci::row> rows =
        (db_->sql.prepare << std::string(run_columns) + "ORDER BY s.added_at, r.charter, r.run");
    for (const soci::row& row : rows) out.push_back(run_of(row));
    return out;
  });
}

std::vector<Run> Store::unfinished(const base::Sha256& charter) {
  return guarded([&] {
    const std::string c = hex(charter);
    std::vector<Run> out;
    soci::rowset<soci::row> rows =
        (db_->sql.prepare
             << std::string(run_columns) +
                    "WHERE r.charter = :c AND r.state IN ('queued', 'launching', 'running') ORDER BY r.run",
         use(c));
    for (const soci::row& row : rows) out.push_back(run_of(row));
    return out;
  });
}

bool Store::move(const RunId& id, RunState state, const std::string& reason, const std::string& event, Time at) {
  return guarded([&] {
    const Key key(id);
    const std::string to(name(state));
    const long long ended_at = ended(state) ? number(at) : 0;
    soci::transaction transaction(db_->sql);
    soci::statement update =
        (db_->sql.prepare << "UPDATE runs SET state = :s, reason = :w, ended_at = :e WHERE charter = :c AND"
                             " run = :r AND state IN ('queued', 'launching', 'running')",
         use(to), use(reason), use(ended_at), use(key.charter), use(key.run));
    update.execute(true);
    if (update.get_affected_rows() != 1) return false;
    db_->event(key, event, at);
    transaction.commit();
    return true;
  });
}

bool Store::start(const RunId& id, View record, bool simulated, const std::string& event, Time at) {
  return guarded([&] {
    const Key key(id);
    const std::string record_hex = hex(record);
    const long long when = number(at), sim = simulated;
    soci::transaction transaction(db_->sql);
    soci::statement update =
        (db_->sql.prepare << "UPDATE runs SET state = 'running', reason = '', record = :i,"
                             " simulated = :m, started_at = :a WHERE charter = :c AND run = :r AND state IN"
                             " ('queued', 'launching')",
         use(record_hex), use(sim), use(when), use(key.charter), use(key.run));
    update.execute(true);
    if (update.get_affected_rows() != 1) return false;
    db_->event(key, event, at);
    transaction.commit();
    return true;
  });
}

bool Store::ask_cancel(const RunId& id, const std::string& reason, const std::string& event, Time at) {
  return guarded([&] {
    const Key key(id);
    soci::transaction transaction(db_->sql);
    soci::statement update =
        (db_->sql.prepare << "UPDATE runs SET cancel = :w WHERE charter = :c AND run = :r AND state IN"
                             " ('queued', 'launching', 'running')",
         use(reason), use(key.charter), use(key.run));
    update.execute(true);
    if (update.get_affected_rows() != 1) return false;
    db_->event(key, event, at);
    transaction.commit();
    return true;
  });
}

void Store::set_evidence(const RunId& id, View evidence) {
  guarded([&] {
    const Key key(id);
    const std::string body = hex(evidence);
    db_->sql << "UPDATE runs SET evidence = :e WHERE charter = :c AND run = :r", use(body), use(key.charter),
        use(key.run);
  });
}

void Store::add_event(const RunId& id, const std::string& json, Time at) {
  guarded([&] {
    soci::transaction transaction(db_->sql);
    db_->event(Key(id), json, at);
    transaction.commit();
  });
}

std::vector<Event> Store::events(const RunId& id, std::uint64_t after) {
  return guarded([&] {
    const Key key(id);
    const long long from = number(after);
    std::vector<Event> out;
    soci::rowset<soci::row> rows =
        (db_->sql.prepare << "SELECT number, at, body FROM events WHERE charter = :c AND run = :r AND"
                             " number > :n ORDER BY number",
         use(key.charter), use(key.run), use(from));
    for (const soci::row& row : rows)
      out.push_back(
          {static_cast<std::uint64_t>(row.get<long long>(0)), time_of(row.get<long long>(1)), row.get<std::string>(2)});
    return out;
  });
}

Result<bool> Store::add_receipt(const RunId& id, const Receipt& receipt, const std::string& event, Time at) {
  return guarded([&]() -> Result<bool> {
    const Key key(id);
    const long long round = receipt.round;
    const std::string body = hex(receipt.receipt);
    soci::transaction transaction(db_->sql);
    std::string before;
    db_->sql << "SELECT body FROM receipts WHERE charter = :c AND run = :r AND round = :n", use(key.charter),
        use(key.run), use(round), into(before);
    if (db_->sql.got_data()) {
      if (before == body) return false;
      // By rule: a withheld, rerun or forked round cannot yield a second answer.
      return base::untrusted("receipt of round " + std::to_string(receipt.round),
                             "the enclave showed another receipt for this round before; one of the two is a fork");
    }
    db_->sql << "INSERT INTO receipts (charter, run, round, body) VALUES (:c, :r, :n, :b)", use(key.charter),
        use(key.run), use(round), use(body);
    long long position = 0;
    for (const Bytes& acknowledgement : receipt.acknowledgements) {
      const std::string ack = hex(acknowledgement);
      db_->sql << "INSERT INTO acknowledgements (charter, run, round, position, body) VALUES (:c, :r, :n, :p, :b)",
          use(key.charter), use(key.run), use(round), use(position), use(ack);
      ++position;
    }
    db_->sql << "UPDATE runs SET round = :n WHERE charter = :c AND run = :r AND round < :n2", use(round),
        use(key.charter), use(key.run), use(round);
    db_->event(key, event, at);
    transaction.commit();
    return true;
  });
}

std::optional<Bytes> Store::receipt(const RunId& id, std::uint32_t round) {
  return guarded([&]() -> std::optional<Bytes> {
    const Key key(id);
    const long long number = round;
    std::string body;
    db_->sql
        << "SELECT body FROM receipts WHERE charter = :c AND run = :r AND (round = :n OR :n2 = 0) ORDER BY round DESC"
           " LIMIT 1",
        use(key.charter), use(key.run), use(number), use(number), into(body);
    if (!db_->sql.got_data()) return std::nullopt;
    return unhex(body);
  });
}

std::vector<Receipt> Store::receipts(const RunId& id) {
  return guarded([&] {
    const Key key(id);
    std::vector<Receipt> out;
    soci::rowset<soci::row> rows =
        (db_->sql.prepare << "SELECT round, body FROM receipts WHERE charter = :c AND run = :r ORDER BY round",
         use(key.charter), use(key.run));
    for (const soci::row& row : rows)
      out.push_back({static_cast<std::uint32_t>(row.get<long long>(0)), unhex(row.get<std::string>(1)), {}});
    for (Receipt& receipt : out) {
      const long long round = receipt.round;
      soci::rowset<std::string> acks =
          (db_->sql.prepare << "SELECT body FROM acknowledgements WHERE charter = :c AND run = :r AND"
                               " round = :n ORDER BY position",
           use(key.charter), use(key.run), use(round));
      for (const std::string& ack : acks) receipt.acknowledgements.push_back(unhex(ack));
    }
    return out;
  });
}

Result<bool> Store::add_result(const RunId& id, const Published& result, const std::string& event, Time at) {
  return guarded([&]() -> Result<bool> {
    const Key key(id);
    const long long round = result.round;
    const std::string body = hex(result.value), digest = hex(result.digest);
    soci::transaction transaction(db_->sql);
    std::string before;
    db_->sql << "SELECT digest FROM results WHERE charter = :c AND run = :r AND round = :n AND kind = :k",
        use(key.charter), use(key.run), use(round), use(result.kind), into(before);
    if (db_->sql.got_data()) {
      if (before == digest) return false;
      return base::untrusted(result.kind + " of round " + std::to_string(result.round),
                             "the enclave published another one before, sha256:" + before + "; now sha256:" + digest);
    }
    db_->sql << "INSERT INTO results (charter, run, round, kind, body, digest) VALUES (:c, :r, :n, :k, :b, :d)",
        use(key.charter), use(key.run), use(round), use(result.kind), use(body), use(digest);
    db_->event(key, event, at);
    transaction.commit();
    return true;
  });
}

std::vector<Published> Store::results(const RunId& id) {
  return guarded([&] {
    const Key key(id);
    std::vector<Published> out;
    soci::rowset<soci::row> rows =
        (db_->sql.prepare
             << "SELECT round, kind, body, digest FROM results WHERE charter = :c AND run = :r ORDER BY round, kind",
         use(key.charter), use(key.run));
    for (const soci::row& row : rows)
      out.push_back({static_cast<std::uint32_t>(row.get<long long>(0)), row.get<std::string>(1),
                     unhex(row.get<std::string>(2)), unhex32(row.get<std::string>(3))});
    return out;
  });
}

std::optional<Published> Store::result(const RunId& id, std::string_view kind, std::uint32_t round) {
  std::optional<Published> found;
  for (Published& published : results(id))  // ordered by round: the last match is the latest
    if (published.kind == kind && (round == 0 || published.round == round)) found = std::move(published);
  return found;
}

void Store::add_instance(const base::Sha256& charter, const std::string& instance, Time at) {
  guarded([&] {
    const std::string c = hex(charter);
    const long long when = number(at);
    db_->sql << "INSERT INTO instances (charter, instance, started_at) VALUES (:c, :i, :a) ON CONFLICT (charter, "
                "instance) DO NOTHING",
        use(c), use(instance), use(when);
  });
}

void Store::end_instance(const base::Sha256& charter, const std::string& instance, const std::string& reason, Time at) {
  guarded([&] {
    const std::string c = hex(charter);
    const long long when = number(at);
    db_->sql << "UPDATE instances SET ended_at = :a, reason = :w WHERE charter = :c AND instance = :i AND ended_at = 0",
        use(when), use(reason), use(c), use(instance);
  });
}

std::vector<std::string> Store::living_instances(const base::Sha256& charter) {
  return guarded([&] {
    const std::string c = hex(charter);
    std::vector<std::string> out;
    soci::rowset<std::string> rows =
        (db_->sql.prepare << "SELECT instance FROM instances WHERE charter = :c AND ended_at = 0 ORDER BY started_at",
         use(c));
    for (const std::string& instance : rows) out.push_back(instance);
    return out;
  });
}

std::string Store::model_path(const base::Sha256& digest) const {
  return folder_ + "/models/" + base::hex(digest) + ".model";
}

ModelFile::ModelFile(const Store& store, std::uint64_t length) : store_(store), length_(length) {
  path_ = store.folder() + "/models/" + base::hex(base::random_array<8>()) + ".part";
  file_ = std::fopen(path_.c_str(), "wbe");
  if (!file_) throw_errno(path_, "cannot be made");
}

ModelFile::~ModelFile() {
  if (file_) std::fclose(file_);
  if (!path_.empty()) ::unlink(path_.c_str());
}

void ModelFile::write(View bytes) {
  if (bytes.size() > left())
    throw Exception(
        base::malformed("model", "longer than the " + std::to_string(length_) + " bytes that were announced"));
  if (std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size()) throw_errno(path_, "cannot be written");
  hash_.add(bytes);
  written_ += bytes.size();
}

Result<void> ModelFile::keep(const base::Sha256& digest) {
  if (left() != 0)
    return base::malformed("model",
                           std::to_string(written_) + " bytes came, " + std::to_string(length_) + " were announced");
  const base::Sha256 found = std::move(hash_).finish();
  if (found != digest)
    return base::untrusted("model",
                           "announced as " + base::digest_text(digest) + ", the bytes are " + base::digest_text(found));
  if (std::fflush(file_) != 0 || ::fsync(::fileno(file_)) != 0) throw_errno(path_, "cannot be synced");
  std::fclose(std::exchange(file_, nullptr));
  const std::string to = store_.model_path(digest);
  if (::rename(path_.c_str(), to.c_str()) != 0) throw_errno(to, "cannot be put in place");
  path_.clear();
  const std::string folder = store_.folder() + "/models";
  const int fd =
      ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);  // the name is durable only with its folder
  if (fd < 0 || ::fsync(fd) != 0) throw_errno(folder, "cannot be synced");
  ::close(fd);
  return {};
}

}  // namespace cloister::coordinator

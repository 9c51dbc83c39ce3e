#include "coordinator/schema.hpp"

#include <soci/soci.h>

#include "base/result.hpp"

namespace cloister::coordinator {

// Only SQL that SQLite and PostgreSQL both read. Bytes are hexadecimal text (SOCI's blobs are large objects in
// PostgreSQL, which cannot be compared in a query); times are seconds since 1970, 0 for "not yet"; nothing is NULL.
const std::vector<std::vector<std::string>>& schema_versions() {
  static const std::vector<std::vector<std::string>> versions = {
      // 1: studies, runs, events, receipts, results
      {
          "CREATE TABLE studies (charter TEXT PRIMARY KEY, name TEXT NOT NULL, sequence BIGINT NOT NULL, body TEXT NOT "
          "NULL,"
          " next_run BIGINT NOT NULL CHECK (next_run >= 1), added_at BIGINT NOT NULL)",

          "CREATE TABLE runs (charter TEXT NOT NULL REFERENCES studies (charter), run BIGINT NOT NULL, submitter TEXT "
          "NOT NULL,"
          " submission TEXT NOT NULL, order_body TEXT NOT NULL, note TEXT NOT NULL, settings TEXT NOT NULL, state TEXT "
          "NOT NULL,"
          " reason TEXT NOT NULL DEFAULT '', cancel TEXT NOT NULL DEFAULT '', round BIGINT NOT NULL DEFAULT 0, rounds "
          "BIGINT NOT NULL,"
          " simulated BIGINT NOT NULL DEFAULT 0, record TEXT NOT NULL DEFAULT '', evidence TEXT NOT NULL DEFAULT '',"
          " submitted_at BIGINT NOT NULL, started_at BIGINT NOT NULL DEFAULT 0, ended_at BIGINT NOT NULL DEFAULT 0,"
          " PRIMARY KEY (charter, run), UNIQUE (charter, submission))",

          // Instances that were asked for, by the launcher's name for them: one without an end is ended when nobody
          // needs it.
          "CREATE TABLE instances (charter TEXT NOT NULL REFERENCES studies (charter), instance TEXT NOT NULL,"
          " started_at BIGINT NOT NULL, ended_at BIGINT NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '',"
          " PRIMARY KEY (charter, instance))",

          "CREATE TABLE events (charter TEXT NOT NULL, run BIGINT NOT NULL, number BIGINT NOT NULL, at BIGINT NOT NULL,"
          " body TEXT NOT NULL, PRIMARY KEY (charter, run, number), FOREIGN KEY (charter, run) REFERENCES runs "
          "(charter, run))",

          "CREATE TABLE receipts (charter TEXT NOT NULL, run BIGINT NOT NULL, round BIGINT NOT NULL, body TEXT NOT "
          "NULL,"
          " PRIMARY KEY (charter, run, round), FOREIGN KEY (charter, run) REFERENCES runs (charter, run))",

          "CREATE TABLE acknowledgements (charter TEXT NOT NULL, run BIGINT NOT NULL, round BIGINT NOT NULL,"
          " position BIGINT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (charter, run, round, position),"
          " FOREIGN KEY (charter, run, round) REFERENCES receipts (charter, run, round))",

          "CREATE TABLE results (charter TEXT NOT NULL, run BIGINT NOT NULL, round BIGINT NOT NULL, kind TEXT NOT NULL,"
          " body TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (charter, run, round, kind),"
          " FOREIGN KEY (charter, run) REFERENCES runs (charter, run))",
      },
  };
  return versions;
}

int schema_version(soci::session& sql) {
  sql << "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)";
  int version = 0, rows = 0;
  sql << "SELECT count(*), coalesce(max(version), 0) FROM schema_version", soci::into(rows), soci::into(version);
  if (rows == 0) sql << "INSERT INTO schema_version (version) VALUES (0)";
  return version;
}

void migrate(soci::session& sql, const std::vector<std::vector<std::string>>& versions) {
  const int known = static_cast<int>(versions.size());
  int version = schema_version(sql);
  if (version > known)
    throw Exception(base::unsupported("database", "its schema is version " + std::to_string(version) +
                                                      ", this build knows up to " + std::to_string(known) +
                                                      "; start the newer cloister that wrote it"));
  for (; version < known; ++version) {
    soci::transaction step(sql);
    for (const std::string& statement : versions[version]) sql << statement;
    const int reached = version + 1;
    sql << "UPDATE schema_version SET version = :v", soci::use(reached);
    step.commit();
  }
}

}  // namespace cloister::coordinator

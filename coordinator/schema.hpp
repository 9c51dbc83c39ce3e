#pragma once
// The database's schema, version by version.

#include <string>
#include <vector>

namespace soci {
class session;
}

namespace cloister::coordinator {

/// The statements that lead from version i to version i + 1. Published versions never change: add one at the end.
const std::vector<std::vector<std::string>>& schema_versions();

/// Brings the database from whatever version it has to the last of `versions`, each step in a transaction of its own,
/// so that a crash leaves a whole version. Throws unsupported when the database is newer than that.
void migrate(soci::session& sql, const std::vector<std::vector<std::string>>& versions);

/// 0 for an empty database.
int schema_version(soci::session& sql);

}  // namespace cloister::coordinator

#include "participant/store.hpp"

#include <filesystem>
#include <fmt/format.h>

#include "base/file.hpp"

namespace cloister::participant {

namespace fs = std::filesystem;

namespace {
std::string run_prefix(const RunId& id) {
  return fmt::format("{}-run-{}-", base::hex(View(id.charter).first(8)), id.run);
}
}  // namespace

Result<UpdateStore> UpdateStore::open(const std::string& folder) {
  if (auto made = base::make_folder(folder, 0700); !made) return made.error();
  return UpdateStore(folder);
}

std::string UpdateStore::path(const RoundId& id) const {
  return (fs::path(folder_) / fmt::format("{}round-{}.update", run_prefix(id.of()), id.round)).string();
}

Result<StoredUpdate> UpdateStore::put(const RoundId& id, View update, std::uint64_t weight) const {
  if (auto written = base::write_file(path(id), update, 0600); !written) return written.error();
  return StoredUpdate{base::sha256(update), update.size(), weight};
}

Result<Bytes> UpdateStore::get(const RoundId& id, const StoredUpdate& recorded) const {
  Result<Bytes> bytes = base::read_file(path(id), recorded.length);
  if (!bytes) return bytes.error();
  if (bytes->size() != recorded.length || base::sha256(*bytes) != recorded.digest)
    return base::untrusted(path(id), fmt::format("wanted the update with {}, found other bytes; it counts as lost",
                                                 base::digest_text(recorded.digest)));
  return bytes;
}

void UpdateStore::remove(const RoundId& id) const {
  std::error_code ignored;
  fs::remove(path(id), ignored);
}

void UpdateStore::remove_run(const RunId& id) const {
  std::error_code ignored;
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(folder_, ignored))
    if (entry.path().filename().string().starts_with(run_prefix(id))) found.push_back(entry.path());
  for (const auto& file : found) fs::remove(file, ignored);
}

}  // namespace cloister::participant

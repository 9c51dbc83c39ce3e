#include "participant/succession.hpp"

#include <filesystem>
#include <fmt/format.h>
#include <map>
#include <sstream>

#include "base/file.hpp"

namespace cloister::participant {
namespace {

// Text, for people too: the version, then a line "sha256:<charter> sha256:<successor>" for each agreement.
constexpr std::string_view version = "cloister successions 1";
constexpr std::size_t file_cap = 1 << 20;

using Agreements = std::map<base::Sha256, base::Sha256>;

Result<Agreements> load(const std::string& path) {
  Agreements out;
  std::error_code e;
  if (!std::filesystem::exists(path, e)) return out;
  const Result<Bytes> bytes = base::read_file(path, file_cap);
  if (!bytes) return bytes.error();
  std::istringstream lines(base::text(*bytes));
  std::string line;
  std::getline(lines, line);
  if (line != version)
    return base::unsupported(path, fmt::format("wanted \"{}\" in the first line, found something else; is this a file "
                                               "of a newer version?",
                                               version));
  while (std::getline(lines, line)) {
    const std::size_t space = line.find(' ');
    const auto before = base::parse_digest(line.substr(0, space), path);
    if (!before) return before.error();
    const auto after = base::parse_digest(space == std::string::npos ? "" : line.substr(space + 1), path);
    if (!after) return after.error();
    out.emplace(*before, *after);
  }
  return out;
}

}  // namespace

std::string successions_path(const std::string& witness_key) {
  return witness_key + ".successions";
}

Result<void> remember_succession(const std::string& witness_key, const base::Sha256& charter,
                                 const base::Sha256& successor) {
  const std::string path = successions_path(witness_key);
  Result<Agreements> all = load(path);
  if (!all) return all.error();
  if (const auto it = all->find(charter); it != all->end()) {
    if (it->second == successor) return {};
    return base::denied(path, fmt::format("this witness agreed that {} succeeds {}: not a second one",
                                          base::digest_text(it->second), base::digest_text(charter)));
  }
  all->emplace(charter, successor);
  std::string text = fmt::format("{}\n", version);
  for (const auto& [before, after] : *all)
    text += fmt::format("{} {}\n", base::digest_text(before), base::digest_text(after));
  return base::write_file(path, base::view(text), 0600);
}

Result<std::optional<base::Sha256>> agreed_successor(const std::string& witness_key, const base::Sha256& charter) {
  const Result<Agreements> all = load(successions_path(witness_key));
  if (!all) return all.error();
  const auto it = all->find(charter);
  return it == all->end() ? std::optional<base::Sha256>() : it->second;
}

}  // namespace cloister::participant

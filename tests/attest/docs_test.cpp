// docs/policies.md and docs/formats.md against the code: every key of every schema is there and no other, the examples
// are read by the loader, and the quoted refusals are what judge() says.

#include <algorithm>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <set>

#include "base/file.hpp"
#include "tests/attest/requirements.hpp"

namespace cloister {
namespace {

using testing::IsEmpty;
using Names = std::set<std::string>;

std::string read(const std::string& file) {
  return base::text(base::read_file(CLOISTER_SOURCE_DIR "/docs/" + file, 1 << 20).value());
}

std::vector<std::string> lines(const std::string& text) {
  std::vector<std::string> out(1);
  for (const char c : text)
    if (c == '\n')
      out.emplace_back();
    else
      out.back().push_back(c);
  return out;
}

std::vector<std::string> examples(const std::string& text) {
  std::vector<std::string> out;
  bool inside = false;
  for (const std::string& line : lines(text)) {
    if (line == "```toml")
      out.emplace_back(), inside = true;
    else if (line == "```")
      inside = false;
    else if (inside)
      out.back() += line + "\n";
  }
  return out;
}

// Keys in the first column of a table: "| `study.runs.at_most` |".
Names documented(const std::string& text) {
  Names out;
  for (const std::string& line : lines(text))
    if (line.starts_with("| `")) out.insert(line.substr(3, line.find('`', 3) - 3));
  return out;
}

// `key` with the part after `prefix` called NAME, as the documents write free names.
std::string named(const std::string& key, std::string_view prefix) {
  const std::size_t at = key.find(prefix);
  if (at == std::string::npos) return key;
  const std::size_t from = at + prefix.size(), to = key.find('.', from);
  return key.substr(0, from) + "NAME" + (to == std::string::npos ? "" : key.substr(to));
}

std::string generic(const std::string& key) {
  if (key.starts_with("settings.")) return "settings.NAME";
  return named(key.starts_with("submitters.") ? named(key, "submitters.") : key, "signers.keys.");
}

Names minus(const Names& a, const Names& b) {
  Names out;
  std::set_difference(a.begin(), a.end(), b.begin(), b.end(), std::inserter(out, out.end()));
  return out;
}

// What is no table of other keys.
Names leaves(const Names& keys) {
  Names out;
  for (const std::string& k : keys) {
    const bool table = std::any_of(keys.begin(), keys.end(), [&](const std::string& o) {
      return o.starts_with(k + ".") || o.starts_with(k + "[");
    });
    if (!table) out.insert(k);
  }
  return out;
}

// The example with optional forms written out, so that the loader asks for every key there is.
Names keys_of_policy(const std::string& text) {
  Names out;
  const std::string word = "tcb         = \"up-to-date\"",
                    table = "tcb = { status = \"up-to-date\", date = 2026-01-01, advisories = [] }";
  const std::string plain = "measurement = [\"",
                    named = "measurement = [{ name = \"x\", signed_by = \"ed25519:" + std::string(64, '0') + "\" }, \"";
  std::string full = text;
  if (const std::size_t at = full.find(word); at != std::string::npos) full.replace(at, word.size(), table);
  for (std::size_t at = 0; (at = full.find(plain, at)) != std::string::npos; at += named.size())
    full.replace(at, plain.size(), named);
  EXPECT_TRUE(attest::parse_policy(full, "full")) << attest::parse_policy(full, "full").error().text();
  for (const std::string& k : attest::policy_keys(full)) out.insert(generic(k));
  return out;
}

TEST(Documents, PoliciesHaveEveryKeyOfEverySchemaAndNoOther) {
  const std::string text = read("policies.md");
  Names known;
  Names roles;
  for (const std::string& example : examples(text)) {
    const auto policy = attest::parse_policy(example, "docs/policies.md");
    ASSERT_TRUE(policy) << policy.error().text();
    roles.insert(std::string(attest::name(policy->role)));
    known.merge(keys_of_policy(example));
  }
  EXPECT_EQ(roles, (Names{"compute", "data", "model"}));
  EXPECT_THAT(minus(leaves(known), documented(text)), IsEmpty()) << "the loader knows these, and nobody reads of them";
  EXPECT_THAT(minus(documented(text), known), IsEmpty()) << "these are documented, and the loader does not know them";
}

TEST(Documents, FormatsHaveEveryKeyOfTheManifestAndNoOther) {
  const std::string text = read("formats.md");
  Names known;
  for (const std::string& example : examples(text)) {
    const auto manifest = attest::parse_manifest(example, "docs/formats.md");
    ASSERT_TRUE(manifest) << manifest.error().text();
    std::string cnn = example;
    cnn.replace(cnn.find("\"mlp\""), 5, "\"cnn\"\nimage = [1, 28, 28]");
    for (const std::string& k : attest::manifest_keys(cnn)) known.insert(generic(k));
  }
  ASSERT_FALSE(known.empty());
  Names in_tables =
      documented(text.substr(text.find("## Manifest"), text.find("## Reference value") - text.find("## Manifest")));
  EXPECT_THAT(minus(leaves(known), in_tables), IsEmpty()) << "the loader knows these, and nobody reads of them";
  EXPECT_THAT(minus(in_tables, known), IsEmpty()) << "these are documented, and the loader does not know them";
  for (const std::string& name : attest::setting_names())
    EXPECT_NE(text.find("`" + name + "`"), std::string::npos) << name;
}

// Does `real` say what `quoted` says, where "…" stands for anything?
bool says(const std::string& real, std::string_view quoted) {
  constexpr std::string_view anything = "…";
  std::size_t at = 0;
  for (bool first = true;; first = false) {
    const std::size_t end = quoted.find(anything);
    const std::string_view part = quoted.substr(0, end);
    if (end == std::string_view::npos)  // the last part ends the line
      return first ? real == part : real.size() >= at + part.size() && std::string_view(real).ends_with(part);
    const std::size_t found = real.find(part, at);
    if (found == std::string::npos || (first && found != 0)) return false;
    at = found + part.size();
    quoted.remove_prefix(end + anything.size());
  }
}

TEST(Documents, EveryQuotedRefusalIsRealAndEveryRequirementIsQuoted) {
  std::vector<std::string> real;
  Names requirements;
  for (const tests::Row& row : tests::requirements()) {
    const tests::Study study({.edits = row.edits, .attested_participants = tests::attested_by(row)});
    for (const attest::Finding& f : tests::decide(row, study, true).refusals()) real.push_back(f.text());
    if (row.finding_owner != "charter" && row.requirement != "participants") requirements.insert(row.requirement);
  }
  Names quoted;
  for (const std::string& line : lines(read("policies.md"))) {
    if (!line.starts_with("    denied by ") || line.find("OWNER") != std::string::npos) continue;
    const std::string text = line.substr(4);
    EXPECT_TRUE(std::any_of(real.begin(), real.end(), [&](const std::string& r) { return says(r, text); }))
        << "nothing says: " << text;
    const std::size_t at = text.find(": ") + 2;
    quoted.insert(text.substr(at, text.find(": ", at) - at));
  }
  EXPECT_THAT(minus(requirements, quoted), IsEmpty()) << "docs/policies.md does not show how these refuse";
}

}  // namespace
}  // namespace cloister

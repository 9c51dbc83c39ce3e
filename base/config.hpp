#pragma once
// TOML files under one strict schema each. All mistakes come at once, every one with file, line, path and, for an
// unknown key, the nearest known name. A schema is the function that reads it: what it does not ask for is unknown.

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.hpp"
#include "base/crypto.hpp"
#include "base/time.hpp"

namespace cloister::base {

/// A table of a TOML file while it is being read. A getter that fails records the mistake and gives a default, so that
/// reading goes on; Config::finish() then fails. Required unless the name says `maybe_`. A Section does not outlive its
/// Config.
class Section {
 public:
  std::string string(std::string_view key);
  std::optional<std::string> maybe_string(std::string_view key);
  /// One of `allowed`; the mistake lists them.
  std::string one_of(std::string_view key, const std::vector<std::string>& allowed);
  std::int64_t integer(std::string_view key, std::int64_t at_least, std::int64_t at_most);
  std::optional<std::int64_t> maybe_integer(std::string_view key, std::int64_t at_least, std::int64_t at_most);
  /// An integer or a float.
  double number(std::string_view key);
  std::optional<double> maybe_number(std::string_view key);
  bool boolean(std::string_view key);
  std::optional<bool> maybe_boolean(std::string_view key);
  std::vector<std::string> strings(std::string_view key);
  std::optional<std::vector<std::string>> maybe_strings(std::string_view key);
  std::vector<double> numbers(std::string_view key);
  std::chrono::milliseconds duration(std::string_view key);
  std::optional<std::chrono::milliseconds> maybe_duration(std::string_view key);
  std::uint64_t size(std::string_view key);
  Time time(std::string_view key);  ///< a TOML date, a TOML date-time in UTC, or a string that parse_time takes
  PublicKey key(std::string_view key);
  Sha256 digest(std::string_view key);

  /// A missing section is a mistake, and an empty one is given.
  Section section(std::string_view key);
  std::optional<Section> maybe_section(std::string_view key);
  std::vector<Section> sections(std::string_view key);  ///< [[key]] or an array of inline tables; absent gives none
  std::vector<std::string> keys() const;  ///< in file order; marks all of them known (a table of free names)
  bool has(std::string_view key) const;
  enum class Kind { absent, string, integer, number, boolean, array, table, time };
  Kind kind(std::string_view key) const;
  /// The elements of a mixed array: a string becomes a section with the single key "value".
  std::vector<Section> elements(std::string_view key);

  /// An element that is no table (see elements()).
  bool plain() const;
  /// A required section that is not there: that was recorded, and nothing in it needs recording.
  bool missing() const;

  /// Records a mistake at `key` of this table.
  void fail(std::string_view key, std::string what);
  /// "charite.policy.toml:14: study.participants"
  std::string where(std::string_view key) const;

 private:
  friend class Config;
  struct State;
  struct Node;
  Section(std::shared_ptr<State> state, std::shared_ptr<Node> node)
      : state_(std::move(state)), node_(std::move(node)) {}
  std::shared_ptr<State> state_;
  std::shared_ptr<Node> node_;
};

class Config {
 public:
  /// `name`: the file's name, for messages.
  static Result<Config> parse(std::string_view toml, std::string name);
  Section root();
  /// Adds unknown keys to the mistakes; fails with all of them, a line each.
  Result<void> finish();
  /// The paths that the schema asked for so far, sorted; elements of arrays as "aggregator.measurement[].name".
  std::vector<std::string> known() const;

 private:
  explicit Config(std::shared_ptr<Section::State> state) : state_(std::move(state)) {}
  std::shared_ptr<Section::State> state_;
};

/// The name in `known` that `given` was probably meant to be, or empty.
std::string nearest(std::string_view given, const std::vector<std::string>& known);

}  // namespace cloister::base

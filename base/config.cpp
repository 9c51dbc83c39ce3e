#include "base/config.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <set>
#include <stdexcept>

// Some malformed documents break an assertion inside toml++ 3.3 (a document that ends in a table header; found by the
// fuzz target). A policy from another owner must not end the enclave: the assertion throws, and parse() answers with an
// error.
#define TOML_ASSERT(expr) ((expr) ? void() : throw std::logic_error("toml++: " #expr))
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wterminate"  // some of its assertions stand in noexcept functions: those still abort
#include <toml++/toml.h>
#include <unordered_map>
#pragma GCC diagnostic pop

namespace cloister::base {

struct Section::State {
  std::string file;
  toml::table table;
  std::vector<std::pair<std::uint32_t, std::string>> mistakes;                     // line, text
  std::vector<std::shared_ptr<Node>> nodes;                                        // every section that was read
  mutable std::unordered_map<const toml::node*, std::shared_ptr<Node>> by_source;  // those that find() was asked for
  mutable std::size_t indexed = 0;                                                 // of `nodes`

  // The section that `source` was read as before: one table has one list of known keys, however often it is asked for.
  std::shared_ptr<Node> find(const toml::node* source) const;
};

struct Section::Node {
  const toml::node* source = nullptr;  // what it was read from
  std::string path;                    // "study.participants", empty for the root
  const toml::table* table = nullptr;  // null: the section was missing, and that was said
  toml::table own;                     // what `table` points to for an element that is no table
  std::uint32_t line = 1;
  std::vector<std::string> known;
};

std::shared_ptr<Section::Node> Section::State::find(const toml::node* source) const {
  for (; indexed < nodes.size(); ++indexed) by_source.emplace(nodes[indexed]->source, nodes[indexed]);
  const auto at = by_source.find(source);
  return at == by_source.end() ? nullptr : at->second;
}

namespace {

std::string join(const std::string& path, std::string_view key) {
  return path.empty() ? std::string(key) : fmt::format("{}.{}", path, key);
}

std::string_view type_name(const toml::node& n) {
  switch (n.type()) {
    case toml::node_type::string:
      return "a string";
    case toml::node_type::integer:
      return "an integer";
    case toml::node_type::floating_point:
      return "a number";
    case toml::node_type::boolean:
      return "true or false";
    case toml::node_type::array:
      return "an array";
    case toml::node_type::table:
      return "a table";
    case toml::node_type::date:
      return "a date";
    case toml::node_type::date_time:
      return "a date and time";
    case toml::node_type::time:
      return "a time of day";
    default:
      return "nothing";
  }
}

std::size_t distance(std::string_view a, std::string_view b) {  // Levenshtein
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t next = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = std::exchange(row[j], next);
    }
  }
  return row[b.size()];
}

}  // namespace

std::string nearest(std::string_view given, const std::vector<std::string>& known) {
  std::string best;
  // Two edits, more in a long name, but never a whole name: "c" is not near "b".
  std::size_t least = std::min(std::max<std::size_t>(2, given.size() / 3), given.size() - (given.empty() ? 0 : 1)) + 1;
  for (const std::string& k : known)
    if (const std::size_t d = distance(given, k); d < least) least = d, best = k;
  return best;
}

namespace {

// The node at `key`, with the key marked as known to the schema.
template <class Node>
const toml::node* look(Node& node, std::string_view key) {
  if (std::find(node.known.begin(), node.known.end(), key) == node.known.end()) node.known.emplace_back(key);
  return node.table == nullptr ? nullptr : node.table->get(key);
}

}  // namespace

void Section::fail(std::string_view key, std::string what) {
  const toml::node* n = node_->table == nullptr ? nullptr : node_->table->get(key);
  const std::uint32_t line = n != nullptr && n->source().begin.line != 0 ? n->source().begin.line : node_->line;
  state_->mistakes.emplace_back(line, fmt::format("{}: {}", join(node_->path, key), what));
}

std::string Section::where(std::string_view key) const {
  const toml::node* n = node_->table == nullptr ? nullptr : node_->table->get(key);
  return fmt::format("{}:{}: {}", state_->file, n != nullptr ? n->source().begin.line : node_->line,
                     join(node_->path, key));
}

namespace {
constexpr std::string_view said_missing = "is missing, and absent means no: write it out";
}

#define CLOISTER_REQUIRED(type, call, fallback)                                   \
  if (auto v = call) return *v;                                                   \
  if (!has(key) && node_->table != nullptr) fail(key, std::string(said_missing)); \
  return fallback

std::optional<std::string> Section::maybe_string(std::string_view key) {
  const toml::node* n = look(*node_, key);
  if (n == nullptr) return {};
  if (auto v = n->value_exact<std::string>()) return v;
  fail(key, fmt::format("wanted a string, found {}", type_name(*n)));
  return {};
}
std::string Section::string(std::string_view key) {
  CLOISTER_REQUIRED(std::string, maybe_string(key), {});
}

std::string Section::one_of(std::string_view key, const std::vector<std::string>& allowed) {
  const auto v = maybe_string(key);
  if (v && std::find(allowed.begin(), allowed.end(), *v) != allowed.end()) return *v;
  if (v) {
    const std::string close = nearest(*v, allowed);
    fail(key, fmt::format("wanted one of \"{}\", found \"{}\"{}", fmt::join(allowed, "\", \""), *v,
                          close.empty() ? "" : fmt::format("; did you mean \"{}\"?", close)));
  } else if (!has(key) && node_->table != nullptr) {
    fail(key, fmt::format("is missing; wanted one of \"{}\"", fmt::join(allowed, "\", \"")));
  }
  return allowed.front();
}

std::optional<std::int64_t> Section::maybe_integer(std::string_view key, std::int64_t at_least, std::int64_t at_most) {
  const toml::node* n = look(*node_, key);
  if (n == nullptr) return {};
  const auto v = n->value_exact<std::int64_t>();
  if (v && *v >= at_least && *v <= at_most) return v;
  fail(key, fmt::format("wanted an integer from {} to {}, found {}", at_least, at_most,
                        v ? fmt::format("{}", *v) : std::string(type_name(*n))));
  return {};
}
std::int64_t Section::integer(std::string_view key, std::int64_t at_least, std::int64_t at_most) {
  CLOISTER_REQUIRED(std::int64_t, maybe_integer(key, at_least, at_most), at_least);
}

std::optional<double> Section::maybe_number(std::string_view key) {
  const toml::node* n = look(*node_, key);
  if (n == nullptr) return {};
  if (n->is_number())
    if (const auto v = n->value<double>(); v && std::isfinite(*v)) return v;
  fail(key, fmt::format("wanted a finite number, found {}", type_name(*n)));
  return {};
}
double Section::number(std::string_view key) {
  CLOISTER_REQUIRED(double, maybe_number(key), 0.0);
}

std::optional<bool> Section::maybe_boolean(std::string_view key) {
  const toml::node* n = look(*node_, key);
  if (n == nullptr) return {};
  if (auto v = n->value_exact<bool>()) return v;
  fail(key, fmt::format("wanted true or false, found {}", type_name(*n)));
  return {};
}
bool Section::boolean(std::string_view key) {
  CLOISTER_REQUIRED(bool, maybe_boolean(key), false);
}

std::optional<std::vector<std::string>> Section::maybe_strings(std::string_view key) {
  const toml::node* n = look(*node_, key);
  if (n == nullptr) return {};
  const toml::array* a = n->as_array();
  if (a == nullptr) {
    fail(key, fmt::format("wanted an array of strings, found {}", type_name(*n)));
    return {};
  }
  std::vector<std::string> out;
  for (const toml::node& e : *a) {
    auto v = e.value_exact<std::string>();
    if (!v) {
      fail(key, fmt::format("wanted an array of strings, found {} in it", type_name(e)));
      return {};
    }
    if (std::find(out.begin(), out.end(), *v) != out.end()) fail(key, fmt::format("names \"{}\" twice", *v));
    out.push_back(std::move(*v));
  }
  return out;
}
std::vector<std::string> Section::strings(std::string_view key) {
  CLOISTER_REQUIRED(std::vector<std::string>, maybe_strings(key), {});
}

std::vector<double> Section::numbers(std::string_view key) {
  const toml::node* n = look(*node_, key);
  std::vector<double> out;
  const toml::array* a = n == nullptr ? nullptr : n->as_array();
  if (a == nullptr) {
    if (node_->table != nullptr)
      fail(key, n == nullptr ? std::string(said_missing) : "wanted an array of finite numbers");
    return out;
  }
  for (const toml::node& e : *a) {
    if (!e.is_number() || !std::isfinite(*e.value<double>())) {
      fail(key, fmt::format("wanted an array of finite numbers, found {} in it", type_name(e)));
      return {};
    }
    out.push_back(*e.value<double>());
  }
  return out;
}

std::optional<std::chrono::milliseconds> Section::maybe_duration(std::string_view key) {
  const auto v = maybe_string(key);
  if (!v) return {};
  auto d = parse_duration(*v, "");
  if (d) return *d;
  fail(key, d.error().what);
  return {};
}
std::chrono::milliseconds Section::duration(std::string_view key) {
  CLOISTER_REQUIRED(std::chrono::milliseconds, maybe_duration(key), std::chrono::milliseconds(0));
}

std::uint64_t Section::size(std::string_view key) {
  const std::string v = string(key);
  if (v.empty()) return 0;
  auto s = parse_size(v, "");
  if (s) return *s;
  fail(key, s.error().what);
  return 0;
}

Time Section::time(std::string_view key) {
  const toml::node* n = look(*node_, key);
  if (n == nullptr) {
    if (node_->table != nullptr) fail(key, std::string(said_missing));
    return {};
  }
  const auto day = [](const toml::date& d) {
    return std::chrono::sys_days(std::chrono::year(d.year) / std::chrono::month(d.month) / std::chrono::day(d.day));
  };
  if (const auto d = n->value_exact<toml::date>()) return day(*d);
  if (const auto dt = n->value_exact<toml::date_time>()) {
    if (dt->offset && dt->offset->minutes == 0)
      return day(dt->date) + std::chrono::hours(dt->time.hour) + std::chrono::minutes(dt->time.minute) +
             std::chrono::seconds(dt->time.second);
    fail(key, "wanted a time in UTC: end it with Z");
    return {};
  }
  if (const auto s = n->value_exact<std::string>()) {
    auto t = parse_time(*s, "");
    if (t) return *t;
    fail(key, t.error().what);
    return {};
  }
  fail(key, fmt::format("wanted a date, found {}", type_name(*n)));
  return {};
}

PublicKey Section::key(std::string_view key) {
  const auto v = maybe_string(key);
  if (!v) {
    if (!has(key) && node_->table != nullptr) fail(key, std::string(said_missing));
    return {};
  }
  auto k = PublicKey::parse(*v, "");
  if (k) return *k;
  fail(key, k.error().what);
  return {};
}

Sha256 Section::digest(std::string_view key) {
  const auto v = maybe_string(key);
  if (!v) {
    if (!has(key) && node_->table != nullptr) fail(key, std::string(said_missing));
    return {};
  }
  auto d = parse_digest(*v, "");
  if (d) return *d;
  fail(key, d.error().what);
  return {};
}

std::optional<Section> Section::maybe_section(std::string_view key) {
  const toml::node* n = look(*node_, key);
  if (n == nullptr) return {};
  if (auto again = state_->find(n)) return Section(state_, std::move(again));
  auto node = std::make_shared<Node>();
  node->source = n;
  node->path = join(node_->path, key);
  node->line = n->source().begin.line;
  node->table = n->as_table();
  if (node->table == nullptr) fail(key, fmt::format("wanted a table, found {}", type_name(*n)));
  state_->nodes.push_back(node);
  return Section(state_, std::move(node));
}

Section Section::section(std::string_view key) {
  if (auto s = maybe_section(key)) return *s;
  if (node_->table != nullptr) fail(key, std::string(said_missing));
  auto node = std::make_shared<Node>();
  node->path = join(node_->path, key);
  return Section(state_, std::move(node));
}

std::vector<Section> Section::elements(std::string_view key) {
  std::vector<Section> out;
  const toml::node* n = look(*node_, key);
  if (n == nullptr) return out;
  const toml::array* a = n->as_array();
  if (a == nullptr) {
    fail(key, fmt::format("wanted an array, found {}", type_name(*n)));
    return out;
  }
  std::size_t i = 0;
  for (const toml::node& e : *a) {
    if (auto again = state_->find(&e)) {
      out.push_back(Section(state_, std::move(again)));
      ++i;
      continue;
    }
    auto node = std::make_shared<Node>();
    node->source = &e;
    node->path = fmt::format("{}[{}]", join(node_->path, key), i++);
    node->line = e.source().begin.line;
    if (e.is_table()) {
      node->table = e.as_table();
    } else {
      e.visit([&](const auto& v) { node->own.insert("value", v); });
      node->table = &node->own;
    }
    state_->nodes.push_back(node);
    out.push_back(Section(state_, std::move(node)));
  }
  return out;
}

std::vector<Section> Section::sections(std::string_view key) {
  const toml::node* n = look(*node_, key);
  if (n != nullptr && n->is_array())
    for (const toml::node& e : *n->as_array())
      if (!e.is_table()) {
        fail(key, fmt::format("wanted tables, found {} among them", type_name(e)));
        return {};
      }
  return elements(key);
}

std::vector<std::string> Section::keys() const {
  std::vector<std::pair<toml::source_position, std::string>> at;
  if (node_->table != nullptr)
    for (const auto& [k, v] : *node_->table) at.emplace_back(k.source().begin, std::string(k.str()));
  std::sort(at.begin(), at.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<std::string> out;
  for (auto& [position, name] : at) {
    look(*node_, name);
    out.push_back(std::move(name));
  }
  return out;
}

bool Section::missing() const {
  return node_->table == nullptr;
}

bool Section::plain() const {
  return node_->table == &node_->own;
}

bool Section::has(std::string_view key) const {
  return look(*node_, key) != nullptr;
}

Section::Kind Section::kind(std::string_view key) const {
  const toml::node* n = look(*node_, key);
  if (n == nullptr) return Kind::absent;
  switch (n->type()) {
    case toml::node_type::string:
      return Kind::string;
    case toml::node_type::integer:
      return Kind::integer;
    case toml::node_type::floating_point:
      return Kind::number;
    case toml::node_type::boolean:
      return Kind::boolean;
    case toml::node_type::array:
      return Kind::array;
    case toml::node_type::table:
      return Kind::table;
    default:
      return Kind::time;
  }
}

Result<Config> Config::parse(std::string_view text, std::string name) {
  auto state = std::make_shared<Section::State>();
  state->file = name;
  try {
    state->table = toml::parse(text, name);
  } catch (const toml::parse_error& e) {
    return malformed(fmt::format("{}:{}", name, e.source().begin.line), fmt::format("not TOML: {}", e.description()));
  } catch (const std::logic_error& e) {
    return malformed(name, fmt::format("not TOML: {}", e.what()));
  }
  return Config(std::move(state));
}

Section Config::root() {
  auto node = std::make_shared<Section::Node>();
  node->table = &state_->table;
  state_->nodes.push_back(node);
  return Section(state_, std::move(node));
}

std::vector<std::string> Config::known() const {
  std::set<std::string> out;
  for (const auto& node : state_->nodes) {
    if (node->table == &node->own) continue;
    for (const std::string& key : node->known) {
      std::string path;
      bool index = false;
      for (const char c : join(node->path, key)) {
        if (!index || c == ']') path += c;
        if (c == '[' || c == ']') index = c == '[';
      }
      out.insert(std::move(path));
    }
  }
  return {out.begin(), out.end()};
}

Result<void> Config::finish() {
  for (const auto& node : state_->nodes) {
    if (node->table == nullptr) continue;
    for (const auto& [k, v] : *node->table) {
      const std::string key(k.str());
      if (std::find(node->known.begin(), node->known.end(), key) != node->known.end()) continue;
      const std::string close = nearest(key, node->known);
      state_->mistakes.emplace_back(
          k.source().begin.line,
          fmt::format("{}: no such setting{}", join(node->path, key),
                      close.empty() ? "" : fmt::format("; did you mean {}?", join(node->path, close))));
    }
  }
  if (state_->mistakes.empty()) return {};
  std::stable_sort(state_->mistakes.begin(), state_->mistakes.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::string where, what;
  for (const auto& [line, mistake] : state_->mistakes) {
    if (where.empty())
      where = fmt::format("{}:{}", state_->file, line), what = mistake;
    else
      what += fmt::format("\n{}:{}: {}", state_->file, line, mistake);
  }
  return malformed(std::move(where), std::move(what));
}

}  // namespace cloister::base

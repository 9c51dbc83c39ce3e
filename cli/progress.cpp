#include "cli/progress.hpp"

#include <fmt/format.h>
#include <map>
#include <nlohmann/json.hpp>

#include "base/time.hpp"

namespace cloister::cli {

namespace {

using nlohmann::json;

std::string word(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? printable(found->get<std::string>()) : std::string();
}

std::uint64_t number(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
}

std::string because(const std::string& reason) {
  return reason.empty() ? "" : ": " + reason;
}

std::string auc_text(const json& event) {
  const auto auc = event.find("auc");
  if (auc == event.end()) return "";
  return auc->is_number() ? fmt::format(", AUC {:.4f}", auc->get<double>()) : ", AUC undefined (one class only)";
}

std::string transfer(const json& object) {
  const std::uint64_t again = number(object, "bytes_repeated");
  return "in " + base::size_text(number(object, "bytes_in")) + ", out " + base::size_text(number(object, "bytes_out")) +
         (again == 0 ? "" : ", again " + base::size_text(again));
}

/// Who did not contribute, with the reason: from a receipt's members.
std::string missing(const json& receipt) {
  std::string out;
  const auto members = receipt.find("members");
  if (members == receipt.end() || !members->is_array()) return out;
  for (const json& member : *members)
    if (const std::string state = word(member, "state"); state != "contributed")
      out += fmt::format("; {} {}{}", word(member, "owner"), state, because(word(member, "reason")));
  return out;
}

}  // namespace

std::string printable(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\n')
      out += "; ";
    else
      out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  }
  return out;
}

struct Progress::State {
  std::string head, instance, live, ended, reason;
  bool simulated = false;
  std::vector<std::string> members;
  std::map<std::uint64_t, std::string> rounds;  ///< committed ones
  std::string last_live;                        ///< line of the last status, so that an unchanged one is no news

  std::string status(const json& event);
  std::string committed(const json& event);
  std::string published(const json& event);
};

Progress::Progress() : state_(std::make_unique<State>()) {}
Progress::~Progress() = default;
const std::string& Progress::ended() const {
  return state_->ended;
}
const std::string& Progress::reason() const {
  return state_->reason;
}

std::string Progress::State::status(const json& event) {
  const std::string what = fmt::format("round {}  {}  {}{}", number(event, "round"), word(event, "task"),
                                       word(event, "state"), because(word(event, "reason")));
  live = fmt::format("{}   {} s   {}", what, static_cast<double>(number(event, "ms") / 100) / 10, transfer(event));
  members.clear();
  std::string states;
  const auto cohort = event.find("members");
  if (cohort != event.end() && cohort->is_array())
    for (const json& member : *cohort) {
      const std::string state = word(member, "state") + because(word(member, "reason"));
      members.push_back(fmt::format("  {:<16} {}   {}", word(member, "owner"), state, transfer(member)));
      states += fmt::format("  {}={}", word(member, "owner"), state);
    }
  return std::exchange(last_live, what + states) == last_live ? "" : last_live;
}

std::string Progress::State::committed(const json& event) {
  const json receipt = event.value("receipt", json::object());
  const std::uint64_t round = number(receipt, "round");
  rounds[round] = fmt::format("round {} {} committed by {} witnesses{}", round, word(receipt, "task"),
                              number(event, "acknowledgements"), missing(receipt));
  return rounds[round];
}

std::string Progress::State::published(const json& event) {
  const std::string line =
      fmt::format("round {} published: {}{}", number(event, "round"), word(event, "kind"), auc_text(event));
  std::string& round = rounds[number(event, "round")];
  round += fmt::format("{}{} published{}", round.empty() ? "" : "; ", word(event, "kind"), auc_text(event));
  return line;
}

std::string Progress::on(const std::string& text) {
  const json event = json::parse(text, nullptr, false);
  if (!event.is_object()) return "";
  State& s = *state_;
  const std::string what = word(event, "event"), at = word(event, "at");
  std::string line;
  if (what == "submitted") {
    s.head = fmt::format("run {}  {}  by {}", number(event, "run"), word(event, "study"), word(event, "submitter"));
    if (const std::string note = word(event, "note"); !note.empty()) s.head += "  \"" + note + "\"";
    line = s.head + " queued";
  } else if (what == "launching") {
    line = s.instance = "asking for an instance";
  } else if (what == "instance") {
    line = s.instance = "instance " + word(event, "instance") + " " + word(event, "state");
  } else if (what == "waiting") {
    line = s.instance = "waiting, again in " + word(event, "again_in") + because(word(event, "reason"));
  } else if (what == "started") {
    s.simulated = event.value("simulated", false);
    line = fmt::format("the enclave has the order{}", s.simulated ? " (SIMULATED: no hardware isolates it)" : "");
    s.instance = line;
  } else if (what == "attached_again") {
    line = s.instance = "the link to the enclave was cut, dialling again" + because(word(event, "reason"));
  } else if (what == "status") {
    line = s.status(event);
  } else if (what == "committed") {
    line = s.committed(event);
  } else if (what == "published") {
    line = s.published(event);
  } else if (what == "cancel_asked") {
    line = "cancellation asked by " + word(event, "by") + because(word(event, "reason"));
  } else if (what == "ended") {
    s.ended = word(event, "state");
    s.reason = word(event, "reason");
    s.live.clear();
    s.members.clear();
    line = s.ended + because(s.reason);
  } else {
    line = what;
  }
  return line.empty() ? line : at + "  " + line;
}

std::vector<std::string> Progress::screen(std::size_t width) const {
  const State& s = *state_;
  std::vector<std::string> lines = {s.head + (s.simulated ? "  (SIMULATED)" : "")};
  if (!s.instance.empty() && s.live.empty() && s.ended.empty()) lines.push_back(s.instance);
  for (const auto& [round, line] : s.rounds) lines.push_back("  " + line);
  if (!s.live.empty()) lines.push_back(s.live);
  lines.insert(lines.end(), s.members.begin(), s.members.end());
  if (!s.ended.empty()) lines.push_back(s.ended + because(s.reason));
  for (std::string& line : lines)
    if (line.size() > width) line.resize(width);
  return lines;
}

}  // namespace cloister::cli

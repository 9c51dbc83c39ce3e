#pragma once
// A run as people watch it: events in, lines or a screen out. Pure but for what it remembers.

#include <memory>
#include <string>
#include <vector>

namespace cloister::cli {

/// Text of another process on somebody's terminal: control characters become '?', line breaks "; ".
std::string printable(std::string_view text);

class Progress {
 public:
  Progress();
  ~Progress();

  /// Takes an event (docs/formats.md, "Run events"). Gives its line, or nothing when it is news for the screen only.
  std::string on(const std::string& json);
  /// The whole picture, a line each, none longer than `width`.
  std::vector<std::string> screen(std::size_t width) const;
  /// "done", "failed", "cancelled" once it has ended, and why.
  const std::string& ended() const;
  const std::string& reason() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace cloister::cli

#pragma once
// One log per process: a line of JSON per event, appended to the process's own file, and a short line for people on
// standard error. A log line names checks, sizes and reasons, never a value derived from data.

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "base/result.hpp"

namespace cloister::base {

/// A field of an event. Text is escaped; `raw` is JSON already.
struct Field {
  struct Raw {
    std::string json;
  };
  std::string_view name;
  std::variant<std::string, std::int64_t, double, bool, Raw> value;

  Field(std::string_view n, std::string v) : name(n), value(std::move(v)) {}
  Field(std::string_view n, std::string_view v) : name(n), value(std::string(v)) {}
  Field(std::string_view n, const char* v) : name(n), value(std::string(v)) {}
  Field(std::string_view n, bool v) : name(n), value(v) {}
  Field(std::string_view n, double v) : name(n), value(v) {}
  Field(std::string_view n, Raw v) : name(n), value(std::move(v)) {}
  template <std::integral T>
  Field(std::string_view n, T v) : name(n), value(static_cast<std::int64_t>(v)) {}
};

std::string json_escape(std::string_view text);  ///< with its quotes; invalid UTF-8 becomes U+FFFD

/// Thread-safe. Every line carries time, component, event, and simulated=true once `set_simulated` was called.
class Log {
 public:
  /// `component`: "aggregator", "participant charite". `path`: the JSON lines file, or empty for none. `quiet`: no lines for people.
  static Result<std::shared_ptr<Log>> open(std::string component, const std::string& path, bool quiet = false);
  /// Writes JSON lines to an open descriptor that it does not own (an enclave has no files: standard output).
  static std::shared_ptr<Log> to_descriptor(std::string component, int fd);
  ~Log();

  void set_simulated(bool simulated) { simulated_ = simulated; }
  /// `event`: a stable name in words with underscores ("round_closed"). `message`: the sentence for people.
  void event(std::string_view event, std::string_view message, std::initializer_list<Field> fields = {});

 private:
  Log(std::string component, int fd, bool owned, bool quiet)
      : component_(std::move(component)), fd_(fd), owned_(owned), quiet_(quiet) {}
  std::string component_;
  int fd_;
  bool owned_;
  bool quiet_;
  bool simulated_ = false;
  std::mutex mutex_;
};

}  // namespace cloister::base

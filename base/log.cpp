#include "base/log.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>

#include "base/time.hpp"

namespace cloister::base {
namespace {

// The length of the well-formed UTF-8 sequence at `i`, or 0 (Unicode 15, table 3-7).
std::size_t sequence(std::string_view s, std::size_t i) {
  const auto at = [&](std::size_t k) { return k < s.size() ? static_cast<unsigned char>(s[k]) : 0u; };
  const auto tail = [&](std::size_t k) { return (at(k) & 0xc0) == 0x80; };
  const unsigned a = at(i);
  if (a < 0x80) return 1;
  if (a >= 0xc2 && a <= 0xdf && tail(i + 1)) return 2;
  if (a >= 0xe0 && a <= 0xef && tail(i + 1) && tail(i + 2) && !(a == 0xe0 && at(i + 1) < 0xa0) &&
      !(a == 0xed && at(i + 1) > 0x9f))
    return 3;
  if (a >= 0xf0 && a <= 0xf4 && tail(i + 1) && tail(i + 2) && tail(i + 3) && !(a == 0xf0 && at(i + 1) < 0x90) &&
      !(a == 0xf4 && at(i + 1) > 0x8f))
    return 4;
  return 0;
}

std::string json(const Field& f) {
  struct {
    std::string operator()(const std::string& v) const { return json_escape(v); }
    std::string operator()(std::int64_t v) const { return fmt::format("{}", v); }
    std::string operator()(double v) const { return std::isfinite(v) ? fmt::format("{}", v) : "null"; }
    std::string operator()(bool v) const { return v ? "true" : "false"; }
    std::string operator()(const Field::Raw& v) const { return v.json; }
  } visitor;
  return std::visit(visitor, f.value);
}

void write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;  // a full disk must not stop a round; the line is lost
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
}

}  // namespace

std::string json_escape(std::string_view text) {
  std::string out = "\"";
  for (std::size_t i = 0; i < text.size();) {
    const char c = text[i];
    const std::size_t n = sequence(text, i);
    if (n == 0) {
      out += "\\ufffd";
      ++i;
      continue;
    }
    if (n > 1) {
      out += text.substr(i, n);
    } else if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(static_cast<unsigned char>(c)));
    } else {
      out += c;
    }
    i += n;
  }
  return out + "\"";
}

Result<std::shared_ptr<Log>> Log::open(std::string component, const std::string& path, bool quiet) {
  int fd = -1;
  if (!path.empty()) {
    fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0) return unavailable(path, fmt::format("cannot open the log: {}", std::strerror(errno)));
  }
  return std::shared_ptr<Log>(new Log(std::move(component), fd, true, quiet));
}

std::shared_ptr<Log> Log::to_descriptor(std::string component, int fd) {
  return std::shared_ptr<Log>(new Log(std::move(component), fd, false, true));
}

Log::~Log() {
  if (owned_ && fd_ >= 0) ::close(fd_);
}

void Log::event(std::string_view event, std::string_view message, std::initializer_list<Field> fields) {
  const auto t = std::chrono::system_clock::now();
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(t.time_since_epoch()).count() % 1000;
  std::string time = text(std::chrono::floor<std::chrono::seconds>(t));
  time.pop_back();
  std::string line = fmt::format("{{\"time\":\"{}.{:03}Z\",\"component\":{},\"event\":{},\"message\":{}", time, ms,
                                 json_escape(component_), json_escape(event), json_escape(message));
  if (simulated_) line += ",\"simulated\":true";
  for (const Field& f : fields) line += fmt::format(",{}:{}", json_escape(f.name), json(f));
  line += "}\n";
  std::lock_guard lock(mutex_);
  if (fd_ >= 0) write_all(fd_, line);
  if (!quiet_) write_all(2, fmt::format("{}{}: {}\n", component_, simulated_ ? " (simulated)" : "", message));
}

}  // namespace cloister::base

#include "base/time.hpp"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <limits>

namespace cloister::base {
namespace {

struct Unit {
  std::string_view name;
  std::uint64_t factor;
};

constexpr std::array<Unit, 5> durations{{{"ms", 1}, {"s", 1000}, {"m", 60'000}, {"h", 3'600'000}, {"d", 86'400'000}}};
constexpr std::array<Unit, 5> sizes{{{"B", 1}, {"KiB", 1ull << 10}, {"MiB", 1ull << 20}, {"GiB", 1ull << 30}, {"TiB", 1ull << 40}}};

template <class Units>
Result<std::uint64_t> parse(std::string_view text, const Units& units, std::string_view example, std::string where) {
  std::uint64_t n = 0;
  const auto [end, e] = std::from_chars(text.data(), text.data() + text.size(), n);
  std::string_view rest(end, static_cast<std::size_t>(text.data() + text.size() - end));
  if (rest.starts_with(' ')) rest.remove_prefix(1);
  if (e == std::errc{})
    for (const Unit& u : units)
      if (rest == u.name && n <= std::numeric_limits<std::int64_t>::max() / u.factor) return n * u.factor;
  return malformed(std::move(where), fmt::format("wanted {}, found \"{}\"", example, text));
}

template <class Units>
std::string format(std::uint64_t n, const Units& units, std::string_view space) {
  const Unit* best = &units[0];
  for (const Unit& u : units)
    if (n != 0 && n % u.factor == 0) best = &u;
  return fmt::format("{}{}{}", n / best->factor, space, best->name);
}

}  // namespace

Time now() { return std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now()); }

std::string text(Time time) {
  const auto day = std::chrono::floor<std::chrono::days>(time);
  const std::chrono::year_month_day date(day);
  const std::chrono::hh_mm_ss clock(time - day);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", static_cast<int>(date.year()), static_cast<unsigned>(date.month()),
                     static_cast<unsigned>(date.day()), clock.hours().count(), clock.minutes().count(), clock.seconds().count());
}

Result<Time> parse_time(std::string_view in, std::string where) {
  const auto bad = [&] {
    return malformed(where, fmt::format("wanted a date like 2026-12-01 or a UTC time like 2026-12-01T08:30:00Z, found \"{}\"", in));
  };
  const auto digits = [&](std::size_t at, std::size_t n) {
    int v = 0;
    for (char c : in.substr(at, n)) {
      if (c < '0' || c > '9') return -1;
      v = v * 10 + (c - '0');
    }
    return v;
  };
  if ((in.size() != 10 && in.size() != 20) || in[4] != '-' || in[7] != '-') return bad();
  const int y = digits(0, 4), m = digits(5, 2), d = digits(8, 2);
  int h = 0, min = 0, s = 0;
  if (in.size() == 20) {
    if (in[10] != 'T' || in[13] != ':' || in[16] != ':' || in[19] != 'Z') return bad();
    h = digits(11, 2), min = digits(14, 2), s = digits(17, 2);
  }
  const std::chrono::year_month_day date(std::chrono::year(y), std::chrono::month(static_cast<unsigned>(m)),
                                         std::chrono::day(static_cast<unsigned>(d)));
  if (y < 0 || m < 0 || d < 0 || !date.ok() || h < 0 || h > 23 || min < 0 || min > 59 || s < 0 || s > 59) return bad();
  return std::chrono::sys_days(date) + std::chrono::hours(h) + std::chrono::minutes(min) + std::chrono::seconds(s);
}

Result<std::chrono::milliseconds> parse_duration(std::string_view in, std::string where) {
  auto n = parse(in, durations, "a duration like \"30s\", \"10m\", \"4h\" or \"90d\"", std::move(where));
  if (!n) return n.error();
  return std::chrono::milliseconds(*n);
}

std::string text(std::chrono::milliseconds duration) {
  return format(static_cast<std::uint64_t>(duration.count()), durations, "");
}

Result<std::uint64_t> parse_size(std::string_view in, std::string where) {
  return parse(in, sizes, "a size like \"64 KiB\", \"512 MiB\" or \"2 GiB\"", std::move(where));
}

std::string size_text(std::uint64_t bytes) { return format(bytes, sizes, " "); }

}  // namespace cloister::base

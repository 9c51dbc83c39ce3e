#pragma once
// Times and sizes as people write them.

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace cloister {
namespace base {

/// UTC, whole seconds.
using Time = std::chrono::sys_seconds;

Time now();
std::string text(Time time);                                      ///< "2026-12-01T00:00:00Z"
Result<Time> parse_time(std::string_view text, std::string where);  ///< that form, or "2026-12-01"

/// "30s", "10m", "4h", "90d", "250ms".
Result<std::chrono::milliseconds> parse_duration(std::string_view text, std::string where);
std::string text(std::chrono::milliseconds duration);

/// "64 KiB", "512 MiB", "2 GiB", "100 B", with or without the space.
Result<std::uint64_t> parse_size(std::string_view text, std::string where);
std::string size_text(std::uint64_t bytes);

}  // namespace base
using base::Time;
}  // namespace cloister

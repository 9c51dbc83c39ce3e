#pragma once
// Bytes, views of bytes, and their text forms.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace cloister {
namespace base {

using Bytes = std::vector<std::uint8_t>;
using View = std::span<const std::uint8_t>;
template <std::size_t N>
using Array = std::array<std::uint8_t, N>;

inline View view(std::string_view text) { return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()}; }
inline std::string text(View bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }
inline Bytes copy(View bytes) { return {bytes.begin(), bytes.end()}; }
/// The first N bytes; asserts that there are as many.
template <std::size_t N>
Array<N> array(View bytes) {
  Array<N> out{};
  if (bytes.size() < N) std::abort();
  std::copy_n(bytes.begin(), N, out.begin());
  return out;
}

std::string hex(View bytes);                                     ///< lower case
Result<Bytes> from_hex(std::string_view text, std::string where);  ///< either case; even length
std::string base64(View bytes);                                  ///< RFC 4648 section 4, padded
Result<Bytes> from_base64(std::string_view text, std::string where);

/// Equal, in a time that depends only on the lengths.
bool equal(View a, View b);

}  // namespace base
using base::Array;
using base::Bytes;
using base::View;
}  // namespace cloister

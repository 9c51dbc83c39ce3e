#include "base/bytes.hpp"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

namespace cloister::base {
namespace {

int nibble(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

std::string hex(View bytes) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string out;
  out.reserve(bytes.size() * 2);
  for (std::uint8_t b : bytes) {
    out.push_back(digits[b >> 4]);
    out.push_back(digits[b & 15]);
  }
  return out;
}

Result<Bytes> from_hex(std::string_view text, std::string where) {
  if (text.size() % 2 != 0)
    return malformed(std::move(where), fmt::format("wanted an even number of hex digits, found {}", text.size()));
  Bytes out(text.size() / 2);
  for (std::size_t i = 0; i < text.size(); ++i) {
    const int n = nibble(text[i]);
    if (n < 0) return malformed(std::move(where), fmt::format("wanted hex digits, found '{}' at position {}", text[i], i));
    out[i / 2] = static_cast<std::uint8_t>(out[i / 2] << 4 | n);
  }
  return out;
}

std::string base64(View bytes) {
  std::string out((bytes.size() + 2) / 3 * 4 + 1, '\0');
  const int n = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()), bytes.data(), static_cast<int>(bytes.size()));
  out.resize(static_cast<std::size_t>(n));
  return out;
}

Result<Bytes> from_base64(std::string_view text, std::string where) {
  if (text.size() % 4 != 0) return malformed(std::move(where), "wanted base64 of a length divisible by 4");
  Bytes out(text.size() / 4 * 3);
  const int n = EVP_DecodeBlock(out.data(), reinterpret_cast<const unsigned char*>(text.data()), static_cast<int>(text.size()));
  if (n < 0) return malformed(std::move(where), "wanted base64, found another character");
  std::size_t pad = 0;
  while (pad < 2 && pad < text.size() && text[text.size() - 1 - pad] == '=') ++pad;
  out.resize(static_cast<std::size_t>(n) - pad);
  if (base64(out) != text) return malformed(std::move(where), "wanted canonical base64 (RFC 4648 section 3.5)");
  return out;
}

bool equal(View a, View b) { return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0; }

}  // namespace cloister::base

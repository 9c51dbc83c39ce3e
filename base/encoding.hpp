#pragma once
// The one binary form of everything that Cloister signs or hashes (docs/formats.md, "Canonical encoding"), and the reader of
// every fixed binary layout. Integers are big endian unless the name says `le`.

#include <concepts>
#include <string>
#include <string_view>

#include "base/bytes.hpp"

namespace cloister::base {

/// Appends fields. A `field` is a u32 length and as many bytes, so that no two lists of fields have one encoding.
class Writer {
 public:
  Writer& u8(std::uint8_t v) { return integer(v); }
  Writer& u16(std::uint16_t v) { return integer(v); }
  Writer& u32(std::uint32_t v) { return integer(v); }
  Writer& u64(std::uint64_t v) { return integer(v); }
  Writer& raw(View bytes);
  Writer& field(View bytes);
  Writer& field(std::string_view text) { return field(view(text)); }

  const Bytes& bytes() const& { return out_; }
  Bytes bytes() && { return std::move(out_); }

 private:
  template <std::unsigned_integral T>
  Writer& integer(T v) {
    for (std::size_t i = sizeof(T); i-- > 0;) out_.push_back(static_cast<std::uint8_t>(v >> (8 * i)));
    return *this;
  }
  Bytes out_;
};

/// Reads fields in order and keeps the first error, so that a parser is a plain list of fields; after an error every
/// read gives zeros. The bytes must outlive the reader and the views it gives.
class Reader {
 public:
  Reader(std::string name, View bytes) : name_(std::move(name)), bytes_(bytes) {}

  std::uint8_t u8(std::string_view field) { return integer<std::uint8_t>(field); }
  std::uint16_t u16(std::string_view field) { return integer<std::uint16_t>(field); }
  std::uint32_t u24(std::string_view field);
  std::uint32_t u32(std::string_view field) { return integer<std::uint32_t>(field); }
  std::uint64_t u64(std::string_view field) { return integer<std::uint64_t>(field); }
  template <std::unsigned_integral T>
  T le(std::string_view field) {
    T v = 0;
    View b = raw(field, sizeof(T));
    for (std::size_t i = b.size(); i-- > 0;) v = static_cast<T>(v << 8 | b[i]);
    return v;
  }
  View raw(std::string_view field, std::size_t n);
  template <std::size_t N>
  Array<N> array(std::string_view field) {
    Array<N> out{};
    View b = raw(field, N);
    std::copy(b.begin(), b.end(), out.begin());
    return out;
  }
  /// A u32 length and as many bytes, at most `cap`.
  View field(std::string_view field, std::size_t cap);
  std::string string(std::string_view field, std::size_t cap);
  /// A u8, u16 or u24 length and as many bytes: the vectors of RFC 8446 section 3.4.
  View vector8(std::string_view field) { return raw(field, u8(field)); }
  View vector16(std::string_view field) { return raw(field, u16(field)); }
  View vector24(std::string_view field) { return raw(field, u24(field)); }

  std::size_t left() const { return error_ ? 0 : bytes_.size() - at_; }
  bool ok() const { return !error_; }
  void fail(std::string_view field, std::string what);
  /// Left-over bytes are an error too.
  Result<void> finish();

 private:
  template <std::unsigned_integral T>
  T integer(std::string_view field) {
    T v = 0;
    for (std::uint8_t b : raw(field, sizeof(T))) v = static_cast<T>(static_cast<std::uint64_t>(v) << 8 | b);
    return v;
  }
  std::string name_;
  View bytes_;
  std::size_t at_ = 0;
  bool error_ = false;
  Error first_;
};

}  // namespace cloister::base

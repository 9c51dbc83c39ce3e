#include "base/encoding.hpp"

#include <fmt/format.h>

namespace cloister::base {

Writer& Writer::raw(View bytes) {
  out_.insert(out_.end(), bytes.begin(), bytes.end());
  return *this;
}

Writer& Writer::field(View bytes) {
  u32(static_cast<std::uint32_t>(bytes.size()));
  return raw(bytes);
}

void Reader::fail(std::string_view field, std::string what) {
  if (error_) return;
  error_ = true;
  first_ = malformed(fmt::format("{}.{}", name_, field), std::move(what));
}

View Reader::raw(std::string_view field, std::size_t n) {
  if (error_) return {};
  if (bytes_.size() - at_ < n) {
    fail(field, fmt::format("needs {} bytes at offset {:#x}, {} left", n, at_, bytes_.size() - at_));
    return {};
  }
  View out = bytes_.subspan(at_, n);
  at_ += n;
  return out;
}

std::uint32_t Reader::u24(std::string_view field) {
  std::uint32_t v = 0;
  for (std::uint8_t b : raw(field, 3)) v = v << 8 | b;
  return v;
}

View Reader::field(std::string_view field, std::size_t cap) {
  const std::uint32_t n = u32(field);
  if (n > cap) {
    fail(field, fmt::format("wanted at most {} bytes, found {}", cap, n));
    return {};
  }
  return raw(field, n);
}

std::string Reader::string(std::string_view field, std::size_t cap) { return text(this->field(field, cap)); }

Result<void> Reader::finish() {
  if (!error_ && at_ != bytes_.size()) fail("end", fmt::format("{} bytes are left over", bytes_.size() - at_));
  if (error_) return first_;
  return {};
}

}  // namespace cloister::base

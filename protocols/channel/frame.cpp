#include "protocols/channel/frame.hpp"

namespace cloister::protocols::channel {

Array<header_size> encode(const Header& header) {
  const auto type = static_cast<std::uint16_t>(header.type);
  Array<header_size> out{1, 0, static_cast<std::uint8_t>(type >> 8), static_cast<std::uint8_t>(type)};
  for (std::size_t i = 0; i < 8; ++i) out[8 + i] = static_cast<std::uint8_t>(header.length >> (8 * (7 - i)));
  return out;
}

Result<Header> decode(const Array<header_size>& bytes, bool launches) {
  base::Reader r("frame", bytes);
  const auto version = r.u8("version");
  const auto zero = r.u8("zero");
  const auto type = r.u16("type");
  const auto flags = r.u32("flags");
  const auto length = r.u64("length");
  if (version != 1) return base::unsupported("frame.version", "wanted 1, found " + std::to_string(version));
  if (zero != 0 || flags != 0)
    return base::malformed("frame.flags", "reserved bits are set: wanted 0, found " + std::to_string(flags));
  if (type == messages::UNSET || !messages::MessageType_IsValid(type))
    return base::unsupported("frame.type", "no message has the type " + std::to_string(type));
  const auto at_most = launches && type == messages::LAUNCH_REQUEST ? launch_cap : cap(static_cast<MessageType>(type));
  if (length > at_most)
    return base::malformed("frame.length", "wanted at most " + std::to_string(at_most) + " for the type " +
                                               std::to_string(type) + ", found " + std::to_string(length));
  return Header{static_cast<MessageType>(type), length};
}

}  // namespace cloister::protocols::channel

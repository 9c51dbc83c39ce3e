#pragma once
// A frame: a 16-byte header and its payload (docs/formats.md, "Frames").
//
//   u8 version = 1 | u8 zero | u16 type | u32 flags = 0 | u64 length      (big endian)

#include "base/bytes.hpp"
#include "base/encoding.hpp"
#include "protocols/messages/messages.pb.h"

namespace cloister::protocols::channel {

using messages::MessageType;

inline constexpr std::size_t header_size = 16;
inline constexpr std::size_t message_cap = 4 << 20;  ///< of a control message; a charter travels in one
inline constexpr std::size_t data_cap = 1 << 20;     ///< of a data frame

struct Header {
  MessageType type = messages::UNSET;
  std::uint64_t length = 0;
};

Array<header_size> encode(const Header& header);
/// Errors: malformed (length over the type's cap, reserved bits set), unsupported (version, type).
Result<Header> decode(const Array<header_size>& bytes);

struct Frame {
  MessageType type = messages::UNSET;
  Bytes payload;
};

}  // namespace cloister::protocols::channel

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
inline constexpr std::size_t message_cap = 4 << 20;  ///< of a control message
inline constexpr std::size_t launch_cap = 65 << 20;  ///< of a launch request, where they are awaited: a whole charter
inline constexpr std::size_t data_cap = 1 << 20;     ///< of a data frame

/// The largest payload of a type: what is read before the peer has proven itself is small.
constexpr std::size_t cap(MessageType type) {
  switch (type) {
    case messages::DATA:
      return data_cap;
    case messages::HELLO:
      return 64 << 10;
    case messages::AUTHENTICATOR_REQUEST:
      return 2 << 10;
    case messages::AUTHENTICATOR:
      return 160 << 10;
    case messages::ACCEPTED:
    case messages::READY:
    case messages::PING:
    case messages::PONG:
      return 1 << 10;
    case messages::REFUSAL:
      return 256 << 10;
    default:
      return message_cap;
  }
}

struct Header {
  MessageType type = messages::UNSET;
  std::uint64_t length = 0;
};

Array<header_size> encode(const Header& header);
/// `launches`: this receiver awaits launch requests. Errors: malformed (length over the type's cap, reserved bits set),
/// unsupported (version, type).
Result<Header> decode(const Array<header_size>& bytes, bool launches = false);

struct Frame {
  MessageType type = messages::UNSET;
  Bytes payload;
};

}  // namespace cloister::protocols::channel

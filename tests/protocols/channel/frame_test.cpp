// Frame headers: exact bytes, caps, reserved bits.

#include "protocols/channel/frame.hpp"

#include <gmock/gmock.h>
#include <random>

namespace cloister::protocols::channel {
namespace {

using testing::HasSubstr;

std::string error(const Array<header_size>& bytes) {
  auto r = decode(bytes);
  return r ? "accepted" : r.error().text();
}

TEST(Frame, TheHeaderIsWhatTheFormatSays) {
  EXPECT_EQ(base::hex(encode(Header{messages::OFFER, 0x0102})), "01000041000000000000000000000102");
}

TEST(Frame, EveryTypeComesBackWithEveryLengthUpToItsCap) {
  for (int t = messages::MessageType_MIN; t <= messages::MessageType_MAX; ++t) {
    if (!messages::MessageType_IsValid(t) || t == messages::UNSET) continue;
    const auto type = static_cast<MessageType>(t);
    for (std::uint64_t length : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{cap(type)}}) {
      const auto header = decode(encode(Header{type, length}));
      ASSERT_TRUE(header) << t;
      EXPECT_EQ(header->type, type);
      EXPECT_EQ(header->length, length);
    }
    EXPECT_THAT(error(encode(Header{type, cap(type) + 1})), HasSubstr("wanted at most " + std::to_string(cap(type))));
  }
}

TEST(Frame, CapsAreWhatTheFormatSays) {
  EXPECT_EQ(cap(messages::DATA), 1u << 20);
  EXPECT_EQ(cap(messages::OFFER), 4u << 20);
  EXPECT_EQ(cap(messages::AUTHENTICATOR), 160u << 10);
}

TEST(Frame, AnotherVersionTypeOrReservedBitIsRefused) {
  const auto good = encode(Header{messages::READY, 0});
  auto bad = good;
  bad[0] = 2;
  EXPECT_EQ(error(bad), "frame.version: wanted 1, found 2");
  bad = good;
  bad[1] = 1;
  EXPECT_THAT(error(bad), HasSubstr("reserved bits"));
  bad = good;
  bad[7] = 1;
  EXPECT_THAT(error(bad), HasSubstr("reserved bits"));
  bad = good;
  bad[2] = 0xff;
  EXPECT_THAT(error(bad), HasSubstr("no message has the type 65301"));
  EXPECT_THAT(error(encode(Header{messages::UNSET, 0})), HasSubstr("type 0"));
}

TEST(Frame, RandomHeadersAreAcceptedOnlyWithinTheRules) {
  const auto seed = std::random_device{}();
  std::mt19937_64 random(seed);
  for (int i = 0; i < 100'000; ++i) {
    Array<header_size> bytes{};
    for (auto& b : bytes) b = static_cast<std::uint8_t>(random() % 4 ? 0 : random());
    bytes[0] = random() % 8 ? 1 : bytes[0];
    bytes[3] = static_cast<std::uint8_t>(random() % 110);
    const auto header = decode(bytes);
    if (header) {
      ASSERT_EQ(encode(*header), bytes) << "seed " << seed;
    }
  }
}

}  // namespace
}  // namespace cloister::protocols::channel

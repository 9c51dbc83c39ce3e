// The attested connection: who is let through, who is not, and what each side is told.

#include <gmock/gmock.h>

#include "world.hpp"

namespace cloister::protocols::channel::tests {
namespace {

using testing::HasSubstr;

TEST(Attested, AnEnclaveThatThePolicyAllowsAndAPartyOfTheCharterAreConnected) {
  World w;
  auto [client, server] = w.meet();
  ASSERT_TRUE(client.ok()) << client.error;
  ASSERT_TRUE(server.ok()) << server.error;
  EXPECT_EQ(client.connection->peer_key(), w.enclave_key.public_key());
  EXPECT_EQ(client.connection->record(), w.record);
  ASSERT_TRUE(client.connection->peer_claims());
  EXPECT_EQ(client.connection->peer_claims()->measurement, w.tee.measurement);
  EXPECT_EQ(server.connection->peer_owner(), "charite");
  EXPECT_FALSE(server.connection->peer_claims());
}

}  // namespace
}  // namespace cloister::protocols::channel::tests

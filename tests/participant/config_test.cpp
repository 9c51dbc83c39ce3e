#include "participant/config.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cloister::participant {
namespace {

using ::testing::HasSubstr;

constexpr const char* good = R"(owner = "charite"
charter = "charter.bin"
policy = "charite.policy.toml"
proxy = "proxy.example:3128"
[keys]
tls = "keys/tls.pem"
witness = "/etc/witness.pem"
[data]
file = "patients.csv"
[ledger]
folder = "ledger"
[trainer]
program = "../bin/cloister-trainer"
isolation = "required"
memory = "2 GiB"
cpu = "1h"
[log]
file = "participant.log"
)";

std::string replaced(std::string from, const std::string& to) {
  std::string text = good;
  return text.replace(text.find(from), from.size(), to);
}
std::string error(const std::string& toml) {
  return parse_config(toml, "/srv/charite/participant.toml").error().text();
}

TEST(Config, PathsAreRelativeToTheFile) {
  const auto c = parse_config(good, "/srv/charite/participant.toml");
  ASSERT_TRUE(c) << c.error().text();
  EXPECT_EQ(c->tls_key, "/srv/charite/keys/tls.pem");
  EXPECT_EQ(c->witness_key, "/etc/witness.pem");
  EXPECT_EQ(c->trainer, "/srv/bin/cloister-trainer");
  EXPECT_EQ(c->trainer_memory, std::uint64_t{2} << 30);
  EXPECT_EQ(c->trainer_cpu, std::chrono::hours(1));
  EXPECT_TRUE(c->isolation_required);
  EXPECT_EQ(c->tee_platform, "");
}

TEST(Config, AnUnknownKeyIsNamedWithTheNearest) {
  EXPECT_THAT(error(replaced("witness =", "witnes =")),
              HasSubstr("participant.toml:7: keys.witnes: no such setting; did you mean keys.witness?"));
}

TEST(Config, AllMistakesComeAtOnce) {
  const std::string text = error(replaced("isolation = \"required\"", "isolation = \"strict\"") + "[extra]\nx = 1\n");
  EXPECT_THAT(text, HasSubstr("trainer.isolation"));
  EXPECT_THAT(text, HasSubstr("best-effort"));
  EXPECT_THAT(text, HasSubstr("extra"));
}

TEST(Config, IsolationIsNeverAssumed) {
  EXPECT_THAT(error(replaced("isolation = \"required\"\n", "")), HasSubstr("trainer.isolation"));
}

TEST(Config, AProxyIsAHostAndAPort) {
  EXPECT_THAT(error(replaced("proxy.example:3128", "http://proxy:3128")),
              HasSubstr("wanted \"host:port\" of an HTTP CONNECT proxy"));
}

}  // namespace
}  // namespace cloister::participant

#include "launcher/config.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cloister::launcher {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* good = R"(charters = ["study.charter", "/etc/other.charter"]
log = "launcher.log"
work = "work"
grant_lifetime = "15m"

[keys]
tls = "keys/tls.key"
grant = "keys/grant.key"

[tee]
kind = "simulated"
program = "../bin/cloister-simulated-tee"
platform = "platform"

[[aggregator]]
program = "../bin/cloister-aggregator"

[[aggregator]]
program = "/opt/cloister-aggregator-cuda"
arguments = ["--device", "0"]
)";

std::string edited(std::string text, const std::string& from, const std::string& to) {
  text.replace(text.find(from), from.size(), to);
  return text;
}

TEST(LauncherConfig, ReadsEverySettingAndPutsItsFolderBeforeRelativePaths) {
  const auto c = parse_config(good, "/srv/cloudco/launcher.toml");
  ASSERT_TRUE(c) << c.error().text();
  EXPECT_THAT(c->charters, ElementsAre("/srv/cloudco/study.charter", "/etc/other.charter"));
  EXPECT_EQ(c->log, "/srv/cloudco/launcher.log");
  EXPECT_EQ(c->work, "/srv/cloudco/work");
  EXPECT_EQ(c->grant_lifetime, std::chrono::minutes(15));
  EXPECT_EQ(c->tls_key, "/srv/cloudco/keys/tls.key");
  EXPECT_EQ(c->grant_key, "/srv/cloudco/keys/grant.key");
  EXPECT_EQ(c->tee_program, "/srv/cloudco/../bin/cloister-simulated-tee");
  EXPECT_EQ(c->platform, "/srv/cloudco/platform");
  ASSERT_EQ(c->aggregators.size(), 2u);
  EXPECT_EQ(c->aggregators[0].program, "/srv/cloudco/../bin/cloister-aggregator");
  EXPECT_TRUE(c->aggregators[0].arguments.empty());
  EXPECT_EQ(c->aggregators[1].program, "/opt/cloister-aggregator-cuda");
  EXPECT_THAT(c->aggregators[1].arguments, ElementsAre("--device", "0"));
}

TEST(LauncherConfig, NamesEveryMistakeAtOnce) {
  std::string bad = edited(good, "grant_lifetime = \"15m\"", "grant_lifetime = \"1s\"");
  bad = edited(bad, "kind = \"simulated\"", "kind = \"tdx\"");
  bad = edited(bad, "platform = \"platform\"", "platfrom = \"platform\"");
  const auto c = parse_config(bad, "launcher.toml");
  ASSERT_FALSE(c);
  EXPECT_THAT(c.error().text(),
              AllOf(HasSubstr("launcher.toml:4: grant_lifetime: wanted \"2s\" to \"24h\""), HasSubstr("tee.kind"),
                    HasSubstr("launcher.toml:13: tee.platfrom: no such setting; did you mean tee.platform?")));
}

TEST(LauncherConfig, WantsACharterAndAnAggregator) {
  const auto c = parse_config(edited(std::string(good).substr(0, std::string(good).find("[[")),
                                     "[\"study.charter\", \"/etc/other.charter\"]", "[]"),
                              "launcher.toml");
  ASSERT_FALSE(c);
  EXPECT_THAT(c.error().text(), AllOf(HasSubstr("charters: wanted at least one founded charter"),
                                      HasSubstr("wanted at least one [[aggregator]]")));
}

}  // namespace
}  // namespace cloister::launcher

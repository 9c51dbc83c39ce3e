#include "attest/simulated/platform.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "base/file.hpp"
#include "tests/attest/simulated/platform_fixture.hpp"

namespace cloister::attest::simulated {
namespace {

using ::testing::HasSubstr;

TEST(SimulatedPlatform, IsMadeOnceAndKeepsItsIdentity) {
  const Folder folder;
  const auto first = Platform::create(folder / "platform");
  ASSERT_TRUE(first) << first.error().text();
  const auto again = Platform::create(folder / "platform");
  ASSERT_TRUE(again) << again.error().text();
  EXPECT_EQ(first->identity(), again->identity());
  EXPECT_TRUE(first->identity().starts_with("simulated:"));
  EXPECT_EQ(first->identity().size(), 10u + 64u);
  struct stat st {};
  ASSERT_EQ(::stat((folder / "platform/platform.key").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600u);
}

TEST(SimulatedPlatform, AKeyThatOthersMayReadIsRefused) {
  const Folder folder;
  ASSERT_TRUE(Platform::create(folder / "p"));
  ASSERT_EQ(::chmod((folder / "p/platform.key").c_str(), 0644), 0);
  EXPECT_THAT(Platform::load(folder / "p").error().text(), HasSubstr("others may read"));
}

TEST(SimulatedPlatform, HalfAPlatformIsNotMadeWhole) {
  const Folder folder;
  ASSERT_TRUE(Platform::create(folder / "p"));
  std::filesystem::remove(folder / "p/platform.toml");
  EXPECT_THAT(Platform::create(folder / "p").error().text(), HasSubstr("has platform.key but no platform.toml"));
}

TEST(SimulatedPlatform, FactsReadAsTheyWereWritten) {
  PlatformFacts facts;
  facts.tcb_version = 3;
  facts.tcb_status = "revoked";
  facts.advisories = {"CLOISTER-SA-1"};
  facts.debug = true;
  facts.vmpl = 1;
  const auto again = PlatformFacts::parse(facts.toml(), "platform.toml");
  ASSERT_TRUE(again) << again.error().text();
  EXPECT_EQ(again->toml(), facts.toml());
}

TEST(SimulatedPlatform, AllMistakesOfAPlatformFileComeAtOnce) {
  const auto facts = PlatformFacts::parse(
      "[tcb]\nversion = 1\nstatus = \"fine\"\ndate = 2026-01-01\nadvisories = []\n"
      "[guest]\ndebug = false\nvmpl = 4\nsvn = 1\nsnv = 1\n[certificate]\nfrom = 2026-01-01\nuntil = 2027-01-01\n",
      "platform.toml");
  ASSERT_FALSE(facts);
  EXPECT_THAT(facts.error().text(), HasSubstr("platform.toml:3: tcb.status"));
  EXPECT_THAT(facts.error().text(), HasSubstr("platform.toml:8: guest.vmpl"));
  EXPECT_THAT(facts.error().text(), HasSubstr("platform.toml:10: guest.snv: no such setting; did you mean guest.svn?"));
}

TEST(Measure, CoversTheProgramAndItsArgumentsInOrder) {
  const Bytes program{1, 2, 3}, patched{1, 2, 4};
  const auto m = measure(program, {"a", "b"});
  EXPECT_EQ(m, measure(program, {"a", "b"}));
  EXPECT_NE(m, measure(patched, {"a", "b"}));
  EXPECT_NE(m, measure(program, {"b", "a"}));
  EXPECT_NE(m, measure(program, {"ab"}));
  EXPECT_NE(m, measure(program, {"a", "b", ""}));
  EXPECT_NE(measure(program, {}), measure(program, {""}));
}

TEST(Measure, AFileThatIsNotThereSaysSo) {
  EXPECT_THAT(measure_file("/no/such/program", {}).error().text(), HasSubstr("/no/such/program: cannot open"));
}

}  // namespace
}  // namespace cloister::attest::simulated

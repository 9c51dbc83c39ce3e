// The strict loader: every kind of mistake, with file, line, path and words. A message that changes, changes here.

#include "base/config.hpp"

#include <functional>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cloister::base {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;

// What reading `toml` with `schema` complains of; empty when nothing.
std::string mistakes(std::string_view toml, const std::function<void(Section)>& schema) {
  auto config = Config::parse(toml, "f.toml");
  if (!config) return config.error().text();
  schema(config->root());
  auto done = config->finish();
  return done ? "" : done.error().text();
}

TEST(Config, ReadsEveryType) {
  const char* toml = R"(
s = "text"
i = 7
n = 2
f = 2.5
b = true
l = ["a", "b"]
v = [1, 2.5]
d = "10m"
z = "2 GiB"
day = 2026-12-01
moment = 2026-12-01T08:30:00Z
written = "2026-12-01"
key = "ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
digest = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
[t]
x = 1
[[many]]
y = 1
[[many]]
y = 2
)";
  EXPECT_EQ(mistakes(toml,
                     [](Section r) {
                       EXPECT_EQ(r.string("s"), "text");
                       EXPECT_EQ(r.integer("i", 0, 10), 7);
                       EXPECT_EQ(r.number("n"), 2.0);
                       EXPECT_EQ(r.number("f"), 2.5);
                       EXPECT_TRUE(r.boolean("b"));
                       EXPECT_THAT(r.strings("l"), ElementsAre("a", "b"));
                       EXPECT_THAT(r.numbers("v"), ElementsAre(1.0, 2.5));
                       EXPECT_EQ(r.duration("d"), 10min);
                       EXPECT_EQ(r.size("z"), std::uint64_t{2} << 30);
                       EXPECT_EQ(text(r.time("day")), "2026-12-01T00:00:00Z");
                       EXPECT_EQ(text(r.time("moment")), "2026-12-01T08:30:00Z");
                       EXPECT_EQ(r.time("written"), r.time("day"));
                       EXPECT_EQ(r.key("key").bytes[0], 0xd7);
                       EXPECT_EQ(r.digest("digest")[0], 0xba);
                       EXPECT_EQ(r.section("t").integer("x", 0, 9), 1);
                       ASSERT_EQ(r.sections("many").size(), 2u);
                       EXPECT_EQ(r.sections("many")[0].integer("y", 0, 9), 1);
                       EXPECT_EQ(r.sections("many")[1].integer("y", 0, 9), 2);
                       EXPECT_FALSE(r.maybe_string("absent"));
                       EXPECT_FALSE(r.maybe_section("absent_too"));
                     }),
            "");
}

TEST(Config, AnUnknownKeyIsAMistakeWithItsNearestName) {
  EXPECT_EQ(
      mistakes("[study]\nparticipant = 3\n", [](Section r) { r.section("study").maybe_integer("participants", 1, 9); }),
      "f.toml:2: study.participant: no such setting; did you mean study.participants?");
  EXPECT_EQ(mistakes("zebra = 1\n", [](Section r) { r.maybe_string("owner"); }), "f.toml:1: zebra: no such setting");
}

TEST(Config, AllMistakesComeAtOnceInTheOrderOfTheirLines) {
  EXPECT_EQ(mistakes("a = 1\nb = \"x\"\nc = true\n",
                     [](Section r) {
                       r.boolean("b");
                       r.string("a");
                     }),
            "f.toml:1: a: wanted a string, found an integer\n"
            "f.toml:2: b: wanted true or false, found a string\n"
            "f.toml:3: c: no such setting");
}

struct Mistake {
  const char* toml;
  std::function<void(Section)> schema;
  const char* says;
};

TEST(Config, EveryKindOfMistakeSaysWhatWasWantedAndFound) {
  const Mistake all[] = {
      {"", [](Section r) { r.string("owner"); }, "f.toml:1: owner: is missing, and absent means no: write it out"},
      {"[a]\nx = 1\n", [](Section r) { r.section("a").integer("x", 1, 9), r.section("a").string("y"); },
       "f.toml:1: a.y: is missing, and absent means no: write it out"},
      {"", [](Section r) { r.section("a").string("b"); }, "f.toml:1: a: is missing, and absent means no: write it out"},
      {"x = 10", [](Section r) { r.integer("x", 1, 9); }, "f.toml:1: x: wanted an integer from 1 to 9, found 10"},
      {"x = 1.0", [](Section r) { r.integer("x", 1, 9); },
       "f.toml:1: x: wanted an integer from 1 to 9, found a number"},
      {"x = nan", [](Section r) { r.number("x"); }, "f.toml:1: x: wanted a finite number, found a number"},
      {"x = inf", [](Section r) { r.number("x"); }, "f.toml:1: x: wanted a finite number, found a number"},
      {"x = [1, nan]", [](Section r) { r.numbers("x"); },
       "f.toml:1: x: wanted an array of finite numbers, found a number in it"},
      {"x = \"fianl\"",
       [](Section r) {
         r.one_of("x", {"never", "final"});
       },
       "f.toml:1: x: wanted one of \"never\", \"final\", found \"fianl\"; did you mean \"final\"?"},
      {"",
       [](Section r) {
         r.one_of("x", {"never", "final"});
       },
       "f.toml:1: x: is missing; wanted one of \"never\", \"final\""},
      {"x = \"a\"", [](Section r) { r.strings("x"); }, "f.toml:1: x: wanted an array of strings, found a string"},
      {"x = [\"a\", 1]", [](Section r) { r.strings("x"); },
       "f.toml:1: x: wanted an array of strings, found an integer in it"},
      {"x = [\"a\", \"a\"]", [](Section r) { r.strings("x"); }, "f.toml:1: x: names \"a\" twice"},
      {"x = \"10\"", [](Section r) { r.duration("x"); },
       "f.toml:1: x: wanted a duration like \"30s\", \"10m\", \"4h\" or \"90d\", found \"10\""},
      {"x = \"2 GB\"", [](Section r) { r.size("x"); },
       "f.toml:1: x: wanted a size like \"64 KiB\", \"512 MiB\" or \"2 GiB\", found \"2 GB\""},
      {"x = 2026-12-01T08:30:00+01:00", [](Section r) { r.time("x"); },
       "f.toml:1: x: wanted a time in UTC: end it with Z"},
      {"x = 08:30:00", [](Section r) { r.time("x"); }, "f.toml:1: x: wanted a date, found a time of day"},
      {"x = \"ed25519:0\"", [](Section r) { r.key("x"); },
       "f.toml:1: x: wanted \"ed25519:\" and 64 hex digits, found \"ed25519:0\""},
      {"x = \"sha256:0\"", [](Section r) { r.digest("x"); },
       "f.toml:1: x: wanted \"sha256:\" and 64 hex digits, found \"sha256:0\""},
      {"x = 1", [](Section r) { r.section("x"); }, "f.toml:1: x: wanted a table, found an integer"},
      {"x = [1]", [](Section r) { r.sections("x"); }, "f.toml:1: x: wanted tables, found an integer among them"},
      {"x = 1", [](Section r) { r.elements("x"); }, "f.toml:1: x: wanted an array, found an integer"},
      {"x = 1\nx = 2", [](Section r) { r.integer("x", 1, 9); }, "f.toml:2: not TOML: "},
      {"x = ", [](Section) {}, "f.toml:1: not TOML: "},
  };
  for (const Mistake& m : all) {
    const std::string found = mistakes(m.toml, m.schema);
    EXPECT_EQ(found.substr(0, std::string_view(m.says).size()), m.says) << m.toml;
    EXPECT_EQ(found.find('\n'), std::string::npos) << "one mistake, one line: " << found;
  }
}

TEST(Config, AMissingSectionIsSaidOnceAndNothingInItIs) {
  EXPECT_EQ(mistakes("",
                     [](Section r) {
                       Section a = r.section("a");
                       EXPECT_TRUE(a.missing());
                       a.string("s"), a.integer("i", 1, 2), a.number("n"), a.boolean("b"), a.strings("l"),
                           a.numbers("v"), a.duration("d"), a.size("z"), a.time("t"), a.key("k"), a.digest("g");
                       a.section("b").string("c");
                     }),
            "f.toml:1: a: is missing, and absent means no: write it out");
}

TEST(Config, ElementsOfAMixedArrayAreTablesOrPlainValues) {
  EXPECT_EQ(mistakes("x = [\"a\", { name = \"b\" }]\n",
                     [](Section r) {
                       auto e = r.elements("x");
                       ASSERT_EQ(e.size(), 2u);
                       EXPECT_TRUE(e[0].plain());
                       EXPECT_EQ(e[0].string("value"), "a");
                       EXPECT_FALSE(e[1].plain());
                       EXPECT_EQ(e[1].string("name"), "b");
                     }),
            "");
}

TEST(Config, KeysOfATableOfFreeNamesComeInFileOrder) {
  EXPECT_EQ(mistakes("[t]\nzoe = 1\nabe = 2\n",
                     [](Section r) { EXPECT_THAT(r.section("t").keys(), ElementsAre("zoe", "abe")); }),
            "");
}

TEST(Config, TellsWhichKeysItsSchemaKnows) {
  auto config = Config::parse("a = [{ n = 1 }, \"x\"]\n", "f.toml");
  Section r = config->root();
  for (Section e : r.elements("a")) e.plain() ? (void)e.string("value") : (void)e.integer("n", 0, 9);
  r.maybe_string("b");
  EXPECT_THAT(config->known(), ElementsAre("a", "a[].n", "b"));
}

TEST(Config, NearestGivesNothingWhenNothingIsNear) {
  EXPECT_EQ(nearest("pulbish", {"publish", "purpose"}), "publish");
  EXPECT_EQ(nearest("x", {"publish", "purpose"}), "");
}

}  // namespace
}  // namespace cloister::base

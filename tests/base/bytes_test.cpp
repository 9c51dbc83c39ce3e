// Text forms, the canonical encoding, times and sizes: vectors from their documents, and what is refused with which
// words.

#include "base/bytes.hpp"

#include <filesystem>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <random>
#include <sys/stat.h>

#include "base/encoding.hpp"
#include "base/file.hpp"
#include "base/log.hpp"
#include "base/time.hpp"

namespace cloister::base {
namespace {

using testing::HasSubstr;

TEST(Bytes, Base64FollowsRfc4648Section10) {
  const std::pair<const char*, const char*> vectors[] = {{"", ""},
                                                         {"f", "Zg=="},
                                                         {"fo", "Zm8="},
                                                         {"foo", "Zm9v"},
                                                         {"foob", "Zm9vYg=="},
                                                         {"fooba", "Zm9vYmE="},
                                                         {"foobar", "Zm9vYmFy"}};
  for (const auto& [plain, encoded] : vectors) {
    EXPECT_EQ(base64(view(plain)), encoded);
    EXPECT_EQ(text(from_base64(encoded, "v").value()), plain);
  }
}

TEST(Bytes, Base64RefusesEveryOtherSpelling) {
  for (const char* bad : {"Zg=", "Zh==", "Zg== ", " Zg=", "Z===", "====", "    ", "Zm9v\n", "Zm9*"})
    EXPECT_FALSE(from_base64(bad, "v")) << bad;
}

TEST(Bytes, HexTakesBothCasesAndSaysWhereItIsWrong) {
  EXPECT_EQ(from_hex("00fFa5", "v").value(), (Bytes{0, 0xff, 0xa5}));
  EXPECT_EQ(hex(Bytes{0, 0xff, 0xa5}), "00ffa5");
  EXPECT_EQ(from_hex("0g", "v").error().text(), "v: wanted hex digits, found 'g' at position 1");
  EXPECT_EQ(from_hex("000", "v").error().text(), "v: wanted an even number of hex digits, found 3");
}

TEST(Encoding, ReadingAfterWritingIsTheIdentity) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  for (int i = 0; i < 200; ++i) {
    Bytes blob(random() % 100);
    for (auto& b : blob) b = static_cast<std::uint8_t>(random());
    const std::uint64_t n = random();
    const Bytes bytes = Writer()
                            .u8(static_cast<std::uint8_t>(n))
                            .u16(static_cast<std::uint16_t>(n))
                            .u32(static_cast<std::uint32_t>(n))
                            .u64(n)
                            .field(blob)
                            .raw(blob)
                            .bytes();
    Reader r("x", bytes);
    EXPECT_EQ(r.u8("a"), static_cast<std::uint8_t>(n));
    EXPECT_EQ(r.u16("b"), static_cast<std::uint16_t>(n));
    EXPECT_EQ(r.u32("c"), static_cast<std::uint32_t>(n));
    EXPECT_EQ(r.u64("d"), n);
    EXPECT_EQ(copy(r.field("e", 100)), blob);
    EXPECT_EQ(copy(r.raw("f", blob.size())), blob);
    EXPECT_TRUE(r.finish());
  }
}

TEST(Encoding, IntegersAreBigEndianUnlessTheNameSaysOtherwise) {
  const Bytes bytes = Writer().u32(0x01020304).raw(Bytes{4, 3, 2, 1}).raw(Bytes{1, 2, 3}).bytes();
  EXPECT_EQ(hex(bytes), "0102030404030201010203");
  Reader r("x", bytes);
  EXPECT_EQ(r.u32("a"), 0x01020304u);
  EXPECT_EQ(r.le<std::uint32_t>("b"), 0x01020304u);
  EXPECT_EQ(r.u24("c"), 0x010203u);
  EXPECT_TRUE(r.finish());
}

TEST(Encoding, AReaderKeepsItsFirstErrorAndGivesZerosAfterIt) {
  const Bytes bytes{1, 2, 3};
  Reader r("report", bytes);
  EXPECT_EQ(r.u16("version"), 0x0102);
  EXPECT_EQ(r.u32("length"), 0u);
  EXPECT_EQ(r.u8("kind"), 0u);
  EXPECT_EQ(r.finish().error().text(), "report.length: needs 4 bytes at offset 0x2, 1 left");
}

TEST(Encoding, LeftOverBytesAndFieldsOverTheirCapAreErrors) {
  const Bytes bytes = Writer().field("abcd").u8(1).bytes();
  Reader left("x", bytes);
  left.field("f", 4);
  EXPECT_EQ(left.finish().error().text(), "x.end: 1 bytes are left over");
  Reader capped("x", bytes);
  capped.field("f", 3);
  EXPECT_EQ(capped.finish().error().text(), "x.f: wanted at most 3 bytes, found 4");
  const Bytes huge = Writer().u32(0xffffffff).bytes();
  Reader lying("x", huge);
  EXPECT_TRUE(lying.field("f", 0xffffffff).empty());
  EXPECT_THAT(lying.finish().error().text(), HasSubstr("needs 4294967295 bytes"));
}

TEST(Time, IsReadAsItIsWritten) {
  EXPECT_EQ(text(parse_time("2026-12-01", "t").value()), "2026-12-01T00:00:00Z");
  EXPECT_EQ(text(parse_time("2028-02-29T23:59:59Z", "t").value()), "2028-02-29T23:59:59Z");
  for (const char* bad : {"", "2026-13-01", "2026-02-29", "2026-12-01T08:30:00", "2026-12-01T08:30:00+01:00",
                          "2026-12-01T24:00:00Z", "2026-1-1", "20x6-01-01"}) {
    const auto t = parse_time(bad, "t");
    ASSERT_FALSE(t) << bad;
    EXPECT_THAT(t.error().text(), HasSubstr("wanted a date like 2026-12-01"));
  }
}

TEST(Time, DurationsAndSizesHaveUnits) {
  using namespace std::chrono_literals;
  EXPECT_EQ(parse_duration("250ms", "d").value(), 250ms);
  EXPECT_EQ(parse_duration("90d", "d").value(), 90 * 24h);
  EXPECT_EQ(text(std::chrono::milliseconds(90min)), "90m");
  EXPECT_EQ(text(std::chrono::milliseconds(0)), "0ms");
  EXPECT_EQ(parse_size("2 GiB", "s").value(), std::uint64_t{2} << 30);
  EXPECT_EQ(parse_size("64KiB", "s").value(), 65536u);
  EXPECT_EQ(size_text(512 << 20), "512 MiB");
  for (const char* bad : {"30", "s", "-1s", "1.5h", "30 sec", "99999999999999999999d", "9223372036854775807d"})
    EXPECT_FALSE(parse_duration(bad, "d")) << bad;
  for (const char* bad : {"1 GB", "GiB", "1  GiB", "16777216 TiB"}) EXPECT_FALSE(parse_size(bad, "s")) << bad;
  EXPECT_EQ(parse_size("1 GB", "s").error().text(),
            "s: wanted a size like \"64 KiB\", \"512 MiB\" or \"2 GiB\", found \"1 GB\"");
}

TEST(Log, EscapesWhateverAPeerWrote) {
  EXPECT_EQ(json_escape("a\"b\\c\n\x01"), "\"a\\\"b\\\\c\\n\\u0001\"");
  EXPECT_EQ(json_escape("\xc3\xa9 \xff \xc0\x80"), "\"\xc3\xa9 \\ufffd \\ufffd\\ufffd\"");
}

TEST(File, IsReplacedWholeAndNeverReadBeyondItsCap) {
  std::string folder = (std::filesystem::temp_directory_path() / "cloister file XXXXXX").string();
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  const std::string path = folder + "/a";
  ASSERT_TRUE(write_file(path, view("one"), 0600));
  ASSERT_TRUE(write_file(path, view("three"), 0600));
  EXPECT_EQ(text(read_file(path, 5).value()), "three");
  EXPECT_THAT(read_file(path, 4).error().text(), HasSubstr("larger than 4 bytes"));
  EXPECT_EQ(read_file(folder + "/none", 4).error().text(), folder + "/none: cannot open: No such file or directory");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder), {}), 1) << "nothing is left beside it";
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace cloister::base

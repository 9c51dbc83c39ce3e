// What a later version of this program left on a hospital's disk: refused by name and left as it is, never read in
// part.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.hpp"
#include "participant/ledger.hpp"
#include "participant/succession.hpp"
#include "participant/withdrawal.hpp"
#include "tests/participant/temporary.hpp"
#include "tests/support/study.hpp"

namespace cloister::participant {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

struct OnDisk : ::testing::Test {
  Temporary folder;
  std::shared_ptr<base::Log> log = base::Log::open("test", "", true).value();

  Bytes read(const std::string& path) { return base::read_file(path, 1 << 24).value(); }
  /// The digit of the version that stands in the file becomes a later one.
  Bytes from_later(const std::string& path, const std::string& version) {
    std::string text = base::text(read(path));
    const auto at = text.find(version);
    EXPECT_NE(at, std::string::npos);
    text[at + version.size() - 1] = '2';
    base::write_file(path, base::view(text), 0600).value();
    return base::copy(base::view(text));
  }
};

TEST_F(OnDisk, ALedger) {
  { ASSERT_TRUE(Ledger::open(folder.path(), "cardiac", *log)); }
  const std::string path = folder / "cardiac.ledger";
  const Bytes later = from_later(path, "cloister ledger 1");
  EXPECT_THAT(Ledger::open(folder.path(), "cardiac", *log).error().text(),
              AllOf(HasSubstr("wanted \"cloister ledger 1\""), HasSubstr("newer version")));
  EXPECT_EQ(read(path), later);
}

// A record that is whole and of a kind that a later version writes: what it says is unknown, so nothing may be spent.
TEST_F(OnDisk, ARecordInALedger) {
  const std::string path = folder / "cardiac.ledger";
  {
    auto file = LedgerFile::open(path, [](View) -> Result<void> { return {}; }).value();
    base::Writer w;
    w.u64(1).field("data set").field("cardiac");
    base::Writer later;
    later.u64(2).field("noise budget").u64(7);
    const std::vector<Bytes> records = {w.bytes(), later.bytes()};
    ASSERT_TRUE(file.append(records));
  }
  const Bytes before = read(path);
  EXPECT_THAT(Ledger::open(folder.path(), "cardiac", *log).error().text(),
              HasSubstr("a record of the unknown kind \"noise budget\": written by a newer version?"));
  EXPECT_EQ(read(path), before);
}

TEST_F(OnDisk, AWithdrawal) {
  const tests::Study study;
  ASSERT_TRUE(withdraw(folder.path(), "usz", study.charter, *study.keys("usz").witness, "", study.at));
  from_later(folder / withdrawal_file_name(study.charter.digest), "cloister stored withdrawal 1");
  EXPECT_THAT(load_withdrawal(folder.path(), study.charter).error().text(),
              HasSubstr("wanted \"cloister stored withdrawal 1\""));
}

TEST_F(OnDisk, WhatAWitnessAgreedTo) {
  const std::string key = folder / "witness.key";
  const base::Sha256 charter = base::sha256(base::view("charter"));
  ASSERT_TRUE(remember_succession(key, charter, base::sha256(base::view("successor"))));
  EXPECT_EQ(agreed_successor(key, charter).value(), base::sha256(base::view("successor")));
  EXPECT_EQ(agreed_successor(key, base::sha256(base::view("another"))).value(), std::nullopt);
  const Bytes later = from_later(successions_path(key), "cloister successions 1");
  EXPECT_THAT(agreed_successor(key, charter).error().text(), HasSubstr("wanted \"cloister successions 1\""));
  EXPECT_THAT(remember_succession(key, charter, base::sha256(base::view("other"))).error().text(),
              HasSubstr("newer version"));
  EXPECT_EQ(read(successions_path(key)), later);
}

}  // namespace
}  // namespace cloister::participant

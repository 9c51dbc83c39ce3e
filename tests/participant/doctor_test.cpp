#include "participant/doctor.hpp"

#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.hpp"
#include "participant/guest.hpp"
#include "participant/link.hpp"
#include "participant/withdrawal.hpp"
#include "tests/participant/temporary.hpp"
#include "tests/support/study.hpp"

namespace cloister::participant {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

const std::string program = CLOISTER_BINARY_DIR "/tests/participant/participant_fake_trainer";

struct DoctorTest : ::testing::Test {
  tests::Study study{{.trainer = base::sha256(*base::read_file(program, 1 << 28))}};
  Temporary folder;
  std::string config = folder / "participant.toml";

  void SetUp() override {
    const tests::Keys& keys = study.keys("charite");
    write("charter.bin", study.charter.serialize());
    write("policy.toml", base::view(study.policy("charite").text));
    write("tls.pem", base::view(keys.tls.pem()));
    write("witness.pem", base::view(keys.witness->pem()));
    write("data.csv", base::view("63,1,1,0\n41,0,2,3\n"));
    write("participant.toml",
          base::view("owner = \"charite\"\ncharter = \"charter.bin\"\npolicy = \"policy.toml\"\n"
                     "keys = { tls = \"tls.pem\", witness = \"witness.pem\" }\n[data]\nfile = \"data.csv\"\n"
                     "[ledger]\nfolder = \"ledger\"\n[log]\nfile = \"log.jsonl\"\n[trainer]\nprogram = \"" +
                     program + "\"\nisolation = \"best-effort\"\n"));
  }
  void write(const std::string& name, View bytes) { base::write_file(folder / name, bytes, 0600).value(); }
  Diagnosis examined() const { return examine(config, "", study.at); }
  Check check(const std::string& name) const {
    const Diagnosis d = examined();
    for (const Check& c : d.checks)
      if (c.name == name) return c;
    return {Check::Grade::wrong, name, "not examined", ""};
  }
  static ::testing::Matcher<Check> wrong(const std::string& found) {
    return ::testing::AllOf(::testing::Field("grade", &Check::grade, Check::Grade::wrong),
                            ::testing::Field("found", &Check::found, HasSubstr(found)),
                            ::testing::Field("remedy", &Check::remedy, Not(::testing::IsEmpty())));
  }
};

TEST_F(DoctorTest, AWellKeptNodeIsHealthy) {
  const Diagnosis d = examined();
  EXPECT_TRUE(d.healthy()) << d.text();
  EXPECT_THAT(d.json(), HasSubstr("\"healthy\":true"));
  EXPECT_EQ(check("data").found, "2 records follow the declared columns");
}

TEST_F(DoctorTest, ABrokenConfigurationIsTheOnlyFinding) {
  write("participant.toml", base::view("owner = 3"));
  EXPECT_EQ(examined().checks.size(), 1u);
  EXPECT_THAT(check("config"), wrong("owner"));
}

TEST_F(DoctorTest, NamesADataErrorByLineAndColumnAndNeverQuotesTheCell) {
  write("data.csv", base::view("63,1,1,0\nMUELLER,0,2,3\n"));
  EXPECT_THAT(check("data"), wrong("age"));
  EXPECT_THAT(examined().text(), Not(HasSubstr("MUELLER")));
}

TEST_F(DoctorTest, NamesAKeyThatOthersMayReadAndOneThatIsNotTheCharters) {
  std::filesystem::permissions(folder / "witness.pem", std::filesystem::perms(0644));
  EXPECT_THAT(check("witness key"), wrong("witness.pem"));
  write("tls.pem", base::view(base::PrivateKey::generate().pem()));
  EXPECT_THAT(check("tls key"), wrong("wanted this hospital's tls key of the charter"));
}

TEST_F(DoctorTest, NamesAPolicyThatIsNotTheCharters) {
  write("policy.toml", base::view(study.policy("charite").text + "\n"));
  EXPECT_THAT(check("policy"), wrong("a changed policy needs a new charter"));
}

TEST_F(DoctorTest, NamesAnotherTrainer) {
  study = tests::Study{tests::StudyOptions{}};
  SetUp();
  EXPECT_THAT(check("trainer"), wrong("install the trainer that the charter names"));
}

TEST_F(DoctorTest, NamesADamagedLedger) {
  std::filesystem::create_directory(folder / "ledger");
  base::write_file(folder / "ledger/charite-cardiac.ledger", base::view("cloister ledger 1\nabcdefghijklmnop")).value();
  EXPECT_THAT(check("ledger"), wrong("is damaged"));
}

TEST_F(DoctorTest, NamesAClockOutsideTheCharter) {
  const Diagnosis d = examine(config, "", study.at + std::chrono::days(400));
  EXPECT_FALSE(d.healthy());
  EXPECT_THAT(d.text(), HasSubstr("charter"));
}

TEST_F(DoctorTest, NamesAMissingPlatformOfItsTee) {
  EXPECT_THAT(examine(config, folder / "nothing", study.at).text(), HasSubstr("is not a platform's folder"));
}

TEST_F(DoctorTest, AWithdrawalIsStoredSignedAndTakenBackAndItsSerialGrows) {
  const std::string ledger = folder / "ledger";
  EXPECT_FALSE(load_withdrawal(ledger, study.charter).value());
  const auto& key = *study.keys("charite").witness;
  const auto first = withdraw(ledger, "charite", study.charter, key, "the board decided so", study.at).value();
  EXPECT_EQ(first.serial, 1u);
  const auto stored = load_withdrawal(ledger, study.charter).value();
  ASSERT_TRUE(stored);
  EXPECT_EQ(stored->statement, first.serialize());
  EXPECT_EQ(stored->reason, "the board decided so");
  EXPECT_TRUE(take_back(ledger, study.charter.digest).value());
  EXPECT_FALSE(take_back(ledger, study.charter.digest).value());
  EXPECT_FALSE(load_withdrawal(ledger, study.charter).value());
  EXPECT_EQ(withdraw(ledger, "charite", study.charter, key, "", study.at).value().serial, 2u);
}

TEST_F(DoctorTest, AWithdrawalUnderAnotherKeyIsNotStored) {
  const auto r = withdraw(folder / "ledger", "charite", study.charter, base::PrivateKey::generate(), "", study.at);
  EXPECT_FALSE(r);
  EXPECT_FALSE(load_withdrawal(folder / "ledger", study.charter).value());
}

TEST(GuestDocument, IsReadBackAndRefusesWhatIsLeftOver) {
  const GuestDocument document{
      .config_file = "/srv/charite/participant.toml", .config = "owner = \"charite\"", .runs = 3, .once = true};
  Bytes bytes = document.serialize();
  const GuestDocument back = GuestDocument::parse(bytes).value();
  EXPECT_EQ(back.config_file, document.config_file);
  EXPECT_EQ(back.config, document.config);
  EXPECT_EQ(back.runs, 3u);
  EXPECT_TRUE(back.once);
  bytes.push_back(0);
  EXPECT_THAT(GuestDocument::parse(bytes).error().text(), HasSubstr("left over"));
}

TEST(Pause, IsARandomPartOfTheUpperHalf) {
  for (int i = 0; i < 200; ++i) {
    const auto pause = with_jitter(std::chrono::milliseconds(1000));
    EXPECT_GE(pause.count(), 500);
    EXPECT_LT(pause.count(), 1000);
  }
}

}  // namespace
}  // namespace cloister::participant

// What an owner does before anything runs: the run_ functions as the command line calls them, on real files.

#include "cli/owner.hpp"

#include <filesystem>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/file.hpp"
#include "tests/support/study.hpp"

namespace cloister {
namespace {

using nlohmann::json;
using testing::HasSubstr;

constexpr int done = 0, failed = 1, denied = 3;

class Owner : public testing::Test {
 protected:
  Owner() {
    std::string name = (std::filesystem::temp_directory_path() / "cloister owner XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
  }
  ~Owner() override { std::filesystem::remove_all(folder_); }

  std::string path(const std::string& name) const { return folder_ + "/" + name; }
  std::string write(const std::string& name, const std::string& text, unsigned mode = 0644) const {
    base::write_file(path(name), base::view(text), mode).value();
    return path(name);
  }
  std::string read(const std::string& file) const { return base::text(base::read_file(file, 1 << 23).value()); }

  // Standard output of `run`, and its exit code.
  template <class Run>
  std::pair<int, std::string> output(Run run) const {
    testing::internal::CaptureStdout();
    int code = -1;
    try {
      code = run();
    } catch (...) {
      testing::internal::GetCapturedStdout();
      throw;
    }
    std::fflush(stdout);
    return {code, testing::internal::GetCapturedStdout()};
  }
  template <class Run>
  std::string error_of(Run run) const {
    try {
      run();
    } catch (const Exception& e) {
      return e.what();
    }
    return "nothing was thrown";
  }

  // The study's files as its owners have them: manifest, policies, every signer's key; and a draft.
  std::string draft(const tests::Study& study) const {
    cli::CharterDraftOptions o{.manifest = write("study.toml", study.manifest),
                               .policies = {},
                               .references = {},
                               .previous = "",
                               .not_after = base::text(study.at + std::chrono::days(30)),
                               .out = path("draft.charter")};
    for (const auto& [file, text] : study.policies) o.policies.push_back(write(file, text));
    for (const tests::Keys& k : study.owners)
      for (const auto& [name, key] : k.signers) write(k.owner + "." + name + ".key", key.pem(), 0600);
    EXPECT_EQ(output([&] { return cli::run_charter_draft(o, true); }).first, done);
    return o.out;
  }
  void sign(const std::string& file, const std::string& owner, const std::string& signer,
            const std::string& out = "") const {
    EXPECT_EQ(output([&] {
                return cli::run_charter_sign({.file = file,
                                              .owner = owner,
                                              .signer = signer,
                                              .key = path(owner + "." + signer + ".key"),
                                              .witness = false,
                                              .out = out},
                                             true);
              }).first,
              done);
  }

  std::string folder_;
};

TEST_F(Owner, KeygenWritesAPrivateKeyThatOnlyItsOwnerReadsAndItsPublicHalf) {
  const auto [code, out] = output([&] {
    return cli::run_keygen({.names = {"tls", "witness"}, .folder = path("keys")}, true);
  });
  EXPECT_EQ(code, done);
  const json facts = json::parse(out);
  ASSERT_EQ(facts.size(), 2u);
  struct stat s {};
  ASSERT_EQ(::stat(path("keys/tls.key").c_str(), &s), 0);
  EXPECT_EQ(s.st_mode & 0777, 0600u);
  const auto key = base::PrivateKey::load(path("keys/tls.key"));
  ASSERT_TRUE(key);
  EXPECT_EQ(key->public_key().text(), facts[0]["public_key"]);
  EXPECT_EQ(read(path("keys/tls.pub")), key->public_key().text() + "\n");
}

TEST_F(Owner, KeygenNeverOverwritesAKey) {
  output([&] { return cli::run_keygen({.names = {"tls"}, .folder = path("keys")}, true); });
  const std::string before = read(path("keys/tls.key"));
  EXPECT_THAT(error_of([&] { cli::run_keygen({.names = {"tls"}, .folder = path("keys")}, true); }),
              HasSubstr("a key is never overwritten"));
  std::filesystem::remove(path("keys/tls.pub"));
  EXPECT_THAT(error_of([&] { cli::run_keygen({.names = {"tls"}, .folder = path("keys")}, true); }),
              HasSubstr("a key is never overwritten"));
  EXPECT_EQ(read(path("keys/tls.key")), before);
}

TEST_F(Owner, KeygenRefusesANameThatLeavesItsFolder) {
  EXPECT_THAT(error_of([&] { cli::run_keygen({.names = {"../tls"}, .folder = path("keys")}, true); }),
              HasSubstr("wanted a name of a-z"));
}

TEST_F(Owner, PolicyCheckGivesEveryMistakeWithFileAndLine) {
  const tests::Study study;
  const std::string good = write("usz.policy.toml", study.policies[3].second);
  const std::string bad = write("bad.policy.toml", "role = \"data\"\nowner = \"X\"\nrecords = 3\n");
  const auto [code, out] = output([&] { return cli::run_policy_check({.files = {good, bad}}, false); });
  EXPECT_EQ(code, failed);
  EXPECT_THAT(out, HasSubstr(good + ": good: usz (data), sha256:"));
  EXPECT_THAT(out, HasSubstr(bad + ":2: owner: wanted a name of a-z, 0-9 and -"));
  EXPECT_THAT(out, HasSubstr(bad + ":3: records: no such setting"));
  const auto [json_code, json_out] = output([&] { return cli::run_policy_check({.files = {good}}, true); });
  EXPECT_EQ(json_code, done);
  EXPECT_EQ(json::parse(json_out)[0]["digest"], base::digest_text(study.policy("usz").digest));
}

TEST_F(Owner, PolicyExplainSaysEveryRequirementInWords) {
  const tests::Study study;
  const std::string text = cli::explain(study.policy("charite"));
  for (const char* part : {"trust policy of charite, data owner", "Signed by at least 2 of: dpo, it.", "In force from",
                           "these kinds of TEE: simulated", "SIMULATED EVIDENCE IS ALLOWED", "Debug mode is refused",
                           "INTEL-SA-00001", "Only for this purpose: DUA 2026-114, cardiac risk",
                           "Only these columns: age, sex, cp, num", "at most 500 records", "fedavg, fedprox, fedadam",
                           "at most 2 a run, and nothing that rests on fewer than 10 records", "Evaluation: auc only",
                           "fewer than 3 participants", "At most 20 runs, each of at most 50 training rounds",
                           "may be published at the end of a run", "NO DIFFERENTIAL PRIVACY"})
    EXPECT_THAT(text, HasSubstr(part));
  EXPECT_THAT(cli::explain(study.policy("acme")), HasSubstr("EVERY PARTICIPANT SEES THE MODEL IT TRAINS"));
  EXPECT_THAT(cli::explain(study.policy("acme")), HasSubstr("alice, with the key"));
  EXPECT_THAT(cli::explain(study.policy("cloudco")), HasSubstr("At most 2 GiB of memory, 64 connections, for 12h."));
}

TEST_F(Owner, OnlyANamedSignerSignsAPolicy) {
  const tests::Study study;
  const std::string file = write("usz.policy.toml", study.policies[3].second);
  const std::string key = write("k.key", study.keys("usz").signers[0].second.pem(), 0600);
  EXPECT_THAT(error_of([&] { cli::run_policy_sign({.file = file, .key = key, .signer = "mallory"}, true); }),
              HasSubstr("signers.among does not name mallory"));
  EXPECT_EQ(output([&] { return cli::run_policy_sign({.file = file, .key = key, .signer = "officer"}, true); }).first,
            done);
  EXPECT_EQ(read(file + ".officer.sig").size(), 129u);
}

TEST_F(Owner, ADraftTakesThePolicySignaturesThatLieBesideAndRefusesForeignOnes) {
  const tests::Study study;
  const std::string file = write("usz.policy.toml", study.policies[3].second);
  write("k.key", study.keys("usz").signers[0].second.pem(), 0600);
  output([&] { return cli::run_policy_sign({.file = file, .key = path("k.key"), .signer = "officer"}, true); });
  const auto charter = attest::parse_charter(base::read_file(draft(study), 1 << 20).value(), "draft");
  ASSERT_TRUE(charter);
  ASSERT_EQ(charter->policy_signatures.size(), 1u);
  EXPECT_EQ(charter->policy_signatures[0].owner, "usz");
  write("usz.policy.toml.officer.sig", std::string(128, '0'));
  EXPECT_THAT(error_of([&] { draft(study); }), HasSubstr("is not officer's signature over"));
}

TEST_F(Owner, ACharterIsFoundedOnceEverybodyHasSignedInAnyPlace) {
  const tests::Study study;
  const std::string file = draft(study);
  const std::string copy = path("copy.charter");
  for (const tests::Keys& k : study.owners)
    for (const auto& [name, key] : k.signers)
      if (name != "it") sign(file, k.owner, name);
  const auto [early, why] =
      output([&] { return cli::run_charter_finalize({.files = {file}, .out = path("study.charter")}, true); });
  EXPECT_EQ(early, denied);
  const json refused = json::parse(why);
  EXPECT_EQ(refused["allowed"], false);
  std::vector<json> unmet;
  for (const json& f : refused["decision"]["findings"])
    if (f["met"] == false) unmet.push_back(f);
  ASSERT_EQ(unmet.size(), 2u);
  EXPECT_EQ(unmet[0]["owner"], "charite (data)");
  EXPECT_EQ(unmet[0]["requirement"], "signers.at_least");
  EXPECT_EQ(unmet[0]["wanted"], "the charter signed by 2 of dpo, it");
  EXPECT_EQ(unmet[0]["found"], "dpo");
  EXPECT_FALSE(std::filesystem::exists(path("study.charter")));

  sign(file, "charite", "it", copy);
  const auto [code, out] = output([&] {
    return cli::run_charter_finalize({.files = {file, copy}, .out = path("study.charter")}, true);
  });
  EXPECT_EQ(code, done) << out;
  EXPECT_TRUE(attest::load_charter(base::read_file(path("study.charter"), 1 << 20).value(), "study.charter", study.at));
  EXPECT_EQ(output([&] { return cli::run_charter_check({.file = path("study.charter"), .at = ""}, true); }).first,
            done);
}

TEST_F(Owner, CharterCheckFindsWhatOneHospitalWouldRefuseBeforeAnythingStarts) {
  const tests::Study study({.edits = {{"usz", "rounds = { at_most = 50 }", "rounds = { at_most = 5 }"},
                                      {"usz", "model = \"final\"", "model = \"never\""}}});
  const std::string file = draft(study);
  const auto [code, out] = output([&] { return cli::run_charter_check({.file = file, .at = ""}, false); });
  EXPECT_EQ(code, denied);
  EXPECT_THAT(out, HasSubstr("denied by usz (data): study.rounds.at_most: wanted at most 5, found settings.rounds 20; "
                             "choose fewer rounds"));
  EXPECT_THAT(out, HasSubstr("denied by usz (data): study.publish.model: wanted never, found final"));
}

TEST_F(Owner, SigningWarnsOfWhatTheOwnPolicyRefuses) {
  const tests::Study study({.edits = {{"usz", "rounds = { at_most = 50 }", "rounds = { at_most = 5 }"}}});
  const std::string file = draft(study);
  const auto [code, out] = output([&] {
    return cli::run_charter_sign({.file = file,
                                  .owner = "usz",
                                  .signer = "officer",
                                  .key = path("usz.officer.key"),
                                  .witness = false,
                                  .out = ""},
                                 true);
  });
  EXPECT_EQ(code, done);
  EXPECT_EQ(json::parse(out)["own_policy_refuses"][0]["requirement"], "study.rounds.at_most");
}

TEST_F(Owner, AKeyThatTheManifestDoesNotNameSignsNothing) {
  const tests::Study study;
  const std::string file = draft(study);
  EXPECT_THAT(error_of([&] {
                cli::run_charter_sign({.file = file,
                                       .owner = "usz",
                                       .signer = "officer",
                                       .key = path("va.officer.key"),
                                       .witness = false,
                                       .out = ""},
                                      true);
              }),
              HasSubstr("usz has no signer officer with the key ed25519:"));
}

TEST_F(Owner, CharterShowNamesEveryPartyAndThatNothingIsProtected) {
  const tests::Study study;
  const std::string file = draft(study);
  const json facts = json::parse(output([&] { return cli::run_charter_show({.file = file}, true); }).second);
  EXPECT_EQ(facts["study"], "heart");
  EXPECT_EQ(facts["charter"],
            base::digest_text(attest::parse_charter(base::read_file(file, 1 << 20).value(), file)->digest));
  EXPECT_EQ(facts["founded"], false);
  EXPECT_EQ(facts["simulated"], true);
  EXPECT_EQ(facts["privacy"], "none");
  EXPECT_EQ(facts["parties"].size(), 6u);
  EXPECT_THAT(output([&] { return cli::run_charter_show({.file = file}, false); }).second,
              HasSubstr("no differential privacy protects this study"));
}

TEST_F(Owner, AWitnessSignsOneSuccessorOfACharter) {
  const tests::Study study;
  const std::string first = path("first.charter");
  base::write_file(first, study.charter.serialize()).value();
  const std::string key = write("witness.key", study.keys("usz").witness->pem(), 0600);
  const auto successor = [&](const std::string& name, int days) {
    cli::CharterDraftOptions o{.manifest = write("study.toml", study.manifest),
                               .policies = {},
                               .references = {},
                               .previous = first,
                               .not_after = base::text(study.at + std::chrono::days(days)),
                               .out = path(name)};
    for (const auto& [file, text] : study.policies) o.policies.push_back(write(file, text));
    EXPECT_EQ(output([&] { return cli::run_charter_draft(o, true); }).first, done);
    return cli::CharterSignOptions{.file = o.out, .owner = "usz", .signer = "", .key = key, .witness = true, .out = ""};
  };
  const auto second = successor("second.charter", 20), other = successor("other.charter", 21);
  for (int again = 0; again < 2; ++again)
    EXPECT_EQ(output([&] { return cli::run_charter_sign(second, true); }).first, done);
  EXPECT_EQ(attest::parse_charter(base::read_file(second.file, 1 << 20).value(), "c")->succession.size(), 1u);
  EXPECT_THAT(error_of([&] { cli::run_charter_sign(other, true); }),
              HasSubstr("succeeds " + base::digest_text(study.charter.digest) + ": not a second one"));
  EXPECT_TRUE(attest::parse_charter(base::read_file(other.file, 1 << 20).value(), "c")->succession.empty());
}

TEST_F(Owner, AReferenceValueIsSignedAndReadBack) {
  const base::PrivateKey key = base::PrivateKey::generate();
  const std::string out = path("aggregator.reference.toml");
  EXPECT_EQ(output([&] {
              return cli::run_reference_sign({.name = "cloister-aggregator 1.2",
                                              .measurement = std::string(96, 'a'),
                                              .key = write("r.key", key.pem(), 0600),
                                              .out = out},
                                             true);
            }).first,
            done);
  const auto reference = attest::parse_reference(read(out), out);
  ASSERT_TRUE(reference);
  EXPECT_EQ(reference->signer, key.public_key());
  EXPECT_THAT(error_of([&] {
                cli::run_reference_sign({.name = "x", .measurement = "aa", .key = path("r.key"), .out = out}, true);
              }),
              HasSubstr("48 bytes"));
}

}  // namespace
}  // namespace cloister

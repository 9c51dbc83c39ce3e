#include "launcher/agent.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "attest/simulated/platform.hpp"
#include "tests/support/study.hpp"

namespace cloister::launcher {
namespace {

using attest::simulated::Platform;
using attest::simulated::PlatformFacts;
using protocols::launch::Record;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const Bytes genuine(48, 0x61), patched(48, 0x62);

const Platform& platform() {
  static const Platform out(base::PrivateKey::generate(), {});
  return out;
}

tests::StudyOptions options(std::vector<tests::Edit> edits = {}) {
  return {.edits = std::move(edits), .measurement = genuine, .platform = platform().identity()};
}

const tests::Study& study() {
  static const tests::Study out(options());
  return out;
}

Agent an_agent(const tests::Study& of, const attest::Charter& charter) {
  auto made = Agent::make({of.keys("cloudco").tls.public_key(), *of.keys("cloudco").grant, std::chrono::minutes(15)},
                          {charter}, {{"/opt/patched", {}, patched}, {"/opt/genuine", {}, genuine}});
  if (!made) throw Exception(made.error());
  return *made;
}
Agent an_agent(const tests::Study& of = study()) {
  return an_agent(of, of.charter);
}

// --- Requests
// ---------------------------------------------------------------------------------------------------------

struct Asked {
  explicit Asked(const tests::Study& s)
      : of(s), launch(s.launch()), requester(s.keys("acme").tls.public_key()), charter(s.charter.serialize()) {}
  std::string refusal(const Agent& agent) const {
    const Admission a = agent.admit({requester, charter, launch}, of.at);
    return a.decision.allowed() ? "" : a.decision.explain();
  }
  const tests::Study& of;
  attest::Launch launch;
  base::PublicKey requester;
  Bytes charter;
};

TEST(LauncherAdmits, WhatTheCharterNames) {
  const Asked asked(study());
  const Agent agent = an_agent();
  const Admission a = agent.admit({asked.requester, asked.charter, asked.launch}, study().at);
  EXPECT_TRUE(a.decision.allowed()) << a.decision.explain();
  ASSERT_NE(a.binary, nullptr);
  EXPECT_EQ(a.binary->path, "/opt/genuine");
}

TEST(LauncherRefuses, WhatIsNoCharter) {
  Asked asked(study());
  asked.charter = {1, 2, 3};
  EXPECT_THAT(asked.refusal(an_agent()),
              HasSubstr("denied by cloudco (compute): launch.charter: wanted a charter that parses"));
}

TEST(LauncherRefuses, ACharterOfForeignSignersThatUseItsName) {
  const tests::Study foreign(options());  // the same names, all keys others
  Asked asked(foreign);
  EXPECT_THAT(asked.refusal(an_agent()), AllOf(HasSubstr("denied by cloudco (compute): launch.charter: wanted a "
                                                         "charter that this launcher holds, or one that names cloudco "
                                                         "with the same keys and signers, found " +
                                                         base::digest_text(foreign.charter.digest)),
                                               HasSubstr("add the charter's file to launcher.toml")));
}

TEST(LauncherAdmits, ASuccessorThatItsOwnSignersSigned) {
  const auto successor = study().found(study().manifest, study().policies, &study().charter);
  Asked asked(study());
  asked.charter = successor.serialize();
  ASSERT_NE(successor.digest, study().charter.digest);
  EXPECT_THAT(asked.refusal(an_agent()), IsEmpty());
}

TEST(LauncherRefuses, ACharterThatOneOfItsOwnSignersHasNotSigned) {
  auto successor = study().found(study().manifest, study().policies, &study().charter);
  std::erase_if(successor.signatures, [](const attest::OwnerSignature& s) { return s.owner == "cloudco"; });
  Asked asked(study());
  asked.charter = successor.serialize();
  EXPECT_THAT(asked.refusal(an_agent()), HasSubstr("cloudco"));
}

TEST(LauncherRefuses, AnOwnerOfTheCharterThatIsNotItsModelOwner) {
  Asked asked(study());
  asked.requester = study().keys("charite").tls.public_key();
  EXPECT_THAT(asked.refusal(an_agent()),
              HasSubstr("denied by cloudco (compute): launch.requester: wanted the charter's model owner, " +
                        study().keys("acme").tls.public_key().text() + ", found " + asked.requester.text()));
}

TEST(LauncherKnows, TheModelOwnersKeyAndNobodyElses) {
  const Agent agent = an_agent();
  EXPECT_EQ(agent.known(study().keys("acme").tls.public_key()), "acme");
  EXPECT_EQ(agent.known(study().keys("charite").tls.public_key()), std::nullopt);
  EXPECT_EQ(agent.known(base::PrivateKey::generate().public_key()), std::nullopt);
}

TEST(LauncherRefuses, AMeasurementThatTheCharterDoesNotName) {
  Asked asked(study());
  asked.launch.measurement = patched;
  EXPECT_THAT(asked.refusal(an_agent()), AllOf(HasSubstr("denied by charter: aggregator.measurement: wanted " +
                                                         base::hex(genuine) + ", found " + base::hex(patched)),
                                               HasSubstr("denied by cloudco (compute): aggregator.measurement")));
}

TEST(LauncherRefuses, ABuildThatIsNotInstalled) {
  const Asked asked(study());
  const auto agent =
      Agent::make({study().keys("cloudco").tls.public_key(), *study().keys("cloudco").grant, std::chrono::minutes(15)},
                  {study().charter}, {{"/opt/patched", {}, patched}});
  ASSERT_TRUE(agent);
  EXPECT_THAT(asked.refusal(*agent),
              HasSubstr("denied by cloudco (compute): launch.aggregator: wanted " + base::hex(genuine) +
                        ", found 1 programs, none of which measures that; install the build"));
}

TEST(LauncherRefuses, MoreMemoryConnectionsOrTimeThanItsPolicyAllows) {
  Asked asked(study());
  asked.launch.memory = std::uint64_t{1} << 50;
  asked.launch.connections = 1'000'000;
  asked.launch.duration = std::chrono::hours(24 * 365);
  EXPECT_THAT(asked.refusal(an_agent()),
              AllOf(HasSubstr("denied by cloudco (compute): launch.memory.at_most: wanted at most "),
                    HasSubstr("denied by cloudco (compute): launch.connections.at_most: wanted at most "),
                    HasSubstr("denied by cloudco (compute): launch.duration.at_most: wanted at most "),
                    HasSubstr("denied by charter: aggregator.memory")));
}

TEST(LauncherRefuses, NoMemoryNoConnectionsAndNoTime) {
  Asked asked(study());
  asked.launch.memory = 0;
  asked.launch.connections = 0;
  asked.launch.duration = {};
  EXPECT_THAT(asked.refusal(an_agent()),
              AllOf(HasSubstr("launch.memory.at_most"), HasSubstr("launch.connections.at_most"),
                    HasSubstr("launch.duration.at_most")));
}

TEST(LauncherRefuses, AModelOwnerThatItsPolicyDoesNotName) {
  const tests::Study other(options({{"cloudco", "model_owners = [\"acme\"]", "model_owners = [\"umbrella\"]"}}));
  EXPECT_THAT(Asked(other).refusal(an_agent(other)),
              HasSubstr("denied by cloudco (compute): launch.model_owners: wanted umbrella, found acme"));
}

TEST(LauncherRefuses, AnExpiredCharter) {
  const Agent agent = an_agent();
  const Asked asked(study());
  const Admission a = agent.admit({asked.requester, asked.charter, asked.launch}, study().charter.not_after);
  EXPECT_FALSE(a.decision.allowed());
  EXPECT_THAT(a.decision.explain(),
              HasSubstr("not_after: wanted a time before " + base::text(study().charter.not_after)));
}

// --- Starting
// ---------------------------------------------------------------------------------------------------------

std::string start_error(const base::PrivateKey& tls, const base::PrivateKey& grant,
                        std::vector<attest::Charter> charters) {
  const auto made = Agent::make({tls.public_key(), grant, std::chrono::minutes(15)}, std::move(charters), {});
  return made ? "" : made.error().text();
}

TEST(LauncherStarts, OnlyWithTheKeysThatItsChartersName) {
  const auto& keys = study().keys("cloudco");
  const auto other = base::PrivateKey::generate();
  EXPECT_THAT(start_error(keys.tls, *keys.grant, {study().charter}), IsEmpty());
  EXPECT_THAT(start_error(other, *keys.grant, {study().charter}),
              HasSubstr("names the launcher's TLS key " + keys.tls.public_key().text() + ", and this launcher has " +
                        other.public_key().text()));
  EXPECT_THAT(start_error(keys.tls, other, {study().charter}),
              HasSubstr("names the grant key " + keys.grant->public_key().text()));
  EXPECT_THAT(start_error(keys.tls, *keys.grant, {}), HasSubstr("wanted at least one founded charter"));
}

// --- Instances
// --------------------------------------------------------------------------------------------------------

struct Started {
  explicit Started(const tests::Study& s = study()) : of(s), agent(an_agent(s)) {
    const Asked asked(of);
    const Request request{asked.requester, asked.charter, asked.launch};
    launch = Agent::prepare(agent.admit(request, of.at), request, base::random_array<32>());
    host_data = launch.host_data;
    record = Record::make(of.charter.digest, tls.public_key(), base::PrivateKey::generate().public_key(),
                          launch.document.nonce);
  }
  Judged judge(const Platform& on = platform(), const Bytes& measures = genuine) const {
    const Bytes r = record.serialize();
    const auto report_data = protocols::launch::instance_report_data(about.empty() ? r : about);
    return agent.judge_instance(launch, r, on.attest(base::array<48>(measures), host_data, report_data, of.at),
                                tls.public_key(), of.at);
  }
  static std::string refusal(const Judged& j) { return j.decision.allowed() ? "" : j.decision.explain(); }

  const tests::Study& of;
  Agent agent;
  Launch launch;
  base::PrivateKey tls = base::PrivateKey::generate();
  Record record;
  Array<32> host_data{};
  Bytes about;  // the record that the evidence is about, when it is another one
};

TEST(LaunchedInstance, LaunchDocumentCarriesWhatWasAskedAndAFreshNonce) {
  const Started a, b;
  EXPECT_NE(a.launch.document.nonce, b.launch.document.nonce);
  EXPECT_EQ(a.launch.document.charter, study().charter.serialize());
  EXPECT_EQ(a.launch.document.measurement, genuine);
  EXPECT_EQ(a.launch.document.host, study().charter.manifest.aggregator_host);
  EXPECT_EQ(a.launch.document.port, study().charter.manifest.aggregator_port);
  EXPECT_EQ(a.launch.host_data, attest::host_data_for(study().charter.digest, a.launch.document.serialize()));
}

TEST(LaunchedInstance, IsAllowedAndGranted) {
  const Started s;
  const Judged j = s.judge();
  ASSERT_TRUE(j.decision.allowed()) << j.decision.explain();
  const Time ends = study().at + std::chrono::hours(4);
  const auto grant = s.agent.grant(s.launch, s.record.serialize(), *j.claims, study().at, ends);
  EXPECT_EQ(grant.not_before, study().at - std::chrono::minutes(1));
  EXPECT_EQ(grant.not_after, study().at + std::chrono::minutes(15));
  EXPECT_EQ(grant.host_data, s.launch.host_data);
  const auto checked =
      protocols::launch::check_grant(study().charter, grant.serialize(), s.record.serialize(), study().at);
  ASSERT_TRUE(checked) << checked.error().text();
  EXPECT_EQ(base::text(*checked), platform().identity());
}

TEST(LaunchedInstance, GetsNoGrantBeyondItsDurationOrItsCharter) {
  const Started s;
  const auto claims = *s.judge().claims;
  const Time soon = study().at + std::chrono::minutes(3);
  EXPECT_EQ(s.agent.grant(s.launch, s.record.serialize(), claims, study().at, soon).not_after, soon);
  const Time late = study().charter.not_after - std::chrono::minutes(1);
  EXPECT_EQ(s.agent.grant(s.launch, s.record.serialize(), claims, late, late + std::chrono::hours(4)).not_after,
            study().charter.not_after);
}

TEST(LaunchedInstance, APatchedBinaryIsRefused) {
  const Started s;
  EXPECT_THAT(Started::refusal(s.judge(platform(), patched)),
              AllOf(HasSubstr("denied by cloudco (compute): aggregator.measurement: wanted " + base::hex(genuine) +
                              ", found " + base::hex(patched)),
                    HasSubstr("denied by charter: aggregator.measurement")));
}

TEST(LaunchedInstance, AnotherLaunchsNonceIsRefused) {
  Started s;
  s.record.nonce = Array<32>{1};
  EXPECT_THAT(Started::refusal(s.judge()), HasSubstr("denied by cloudco (compute): instance.record.nonce: wanted " +
                                                     base::hex(s.launch.document.nonce)));
}

TEST(LaunchedInstance, OtherHostDataAreRefused) {
  Started s;
  s.host_data = Array<32>{1};
  EXPECT_THAT(Started::refusal(s.judge()),
              AllOf(HasSubstr("denied by cloudco (compute): instance.evidence.host_data: wanted " +
                              base::hex(s.launch.host_data)),
                    HasSubstr("denied by charter: host_data")));
}

TEST(LaunchedInstance, EvidenceAboutAnotherRecordIsRefused) {
  Started s;
  s.about =
      Record::make(study().charter.digest, s.tls.public_key(), s.tls.public_key(), s.launch.document.nonce).serialize();
  EXPECT_THAT(Started::refusal(s.judge()), HasSubstr("denied by cloudco (compute): instance.evidence.report_data"));
}

TEST(LaunchedInstance, AnotherCharterIsRefused) {
  Started s;
  s.record.charter = base::Sha256{1};
  EXPECT_THAT(Started::refusal(s.judge()), HasSubstr("denied by cloudco (compute): instance.record.charter"));
}

TEST(LaunchedInstance, AnAnswerThatDoesNotHoldTheRecordsKeyIsRefused) {
  Started s;
  s.record = Record::make(study().charter.digest, base::PrivateKey::generate().public_key(), s.record.receipt,
                          s.launch.document.nonce);
  EXPECT_THAT(Started::refusal(s.judge()),
              HasSubstr("denied by cloudco (compute): instance.record.tls: wanted " + s.tls.public_key().text()));
}

TEST(LaunchedInstance, OnAPlatformThatThePolicyDoesNotListIsRefused) {
  const Platform other(base::PrivateKey::generate(), {});
  EXPECT_THAT(Started::refusal(Started().judge(other)),
              HasSubstr("denied by cloudco (compute): aggregator.platforms: wanted " + platform().identity() +
                        ", found " + other.identity()));
}

TEST(LaunchedInstance, WithItsDebugBitOrAnOldTcbIsRefused) {
  PlatformFacts facts;
  facts.debug = true;
  facts.tcb_status = "out-of-date";
  facts.advisories = {"CLOISTER-SA-1"};
  const Platform poor(base::PrivateKey::generate(), facts);
  const tests::Study on(tests::StudyOptions{.measurement = genuine, .platform = poor.identity()});
  EXPECT_THAT(
      Started::refusal(Started(on).judge(poor)),
      AllOf(HasSubstr("denied by cloudco (compute): aggregator.debug: wanted false, found true"),
            HasSubstr("aggregator.tcb: wanted up-to-date, found out-of-date"), HasSubstr("aggregator.tcb.advisories")));
}

TEST(LaunchedInstance, EvidenceThatDoesNotVerifyIsRefused) {
  const Started s;
  const Judged j = s.agent.judge_instance(s.launch, s.record.serialize(), Bytes{1, 2}, s.tls.public_key(), study().at);
  EXPECT_FALSE(j.claims);
  EXPECT_THAT(Started::refusal(j),
              HasSubstr("denied by cloudco (compute): instance.evidence: wanted evidence that verifies"));
}

TEST(LaunchedInstance, IsNotRenewedOnceThePolicyOrCharterIsOver) {
  const Started s;
  const auto claims = *s.judge().claims;
  EXPECT_TRUE(s.agent.judge_renewal(s.launch, claims, study().at).allowed());
  const auto late = s.agent.judge_renewal(s.launch, claims, study().charter.not_after);
  EXPECT_FALSE(late.allowed());
  EXPECT_THAT(late.explain(), HasSubstr("not_after"));
}

}  // namespace
}  // namespace cloister::launcher

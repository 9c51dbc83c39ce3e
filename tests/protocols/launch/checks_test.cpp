#include "protocols/launch/checks.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/study.hpp"

namespace cloister::protocols::launch {
namespace {

using std::chrono::minutes;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

// One study for all tests: founding it signs a lot.
const tests::Study& study() {
  static const tests::Study out;
  return out;
}

struct Launched {
  Record record = Record::make(study().charter.digest, base::PrivateKey::generate().public_key(),
                               base::PrivateKey::generate().public_key(), base::random_array<32>());
  Grant grant = [this] {
    Grant g;
    g.record = base::sha256(record.serialize());
    g.platform = study().claims().platform_text();
    g.host_data = Array<32>{7};
    g.not_before = study().at - minutes(1);
    g.not_after = study().at + minutes(15);
    return g;
  }();
  base::PrivateKey key = *study().keys("cloudco").grant;

  Result<Bytes> check(Time now = study().at) const {
    return check_grant(study().charter, sign_grant(grant, key).serialize(), record.serialize(), now);
  }
  Error refusal(Time now = study().at) const {
    const auto checked = check(now);
    return checked ? Error{Error::Kind::unavailable, "", "allowed"} : checked.error();
  }
};

TEST(CheckGrant, GivesThePlatformThatTheChannelThenWantsInTheEvidence) {
  const auto platform = Launched().check();
  ASSERT_TRUE(platform) << platform.error().text();
  EXPECT_EQ(base::text(*platform), study().claims().platform_text());
}

TEST(CheckGrant, GivesTheHostDataToWhoVerifiesIt) {
  const Launched l;
  const auto grant =
      verify_grant(study().charter, sign_grant(l.grant, l.key).serialize(), l.record.serialize(), study().at);
  ASSERT_TRUE(grant) << grant.error().text();
  EXPECT_EQ(grant->host_data, (Array<32>{7}));
}

TEST(CheckGrant, AForeignKeysGrantIsRefused) {
  Launched l;
  l.key = base::PrivateKey::generate();
  const Error e = l.refusal();
  EXPECT_EQ(e.kind, Error::Kind::untrusted);
  EXPECT_THAT(e.text(),
              AllOf(HasSubstr("denied by charter: grant.signature: wanted a signature by cloudco's grant key " +
                              study().keys("cloudco").grant->public_key().text()),
                    HasSubstr("found a signature that this key did not make")));
}

TEST(CheckGrant, AnotherInstancesGrantIsRefused) {
  Launched l;
  l.grant.record = base::Sha256{9};
  const Error e = l.refusal();
  EXPECT_EQ(e.kind, Error::Kind::untrusted);
  EXPECT_THAT(e.text(), AllOf(HasSubstr("denied by charter: grant.record: wanted " +
                                        base::digest_text(base::sha256(l.record.serialize()))),
                              HasSubstr("found " + base::digest_text(base::Sha256{9}))));
}

TEST(CheckGrant, AnotherChartersRecordIsRefused) {
  Launched l;
  l.record.charter = base::Sha256{8};
  l.grant.record = base::sha256(l.record.serialize());
  EXPECT_THAT(l.refusal().text(),
              AllOf(HasSubstr("denied by charter: record.charter: wanted " + base::digest_text(study().charter.digest)),
                    HasSubstr("found " + base::digest_text(base::Sha256{8})), Not(HasSubstr("grant.record"))));
}

TEST(CheckGrant, ItsPeriodIsJudgedByTheOwnersOwnClock) {
  const Launched l;
  EXPECT_TRUE(l.check(l.grant.not_before));
  EXPECT_TRUE(l.check(l.grant.not_after));
  for (const Time t : {l.grant.not_before - std::chrono::seconds(1), l.grant.not_after + std::chrono::seconds(1)}) {
    const Error e = l.refusal(t);
    EXPECT_EQ(e.kind, Error::Kind::expired);
    EXPECT_THAT(e.text(), HasSubstr("denied by charter: grant.not_after: wanted a grant in force at " + base::text(t)));
  }
}

TEST(CheckGrant, APlatformThatTheComputeOwnerDoesNotListIsRefusedInItsName) {
  Launched l;
  l.grant.platform = "simulated:" + std::string(64, 'a');
  const Error e = l.refusal();
  EXPECT_EQ(e.kind, Error::Kind::denied);
  EXPECT_THAT(e.text(), AllOf(HasSubstr("denied by cloudco (compute): aggregator.platforms: wanted one of " +
                                        study().claims().platform_text()),
                              HasSubstr("found simulated:aaaa")));
}

TEST(CheckGrant, EveryReasonIsNamedAtOnce) {
  Launched l;
  l.key = base::PrivateKey::generate();
  l.grant.platform = "simulated:aa";
  const Error e = l.refusal(l.grant.not_after + std::chrono::hours(1));
  EXPECT_EQ(e.kind, Error::Kind::untrusted);
  EXPECT_THAT(e.text(),
              AllOf(HasSubstr("grant.signature"), HasSubstr("grant.not_after"), HasSubstr("aggregator.platforms")));
}

TEST(CheckGrant, WhatDoesNotParseIsNoGrant) {
  const Launched l;
  EXPECT_EQ(check_grant(study().charter, {}, l.record.serialize(), study().at).error().kind, Error::Kind::malformed);
  EXPECT_EQ(check_grant(study().charter, sign_grant(l.grant, l.key).serialize(), {}, study().at).error().kind,
            Error::Kind::malformed);
  EXPECT_FALSE(judge_grant(study().charter, {}, {}, study().at).allowed());
}

TEST(CheckGrant, OneFlippedBitAnywhereDenies) {
  const Launched l;
  const Bytes good = sign_grant(l.grant, l.key).serialize(), record = l.record.serialize();
  for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
    Bytes bad = good;
    bad[bit / 8] ^= static_cast<std::uint8_t>(1 << (bit % 8));
    ASSERT_FALSE(check_grant(study().charter, bad, record, study().at)) << "bit " << bit << " of the grant";
  }
  for (std::size_t bit = 0; bit < record.size() * 8; ++bit) {
    Bytes bad = record;
    bad[bit / 8] ^= static_cast<std::uint8_t>(1 << (bit % 8));
    ASSERT_FALSE(check_grant(study().charter, good, bad, study().at)) << "bit " << bit << " of the record";
  }
}

class JudgeInstance : public ::testing::Test {
 protected:
  JudgeInstance() {
    claims.report_data = instance_report_data(record.serialize()), claims.host_data = expected.host_data;
  }

  std::string refusals() {
    const auto d = judge_instance(expected, record.serialize(), claims);
    return d.allowed() ? "" : d.explain();
  }

  base::PublicKey tls = base::PrivateKey::generate().public_key();
  ExpectedInstance expected{"cloudco (compute)", base::Sha256{1}, Array<32>{2}, Array<32>{3}, tls};
  Record record = Record::make(base::Sha256{1}, tls, base::PrivateKey::generate().public_key(), Array<32>{2});
  attest::Claims claims;
};

TEST_F(JudgeInstance, AllowsTheInstanceOfThisLaunch) {
  EXPECT_THAT(refusals(), IsEmpty());
}

TEST_F(JudgeInstance, RefusesEvidenceAboutAnotherRecord) {
  claims.report_data[0] ^= 1;
  EXPECT_THAT(refusals(), HasSubstr("denied by cloudco (compute): instance.evidence.report_data: wanted "));
}

TEST_F(JudgeInstance, RefusesAnotherLaunchsNonce) {
  expected.nonce = Array<32>{9};
  EXPECT_THAT(refusals(), HasSubstr("denied by cloudco (compute): instance.record.nonce: wanted 09"));
}

TEST_F(JudgeInstance, RefusesOtherHostData) {
  claims.host_data = Array<32>{9};
  EXPECT_THAT(refusals(), HasSubstr("denied by cloudco (compute): instance.evidence.host_data: wanted 03"));
}

TEST_F(JudgeInstance, RefusesAnotherCharter) {
  expected.charter = base::Sha256{9};
  EXPECT_THAT(refusals(), HasSubstr("denied by cloudco (compute): instance.record.charter: wanted 09"));
}

TEST_F(JudgeInstance, RefusesAnAnswerWithAnotherTlsKeyThanTheRecords) {
  expected.tls = base::PrivateKey::generate().public_key();
  EXPECT_THAT(refusals(), HasSubstr("denied by cloudco (compute): instance.record.tls: wanted " + expected.tls.text()));
}

TEST_F(JudgeInstance, RefusesWhatIsNoRecord) {
  const auto d = judge_instance(expected, Bytes{1, 2}, claims);
  EXPECT_FALSE(d.allowed());
  EXPECT_THAT(d.explain(), HasSubstr("instance.record: wanted a record that parses"));
}

}  // namespace
}  // namespace cloister::protocols::launch

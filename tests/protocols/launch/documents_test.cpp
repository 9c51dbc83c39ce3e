#include "protocols/launch/documents.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/encoding.hpp"

namespace cloister::protocols::launch {
namespace {

using ::testing::HasSubstr;

LaunchDocument a_document() {
  return {Bytes{1, 2, 3}, Array<32>{4}, 1u << 30, 16, std::chrono::hours(4), Bytes(48, 5), "aggregator.example", 7443};
}
Record a_record() {
  return Record::make(base::Sha256{1}, base::PrivateKey::generate().public_key(),
                      base::PrivateKey::generate().public_key(), Array<32>{2});
}
Grant a_grant(const base::PrivateKey& key) {
  Grant g;
  g.record = base::Sha256{1};
  g.platform = "simulated:ab";
  g.host_data = Array<32>{2};
  g.not_before = Time(std::chrono::seconds(100));
  g.not_after = Time(std::chrono::seconds(200));
  return sign_grant(g, key);
}

// Cuts, left-over bytes and another version of any document.
template <class T>
void refuses_other_bytes(const Bytes& good, const char* where, std::size_t name_at) {
  ASSERT_TRUE(T::parse(good)) << T::parse(good).error().text();
  for (std::size_t n = 0; n < good.size(); ++n) ASSERT_FALSE(T::parse(View(good).first(n))) << n;
  Bytes longer = good;
  longer.push_back(0);
  EXPECT_THAT(T::parse(longer).error().text(), HasSubstr("1 bytes are left over"));
  Bytes other = good;
  other[name_at] ^= 3;  // the digit of the version
  EXPECT_EQ(T::parse(other).error().kind, Error::Kind::unsupported);
  EXPECT_THAT(T::parse(other).error().text(), HasSubstr(std::string(where) + ".format: wanted \""));
}

TEST(LaunchDocument, ParseAfterSerializeIsTheIdentity) {
  const auto again = LaunchDocument::parse(a_document().serialize());
  ASSERT_TRUE(again) << again.error().text();
  EXPECT_EQ(again->charter, a_document().charter);
  EXPECT_EQ(again->nonce, a_document().nonce);
  EXPECT_EQ(again->memory, 1u << 30);
  EXPECT_EQ(again->connections, 16u);
  EXPECT_EQ(again->duration, std::chrono::hours(4));
  EXPECT_EQ(again->measurement, Bytes(48, 5));
  EXPECT_EQ(again->host, "aggregator.example");
  EXPECT_EQ(again->port, 7443);
  EXPECT_EQ(again->serialize(), a_document().serialize());
}

TEST(LaunchDocument, RefusesCutLongerAndOtherVersions) {
  refuses_other_bytes<LaunchDocument>(a_document().serialize(), "launch document", 4 + 24);
}

TEST(LaunchDocument, RefusesADurationThatNoClockHolds) {
  LaunchDocument d = a_document();
  d.duration = std::chrono::milliseconds(INT64_MAX);
  EXPECT_THAT(LaunchDocument::parse(d.serialize()).error().text(),
              HasSubstr("launch document.duration: wanted at most"));
}

TEST(InstanceRecord, ParseAfterSerializeIsTheIdentity) {
  const Record r = a_record();
  const auto again = Record::parse(r.serialize());
  ASSERT_TRUE(again) << again.error().text();
  EXPECT_EQ(again->serialize(), r.serialize());
  EXPECT_EQ(again->tls_digest, base::sha256(r.tls.spki()));
}

TEST(InstanceRecord, RefusesCutLongerAndOtherVersions) {
  refuses_other_bytes<Record>(a_record().serialize(), "instance record", 4 + 25);
}

TEST(InstanceRecord, WhoseDigestIsNotItsKeysIsRefused) {
  Record r = a_record();
  r.tls = base::PrivateKey::generate().public_key();
  const auto again = Record::parse(r.serialize());
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().kind, Error::Kind::untrusted);
  EXPECT_THAT(again.error().text(),
              HasSubstr("instance record.tls_digest: wanted the digest of the record's own TLS key"));
}

TEST(InstanceRecord, ReportDataBindsEveryByteOfIt) {
  const Bytes good = a_record().serialize();
  EXPECT_EQ(instance_report_data(good), base::sha512(base::Writer().field("cloister instance 1").field(good).bytes()));
  for (std::size_t i = 0; i < good.size(); ++i) {
    Bytes bad = good;
    bad[i] ^= 1;
    ASSERT_NE(instance_report_data(bad), instance_report_data(good));
  }
}

TEST(Grant, ParseAfterSerializeIsTheIdentity) {
  const auto key = base::PrivateKey::generate();
  const Grant g = a_grant(key);
  const auto again = Grant::parse(g.serialize());
  ASSERT_TRUE(again) << again.error().text();
  EXPECT_EQ(again->serialize(), g.serialize());
  EXPECT_TRUE(key.public_key().verifies("cloister grant v1", again->signed_bytes(), again->signature));
}

TEST(Grant, RefusesCutLongerAndOtherVersions) {
  refuses_other_bytes<Grant>(a_grant(base::PrivateKey::generate()).serialize(), "grant", 4 + 4 + 16);
}

TEST(Grant, HostDataHasThirtyTwoBytes) {
  const Bytes body = base::Writer()
                         .field("cloister grant v1")
                         .raw(Bytes(32))
                         .field("simulated:ab")
                         .field(Bytes(31))
                         .u64(1)
                         .u64(2)
                         .bytes();
  const auto g = Grant::parse(base::Writer().field(body).raw(Bytes(64)).bytes());
  ASSERT_FALSE(g);
  EXPECT_THAT(g.error().text(), HasSubstr("grant.host_data: wanted 32 bytes, found 31"));
}

}  // namespace
}  // namespace cloister::protocols::launch

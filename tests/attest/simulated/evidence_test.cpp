#include "attest/evidence.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "attest/simulated/evidence.hpp"
#include "base/encoding.hpp"
#include "tests/attest/simulated/platform_fixture.hpp"

namespace cloister::attest::simulated {
namespace {

using std::chrono::years;
using ::testing::HasSubstr;

Report a_report(const Platform& platform) {
  Report r;
  r.measurement.fill(1);
  r.host_data.fill(2);
  r.report_data.fill(3);
  r.made_at = noon;
  return platform.sign(r);
}

Bytes wire(const Report& r) {
  return Evidence{"simulated", r.serialize()}.serialize();
}

std::string refusal(const Report& r, Time at = noon) {
  const auto claims = verify_evidence(wire(r), at);
  return claims ? "verified" : claims.error().text();
}

PlatformFacts odd_facts() {
  PlatformFacts f;
  f.tcb_version = 7;
  f.tcb_status = "out-of-date";
  f.advisories = {"CLOISTER-SA-1", "CLOISTER-SA-2"};
  f.debug = true;
  f.vmpl = 2;
  f.guest_svn = 9;
  return f;
}

TEST(SimulatedEvidence, EveryFieldThatWasMeasuredArrivesAsAClaim) {
  const Platform platform = a_platform(odd_facts());
  Measurement m{};
  m.fill(1);
  Array<32> host_data{};
  host_data.fill(2);
  Array<64> report_data{};
  report_data.fill(3);
  const auto claims = verify_evidence(platform.attest(m, host_data, report_data, noon), noon);
  ASSERT_TRUE(claims) << claims.error().text();
  EXPECT_EQ(claims->kind, "simulated");
  EXPECT_TRUE(claims->simulated);
  EXPECT_EQ(claims->measurement, Bytes(48, 1));
  EXPECT_EQ(claims->host_data, host_data);
  EXPECT_EQ(claims->report_data, report_data);
  EXPECT_EQ(claims->tcb_status, "out-of-date");
  EXPECT_EQ(claims->tcb_date, PlatformFacts{}.tcb_date);
  EXPECT_EQ(claims->advisories, (std::vector<std::string>{"CLOISTER-SA-1", "CLOISTER-SA-2"}));
  EXPECT_EQ(claims->debug, true);
  EXPECT_EQ(claims->platform_text(), platform.identity());
  EXPECT_EQ(claims->facts.at("tcb_version"), "7");
  EXPECT_EQ(claims->facts.at("vmpl"), "2");
  EXPECT_EQ(claims->facts.at("guest_svn"), "9");
  EXPECT_EQ(claims->facts.at("made_at"), "2026-12-01T12:00:00Z");
}

TEST(SimulatedEvidence, ParseAfterSerializeIsTheIdentity) {
  const Report r = a_report(a_platform(odd_facts()));
  const auto again = parse(r.serialize());
  ASSERT_TRUE(again) << again.error().text();
  EXPECT_EQ(again->serialize(), r.serialize());
}

TEST(SimulatedEvidence, OneFlippedBitAnywhereDenies) {
  const Bytes good = wire(a_report(a_platform(odd_facts())));
  ASSERT_TRUE(verify_evidence(good, noon));
  for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
    Bytes bad = good;
    bad[bit / 8] ^= static_cast<std::uint8_t>(1 << (bit % 8));
    const auto claims = verify_evidence(bad, noon);
    ASSERT_FALSE(claims) << "bit " << bit;
    ASSERT_FALSE(claims.error().text().empty());
  }
}

TEST(SimulatedEvidence, EveryCutDenies) {
  const Bytes good = wire(a_report(a_platform(odd_facts())));
  for (std::size_t n = 0; n < good.size(); ++n)
    ASSERT_FALSE(verify_evidence(View(good).first(n), noon)) << n << " bytes";
}

struct Change {
  const char* name;
  void (*make)(Report&);
};
class ChangedField : public ::testing::TestWithParam<Change> {};

TEST_P(ChangedField, IsRefusedBySignature) {
  Report r = a_report(a_platform(odd_facts()));
  GetParam().make(r);
  EXPECT_THAT(refusal(r),
              HasSubstr("simulated evidence.signature: wanted a signature by the certificate's platform key"));
}
INSTANTIATE_TEST_SUITE_P(Each, ChangedField,
                         ::testing::Values(Change{"measurement", [](Report& r) { r.measurement[0] ^= 1; }},
                                           Change{"tcb_version", [](Report& r) { r.tcb_version += 1; }},
                                           Change{"tcb_status", [](Report& r) { r.tcb_status = "up-to-date"; }},
                                           Change{"tcb_date", [](Report& r) { r.tcb_date += years(1); }},
                                           Change{"advisories", [](Report& r) { r.advisories.pop_back(); }},
                                           Change{"debug", [](Report& r) { r.debug = false; }},
                                           Change{"vmpl", [](Report& r) { r.vmpl = 0; }},
                                           Change{"guest_svn", [](Report& r) { r.guest_svn += 1; }},
                                           Change{"host_data", [](Report& r) { r.host_data[31] ^= 1; }},
                                           Change{"report_data", [](Report& r) { r.report_data[63] ^= 1; }},
                                           Change{"made_at", [](Report& r) { r.made_at += std::chrono::seconds(1); }},
                                           Change{"signature", [](Report& r) { r.signature[0] ^= 1; }}),
                         [](const auto& each) { return std::string(each.param.name); });

TEST(SimulatedEvidence, ACertificateThatItsKeyDidNotSignIsRefused) {
  Report r = a_report(a_platform());
  r.certificate.not_after += years(1);
  EXPECT_THAT(refusal(r), HasSubstr("platform certificate.signature: wanted a signature by the platform's own key"));
}

TEST(SimulatedEvidence, AReportUnderAnotherPlatformsCertificateIsRefused) {
  Report r = a_report(a_platform());
  r.certificate = a_platform().certificate();
  EXPECT_THAT(refusal(r),
              HasSubstr("simulated evidence.signature: wanted a signature by the certificate's platform key"));
}

TEST(SimulatedEvidence, TheCertificatesValidityIsJudgedByTheRelyingPartysClock) {
  PlatformFacts facts;
  facts.not_before = noon - std::chrono::hours(1);
  facts.not_after = noon + std::chrono::hours(1);
  const Report r = a_report(a_platform(facts));
  EXPECT_EQ(refusal(r), "verified");
  EXPECT_EQ(refusal(r, facts.not_before), "verified");
  EXPECT_EQ(refusal(r, facts.not_after), "verified");
  EXPECT_THAT(refusal(r, facts.not_before - std::chrono::seconds(1)),
              HasSubstr("platform certificate: wanted one that is valid at 2026-12-01T10:59:59Z, found one from "
                        "2026-12-01T11:00:00Z"));
  const auto late = verify_evidence(wire(r), facts.not_after + std::chrono::seconds(1));
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().kind, Error::Kind::expired);
}

TEST(SimulatedEvidence, EvidenceMadeOutsideItsCertificatesValidityIsRefused) {
  PlatformFacts facts;
  facts.not_before = noon + std::chrono::hours(1);
  const Report r = a_report(a_platform(facts));  // made at noon
  EXPECT_THAT(refusal(r, noon + std::chrono::hours(2)), HasSubstr("simulated evidence.made_at: wanted a time inside"));
}

Error parse_error(void (*change)(Report&)) {
  Report r = a_report(a_platform());
  change(r);
  const auto parsed = parse(r.serialize());
  return parsed ? Error{Error::Kind::denied, "", "parsed"} : parsed.error();
}

TEST(SimulatedEvidence, LimitsComeBeforeAnyCryptography) {
  EXPECT_THAT(parse_error([](Report& r) { r.vmpl = 4; }).text(), HasSubstr("vmpl: wanted 0 to 3, found 4"));
  EXPECT_THAT(parse_error([](Report& r) { r.advisories.assign(65, "A"); }).text(),
              HasSubstr("advisories: wanted at most 64, found 65"));
  EXPECT_THAT(parse_error([](Report& r) { r.advisories = {std::string(65, 'A')}; }).text(),
              HasSubstr("advisories: wanted at most 64 bytes, found 65"));
  EXPECT_THAT(parse_error([](Report& r) { r.tcb_status = std::string(65, 'x'); }).text(),
              HasSubstr("tcb_status: wanted at most 64 bytes"));
  EXPECT_THAT(parse_error([](Report& r) { r.made_at = Time(std::chrono::seconds(1ll << 40)); }).text(),
              HasSubstr("made_at: wanted a time before the year 10000"));
  const Error status = parse_error([](Report& r) { r.tcb_status = "splendid"; });
  EXPECT_EQ(status.kind, Error::Kind::unsupported);
  EXPECT_THAT(status.text(), HasSubstr("tcb_status: wanted one of up-to-date"));
}

TEST(SimulatedEvidence, AnotherVersionIsRefusedByName) {
  Bytes body = a_report(a_platform()).serialize();
  body[3] = 2;
  const auto parsed = parse(body);
  ASSERT_FALSE(parsed);
  EXPECT_EQ(parsed.error().kind, Error::Kind::unsupported);
  EXPECT_EQ(parsed.error().text(), "simulated evidence.version: wanted 1, found 2");
  body[3] = 1;
  body[4 + 4 + 3] = 9;  // of the certificate, which comes first
  const auto inner = parse(body);
  ASSERT_FALSE(inner);
  EXPECT_EQ(inner.error().text(), "platform certificate.version: wanted 1, found 9");
}

TEST(SimulatedEvidence, LeftOverBytesAreRefused) {
  Bytes body = a_report(a_platform()).serialize();
  body.push_back(0);
  const auto parsed = parse(body);
  ASSERT_FALSE(parsed);
  EXPECT_EQ(parsed.error().text(), "simulated evidence.end: 1 bytes are left over");
  Bytes outer = wire(a_report(a_platform()));
  outer.push_back(0);
  EXPECT_EQ(verify_evidence(outer, noon).error().text(), "evidence.end: 1 bytes are left over");
}

TEST(Evidence, AKindThatThisBuildDoesNotKnowIsRefusedByName) {
  const auto claims = verify_evidence(Evidence{"tdx", Bytes(10)}.serialize(), noon);
  ASSERT_FALSE(claims);
  EXPECT_EQ(claims.error().kind, Error::Kind::unsupported);
  EXPECT_EQ(claims.error().text(), "evidence.kind: wanted one of simulated, found \"tdx\"");
}

TEST(Evidence, MoreThanItsCapIsRefusedUnread) {
  EXPECT_THAT(verify_evidence(Bytes((64 << 10) + 1), noon).error().text(),
              HasSubstr("evidence: wanted at most 65536 bytes, found 65537"));
}

TEST(Claims, HostDataBindsCharterAndLaunchDocument) {
  const Array<32> a{1}, b{2};
  EXPECT_NE(host_data_for(a, base::view("x")), host_data_for(b, base::view("x")));
  EXPECT_NE(host_data_for(a, base::view("x")), host_data_for(a, base::view("y")));
  EXPECT_EQ(host_data_for(a, base::view("x")), base::sha256(base::Writer().raw(a).raw(base::view("x")).bytes()));
}

}  // namespace
}  // namespace cloister::attest::simulated

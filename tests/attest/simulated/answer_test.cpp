#include "attest/simulated/tee/answer.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "attest/evidence.hpp"
#include "base/encoding.hpp"
#include "tests/attest/simulated/platform_fixture.hpp"

namespace cloister::attest::simulated::tee {
namespace {

using base::Writer;
using ::testing::HasSubstr;

struct Answer {
  std::string outcome;
  Bytes value;
};

Answer ask(View request) {
  static const Platform platform = a_platform();
  Started started;
  started.measurement.fill(7);
  started.host_data.fill(8);
  started.document = {1, 2, 3};
  const Bytes out = answer(platform, started, request, noon);
  base::Reader r("answer", out);
  Answer a{r.string("outcome", 16), base::copy(r.field("value", 1 << 20))};
  EXPECT_TRUE(r.finish());
  return a;
}

std::string refusal(View request) {
  const Answer a = ask(request);
  EXPECT_EQ(a.outcome, "error");
  return base::text(a.value);
}

TEST(SimulatedTee, GivesTheLaunchDocument) {
  const Answer a = ask(Writer().field("document 1").bytes());
  EXPECT_EQ(a.outcome, "ok");
  EXPECT_EQ(a.value, (Bytes{1, 2, 3}));
}

TEST(SimulatedTee, StatesWhatItMeasuredWhateverTheGuestAsksFor) {
  const Bytes nothing, another(48, 0xaa), own(48, 7);
  for (const Bytes& wanted : {nothing, another, own}) {
    const Answer a = ask(Writer().field("evidence 1").raw(Bytes(64, 9)).field(wanted).bytes());
    ASSERT_EQ(a.outcome, "ok");
    const auto claims = verify_evidence(a.value, noon);
    ASSERT_TRUE(claims) << claims.error().text();
    EXPECT_EQ(claims->measurement, Bytes(48, 7));
    EXPECT_EQ(base::copy(claims->host_data), Bytes(32, 8));
    EXPECT_EQ(base::copy(claims->report_data), Bytes(64, 9));
  }
}

TEST(SimulatedTee, RefusesAMalformedRequestWithItsReason) {
  EXPECT_EQ(refusal({}), "request.name: needs 4 bytes at offset 0x0, 0 left");
  EXPECT_EQ(refusal(Writer().field("evidence 2").bytes()),
            "request.name: wanted \"document 1\" or \"evidence 1\", found \"evidence 2\"");
  EXPECT_THAT(refusal(Writer().field("evidence 1").raw(Bytes(63)).bytes()),
              HasSubstr("request.report_data: needs 64 bytes"));
  EXPECT_THAT(refusal(Writer().field("evidence 1").raw(Bytes(64)).field(Bytes(65)).bytes()),
              HasSubstr("request.wanted_measurement: wanted at most 64 bytes"));
  EXPECT_EQ(refusal(Writer().field("evidence 1").raw(Bytes(64)).field("").u8(0).bytes()),
            "request.end: 1 bytes are left over");
  EXPECT_EQ(refusal(Writer().field("document 1").u8(0).bytes()), "request.end: 1 bytes are left over");
}

}  // namespace
}  // namespace cloister::attest::simulated::tee

// The synthetic study that all tests stand on: nothing in it is refused before a test breaks it.

#include "tests/support/study.hpp"

#include <gtest/gtest.h>

namespace cloister {
namespace {

TEST(Study, IsFoundedAndEveryPolicyAllowsIt) {
  const tests::Study study;
  EXPECT_TRUE(attest::founded(study.charter, study.at).allowed()) << attest::founded(study.charter, study.at).explain();
  const attest::Decision dry = attest::check(study.charter, study.at);
  EXPECT_TRUE(dry.allowed()) << dry.explain();
  const attest::Claims claims = study.claims();
  for (const tests::Keys& k : study.owners) {
    const attest::Decision d =
        attest::judge(&claims, {.charter = study.charter, .at = study.at}, study.policy(k.owner));
    EXPECT_TRUE(d.allowed()) << d.explain();
  }
}

TEST(Study, AnAttestedHospitalIsAllowedByTheModelOwner) {
  const tests::Study study({.attested_participants = true});
  const attest::Claims claims = study.participant_claims("usz");
  const attest::Decision d = attest::judge(
      &claims, {.charter = study.charter, .at = study.at, .claims_of_participant = true, .participant = "usz"},
      study.policy("acme"));
  EXPECT_TRUE(d.allowed()) << d.explain();
}

TEST(Study, ItsRunOrderAndItsLaunchAreAllowed) {
  const tests::Study study;
  const attest::Decision order = attest::judge_order(study.run_order({{"rounds", 5}}), study.charter, 0);
  EXPECT_TRUE(order.allowed()) << order.explain();
  const attest::Decision launch = attest::judge(
      nullptr, {.charter = study.charter, .at = study.at, .launch = study.launch()}, study.policy("cloudco"));
  EXPECT_TRUE(launch.allowed()) << launch.explain();
}

}  // namespace
}  // namespace cloister

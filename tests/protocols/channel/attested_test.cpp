// The attested connection: who is let through, who is not, and what each side is told.

#include <gmock/gmock.h>

#include "protocols/launch/documents.hpp"
#include "world.hpp"

namespace cloister::protocols::channel::tests {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Attested, AnEnclaveThatThePolicyAllowsAndAPartyOfTheCharterAreConnected) {
  World w;
  auto [client, server] = w.meet();
  ASSERT_TRUE(client.ok()) << client.error;
  ASSERT_TRUE(server.ok()) << server.error;
  EXPECT_EQ(client.connection->peer_key(), w.enclave_key.public_key());
  EXPECT_EQ(client.connection->peer_owner(), "aggregator");
  EXPECT_EQ(client.connection->record(), w.record);
  ASSERT_TRUE(client.connection->peer_claims());
  EXPECT_EQ(client.connection->peer_claims()->measurement, w.tee.measurement);
  EXPECT_EQ(server.connection->peer_key(), w.party.public_key());
  EXPECT_EQ(server.connection->peer_owner(), "charite");
  EXPECT_FALSE(server.connection->peer_claims());
  EXPECT_THAT(w.party_log.text() + w.enclave_log.text(), Not(HasSubstr("refus")));
  EXPECT_THAT(w.party_log.text(), HasSubstr("\"event\":\"attested\""));
}

TEST(Attested, BothProveThemselvesWhenTheEnclaveAsks) {
  World w;
  w.enclave_asks = w.party_attests = true;
  w.party_tee.measurement = Bytes(48, 0x77);
  auto [client, server] = w.meet();
  ASSERT_TRUE(client.ok()) << client.error;
  ASSERT_TRUE(server.ok()) << server.error;
  ASSERT_TRUE(server.connection->peer_claims());
  EXPECT_EQ(server.connection->peer_claims()->measurement, Bytes(48, 0x77));
}

// --- The party refuses the enclave
// ------------------------------------------------------------------------------------

/// The party's policy said no: both sides end with the same finding, and the party's log has it.
void expect_party_refuses(World& w, const std::string& requirement, const std::string& found) {
  auto [client, server] = w.meet();
  EXPECT_FALSE(client.ok() || server.ok());
  EXPECT_EQ(client.kind, Error::Kind::denied);
  EXPECT_FALSE(client.by_peer);
  EXPECT_THAT(client.refusal(requirement).found, HasSubstr(found));
  EXPECT_TRUE(server.by_peer) << server.error;
  EXPECT_THAT(server.refusal(requirement).found, HasSubstr(found));
  EXPECT_THAT(w.party_log.text(), HasSubstr("\"requirement\":\"" + requirement + "\""));
}

TEST(Attested, AnotherMeasurementIsRefused) {
  World w;
  w.tee.measurement[0] ^= 1;
  expect_party_refuses(w, "aggregator.measurement", "1011");
}

TEST(Attested, ADebugTeeIsRefused) {
  World w;
  w.tee.debug = true;
  expect_party_refuses(w, "aggregator.debug", "true");
}

TEST(Attested, AnOldTcbIsRefused) {
  World w;
  w.tee.tcb_status = "out-of-date";
  expect_party_refuses(w, "aggregator.tcb_status", "out-of-date");
}

TEST(Attested, SimulatedEvidenceIsRefusedUnderAProductionPolicy) {
  World w;
  w.tee.simulated = true;
  expect_party_refuses(w, "aggregator.simulated", "true");
}

TEST(Attested, AllReasonsComeAtOnce) {
  World w;
  w.tee.debug = true;
  w.tee.tcb_status = "revoked";
  auto [client, server] = w.meet();
  ASSERT_TRUE(client.decision);
  EXPECT_EQ(client.decision->refusals().size(), 2u) << client.error;
  ASSERT_TRUE(server.decision);
  EXPECT_EQ(server.decision->refusals().size(), 2u) << server.error;
}

TEST(Attested, APolicyThatJudgesNothingAllowsNothing) {
  World w;
  Outcome client, server;
  auto expected = w.expectation();
  expected.judge = [](const attest::Claims&) { return attest::Decision(); };
  w.run(World::into(server, w.accept_one(w.identity())),
        World::into(client, connect_enclave(w.endpoint(), w.party, expected, std::nullopt, soon(), w.party_log.log)));
  EXPECT_EQ(client.kind, Error::Kind::denied) << client.error;
}

TEST(Attested, EvidenceThatDoesNotVerifyIsRefused) {
  World w;
  auto identity = w.identity();
  identity.attester = [](const Array<64>&) -> Result<Bytes> {
    return attest::Evidence{"other", Bytes{1, 2, 3}}.serialize();
  };
  Outcome client, server;
  w.run(World::into(server, w.accept_one(identity)), World::into(client, w.connect_party()));
  EXPECT_THAT(client.refusal("channel.evidence").found, HasSubstr("wanted kind test, found other"));
}

TEST(Attested, ReplayedEvidenceIsRefused) {
  World w;
  w.tee.other_report_data = Array<64>{1, 2, 3};  // genuine evidence of another connection
  expect_party_refuses(w, "channel.report_data", "010203");
}

TEST(Attested, AnEnclaveOfAnotherCharterIsRefused) {
  World w;
  auto identity = w.identity();
  identity.charter = base::sha256(base::view("another charter"));
  Outcome client, server;
  w.run(World::into(server, w.accept_one(identity)), World::into(client, w.connect_party()));
  EXPECT_EQ(client.refusal("channel.charter").found, base::digest_text(identity.charter));
  EXPECT_EQ(client.refusal("channel.charter").wanted, base::digest_text(w.charter));
  EXPECT_EQ(server.refusal("channel.charter").found, base::digest_text(identity.charter));
}

TEST(Attested, ARecordOfAnotherInstanceIsRefused) {
  World w;
  w.record = World::make_record(base::PrivateKey::generate().public_key());
  expect_party_refuses(w, "channel.tls_key", w.enclave_key.public_key().text());
}

TEST(Attested, AGrantThatDoesNotHoldIsRefusedWithItsReason) {
  World w;
  w.grant_error = "expired at 2026-01-01; let the launcher renew it";
  expect_party_refuses(w, "channel.grant", "expired at 2026-01-01");
}

TEST(Attested, TheSameBinaryOnAPlatformThatTheGrantDoesNotNameIsRefused) {
  World w;
  w.tee.platform = Bytes(32, 0x99);
  expect_party_refuses(w, "channel.platform", World::platform_text(Bytes(32, 0x99)));
}

TEST(Attested, WithoutAGrantThePartyIsToldToTryAgain) {
  World w;
  w.grant_given = false;
  auto [client, server] = w.meet();
  EXPECT_TRUE(client.by_peer && client.retry) << client.error;
  EXPECT_EQ(client.kind, Error::Kind::unavailable);
  EXPECT_THAT(client.error, HasSubstr("no grant yet"));
  EXPECT_TRUE(server.retry && !server.by_peer) << server.error;
}

// --- The enclave refuses the party
// ------------------------------------------------------------------------------------

TEST(Attested, AStrangersKeyIsRefusedInTheHandshakeAndToldWhy) {
  World w;
  const auto stranger = base::PrivateKey::generate();
  Outcome client, server;
  w.run(World::into(server, w.accept_one(w.identity())),
        World::into(client,
                    connect_enclave(w.endpoint(), stranger, w.expectation(), std::nullopt, soon(), w.party_log.log)));
  EXPECT_EQ(client.kind, Error::Kind::denied) << client.error;
  EXPECT_THAT(client.error, HasSubstr("does not know this side's key " + stranger.public_key().text()));
  EXPECT_THAT(client.error, HasSubstr("is this party in the charter"));
  const auto f = server.refusal("parties.tls_key");
  EXPECT_EQ(f.owner, "charter");
  EXPECT_EQ(f.wanted, "a TLS key that the charter lists");
  EXPECT_EQ(f.found, stranger.public_key().text());
  EXPECT_THAT(f.remedy, HasSubstr("manifest"));
  EXPECT_THAT(w.enclave_log.text(), HasSubstr("\"found\":\"" + stranger.public_key().text() + "\""));
}

TEST(Attested, AStrangerCostsNoQuote) {
  World w;
  bool asked = false;
  auto identity = w.identity();
  identity.attester = [&](const Array<64>&) -> Result<Bytes> {
    asked = true;
    return base::unavailable("test", "not wanted");
  };
  Outcome client, server;
  w.run(World::into(server, w.accept_one(identity)),
        World::into(client, connect_enclave(w.endpoint(), base::PrivateKey::generate(), w.expectation(), std::nullopt,
                                            soon(), nullptr)));
  EXPECT_FALSE(server.ok());
  EXPECT_FALSE(asked);
}

TEST(Attested, APartyThatMustProveItselfAndDoesNotIsRefused) {
  World w;
  w.enclave_asks = true;
  auto [client, server] = w.meet();
  EXPECT_FALSE(client.ok() || server.ok());
  EXPECT_EQ(server.refusal("participants.attested").owner, "acme (model)");
  EXPECT_TRUE(client.by_peer) << client.error;
  EXPECT_EQ(client.refusal("participants.attested").wanted, "true");
  EXPECT_THAT(w.enclave_log.text(), HasSubstr("participants.attested"));
}

TEST(Attested, NoPolicyCanOverlookEvidenceThatWasAskedForAndDidNotCome) {
  World w;
  w.enclave_asks = true;
  auto identity = w.identity();
  identity.judge_peer = [](const std::string&, const attest::Claims*) {
    attest::Decision d;
    d.add(World::finding(true, "acme (model)", "participants.any", "anything", "anything"));
    return d;
  };
  Outcome client, server;
  w.run(World::into(server, w.accept_one(identity)), World::into(client, w.connect_party()));
  EXPECT_EQ(server.refusal("channel.evidence").found, "none");
}

TEST(Attested, APartyWhoseClaimsThePolicyForbidsIsRefused) {
  World w;
  w.enclave_asks = w.party_attests = w.party_tee.debug = true;
  auto [client, server] = w.meet();
  EXPECT_EQ(server.refusal("participants.debug").found, "charite true");
  EXPECT_EQ(client.refusal("participants.debug").found, "charite true");
}

TEST(Attested, APartysEvidenceOfAnotherConnectionIsRefused) {
  World w;
  w.enclave_asks = w.party_attests = true;
  w.party_tee.other_report_data = Array<64>{9};
  auto [client, server] = w.meet();
  EXPECT_THAT(server.refusal("channel.report_data").found, HasSubstr("0900"));
  EXPECT_TRUE(client.by_peer) << client.error;
}

TEST(Attested, TheLaunchersLinkNeedsNoGrantAndNoEvidence) {
  World w;
  w.grant_given = false;
  Outcome client, server;
  w.run(World::into(server, w.accept_one(w.identity())),
        World::into(client, connect_pinned(w.endpoint(), w.launcher, std::nullopt, soon())));
  ASSERT_TRUE(client.ok()) << client.error;
  ASSERT_TRUE(server.ok()) << server.error;
  EXPECT_EQ(server.connection->peer_owner(), "cloudco");
  EXPECT_EQ(client.connection->peer_key(), w.enclave_key.public_key());
}

TEST(Attested, ALauncherThatDialsAsAPartyIsToldWhatItGotInstead) {
  World w;
  Outcome client, server;
  w.run(World::into(server, w.accept_one(w.identity())),
        World::into(client, connect_enclave(w.endpoint(), w.launcher, w.expectation(), std::nullopt, soon(), nullptr)));
  EXPECT_THAT(client.error, HasSubstr("got READY while waiting for Hello"));
}

// --- Evidence in the certificate: a pre-check that never authorises
// -----------------------------------------------------

Outcome meet_with_certificate_evidence(World& w, Bytes evidence) {
  auto identity = w.identity();
  identity.dice_evidence = std::move(evidence);
  Outcome client, server;
  w.run(World::into(server, w.accept_one(identity)), World::into(client, w.connect_party()));
  return client;
}

TEST(Attested, CertificateEvidenceOfTheInstanceIsTaken) {
  World w;
  const auto client = meet_with_certificate_evidence(w, w.tee.attest(launch::instance_report_data(w.record)));
  EXPECT_TRUE(client.ok()) << client.error;
}

TEST(Attested, CertificateEvidenceOfAnotherInstanceIsRefused) {
  World w;
  const auto client = meet_with_certificate_evidence(w, w.tee.attest(launch::instance_report_data(Bytes{1})));
  EXPECT_EQ(client.refusal("channel.certificate_evidence").found, "evidence of another instance");
}

TEST(Attested, CertificateEvidenceThatIsGarbageIsRefused) {
  World w;
  const auto client = meet_with_certificate_evidence(w, Bytes{1, 2, 3});
  EXPECT_THAT(client.refusal("channel.certificate_evidence").found, HasSubstr("evidence"));
}

TEST(Attested, CertificateEvidenceAloneAuthorisesNothing) {
  World w;
  const Bytes good = w.tee.attest(launch::instance_report_data(w.record));
  w.tee.debug = true;
  const auto client = meet_with_certificate_evidence(w, good);
  EXPECT_EQ(client.refusal("aggregator.debug").found, "true");
}

// --- Evidence again
// -----------------------------------------------------------------------------------------------------

struct Again {
  Outcome client, server;
  std::string renewal = "not tried";
  std::vector<MessageType> party_got;
  std::string enclave_got;
};

awaitable<void> renew(World& w, Again& a) {
  a.client = co_await outcome(w.connect_party());
  if (!a.client.ok()) co_return;
  try {
    const auto expected = w.expectation();
    co_await attest_again(*a.client.connection, expected, soon());
    a.renewal = "renewed";
    messages::Resume done;
    co_await a.client.connection->send(messages::RESUME, done);
    for (int i = 0; i < 2; ++i) a.party_got.push_back((co_await a.client.connection->receive()).type);
  } catch (const std::exception& e) {
    a.renewal = e.what();
  }
}

awaitable<void> serve(World& w, Again& a, std::function<void(World&)> change) {
  a.server = co_await outcome(w.accept_one(w.identity()));
  if (!a.server.ok()) co_return;
  change(w);
  try {
    // A message that crosses the party's request is kept for it.
    messages::RunStatus crossing;
    co_await a.server.connection->send(messages::RUN_STATUS, crossing);
    const Frame frame = co_await a.server.connection->receive();
    a.enclave_got = MessageType_Name(frame.type);
    messages::RunEnd end;
    co_await a.server.connection->send(messages::RUN_END, end);
  } catch (const std::exception& e) {
    a.enclave_got = e.what();
  }
}

TEST(Attested, EvidenceIsRenewedOnAnOpenConnectionAndNothingIsLost) {
  World w;
  Again a;
  w.run(serve(w, a, [](World&) {}), renew(w, a));
  EXPECT_EQ(a.renewal, "renewed") << a.enclave_got;
  EXPECT_EQ(a.enclave_got, "RESUME");
  EXPECT_THAT(a.party_got, testing::ElementsAre(messages::RUN_STATUS, messages::RUN_END));
}

TEST(Attested, ARenewalMeetsThePolicyOfItsDay) {
  World w;
  Again a;
  auto party = [&]() -> awaitable<void> {
    a.client = co_await outcome(w.connect_party());
    if (!a.client.ok()) co_return;
    auto expected = w.expectation();
    expected.judge = [](const attest::Claims&) {
      attest::Decision d;
      d.add(World::finding(false, "charite (data)", "aggregator.tcb_date", "2026-06-01", "2026-01-01"));
      return d;
    };
    auto again = [&]() -> awaitable<ConnectionPtr> {
      co_await attest_again(*a.client.connection, expected, soon());
      co_return a.client.connection;
    };
    a.client = co_await outcome(again());
  };
  w.run(serve(w, a, [](World&) {}), party());
  EXPECT_EQ(a.client.refusal("aggregator.tcb_date").found, "2026-01-01");
  EXPECT_THAT(a.enclave_got, HasSubstr("aggregator.tcb_date"));
  EXPECT_THAT(w.party_log.text(), HasSubstr("\"requirement\":\"aggregator.tcb_date\""));
}

TEST(Attested, ARenewalWithoutAGrantInForceFails) {
  World w;
  Again a;
  w.run(serve(w, a, [](World& world) { world.grant_given = false; }), renew(w, a));
  EXPECT_THAT(a.renewal, HasSubstr("the grant has ended"));
}

TEST(Attested, ARenewedGrantIsCheckedAnew) {
  World w;
  Again a;
  w.run(serve(w, a, [](World& world) { world.grant_error = "expired"; }), renew(w, a));
  EXPECT_THAT(a.renewal, HasSubstr("channel.grant"));
}

}  // namespace
}  // namespace cloister::protocols::channel::tests

// Exported authenticators and the evidence wrapper: published values, round trips, and every way to break them.

#include "protocols/channel/authenticator.hpp"

#include <gmock/gmock.h>
#include <random>

#include "base/encoding.hpp"

namespace cloister::protocols::channel {
namespace {

using base::from_hex;
using testing::HasSubstr;

Bytes unhex(std::string_view text) {
  return from_hex(text, "test").value();
}

// Values published in facebookincubator/fizz, fizz/extensions/exportedauth/test/ExportedAuthenticatorTest.cpp
// (TestValidAuthenticator, TestEmptyAuthenticator): handshake context and finished key
// "12345678901234567890123456789012", request context "0123456789abcdefghij", ecdsa_secp256r1_sha256, SHA-256, a
// Certificate without entries, the signature's bytes "signature". fizz takes the request without a handshake header
// there.
const Bytes fizz_context = base::copy(base::view("0123456789abcdefghij"));
const Bytes fizz_request = unhex("14303132333435363738396162636465666768696a0008000d000400020403");
AuthenticatorKeys fizz_keys() {
  const auto secret = base::copy(base::view("12345678901234567890123456789012"));
  return {"SHA256", secret, secret};
}

TEST(Authenticator, TheFinishedValueIsTheOneThatFizzPublishes) {
  const Bytes certificate_and_verify = unhex("0b000004000000000f00000d040300097369676e6174757265");
  const auto keys = fizz_keys();
  EXPECT_EQ(
      base::hex(base::hmac(keys.hash, keys.finished_key, transcript_hash(keys, fizz_request, certificate_and_verify))),
      "b523548c421b05f7f3c33276fbdd5266ba2df103796d7d483368259860a648f2");
}

TEST(Authenticator, TheEmptyAuthenticatorIsTheOneThatFizzPublishes) {
  EXPECT_EQ(base::hex(make_empty_authenticator(fizz_keys(), fizz_request, fizz_context)),
            "1400002011fae4bcdf4673b6dfb276d886c4cd1c5b0920da961643f062d1d4a6062115b1");
}

/// One connection's values and a good answer to a good request.
struct Case {
  base::PrivateKey key = base::PrivateKey::generate();
  AuthenticatorKeys keys{"SHA384", Bytes(48, 3), Bytes(48, 4)};
  RequestContext context = base::random_array<32>();
  Bytes request = make_request(Prover::server, context);
  Bytes evidence = base::copy(base::view("the evidence"));
  Bytes certificate = make_certificate(key);
  Bytes authenticator = make_authenticator(keys, request, context, certificate, evidence, key);

  Result<Authenticated> read(View bytes) const {
    return read_authenticator(keys, request, context, bytes, key.public_key());
  }
  std::string error(View bytes) const {
    auto r = read(bytes);
    return r ? "accepted" : r.error().text();
  }
};

TEST(Authenticator, WhatIsMadeIsRead) {
  const Case c;
  const auto proven = c.read(c.authenticator);
  ASSERT_TRUE(proven) << proven.error().text();
  EXPECT_EQ(proven->key, c.key.public_key());
  EXPECT_EQ(proven->evidence, c.evidence);
}

TEST(Authenticator, ASuiteWithSha256WorksToo) {
  Case c;
  c.keys = {"SHA256", Bytes(32, 3), Bytes(32, 4)};
  EXPECT_TRUE(c.read(make_authenticator(c.keys, c.request, c.context, c.certificate, c.evidence, c.key)));
}

TEST(Authenticator, EvidenceOfTheLargestSizeFits) {
  const Case c;
  const Bytes large(evidence_cap, 0x5a);
  const auto bytes =
      make_authenticator(c.keys, c.request, c.context, make_certificate(c.key, Bytes(65'000, 1)), large, c.key);
  EXPECT_LE(bytes.size(), authenticator_cap);
  const auto proven = c.read(bytes);
  ASSERT_TRUE(proven) << proven.error().text();
  EXPECT_EQ(proven->evidence, large);
}

TEST(Authenticator, AnEmptyOneProvesNothingAndHoldsOnItsConnectionOnly) {
  Case c;
  const Bytes empty = make_empty_authenticator(c.keys, c.request, c.context);
  const auto proven = c.read(empty);
  ASSERT_TRUE(proven);
  EXPECT_TRUE(proven->evidence.empty());
  c.keys.finished_key[0] ^= 1;
  EXPECT_THAT(c.error(empty), HasSubstr("not made on this connection"));
}

TEST(Authenticator, EveryFlippedBitIsRefused) {
  const Case c;
  for (std::size_t bit = 0; bit < c.authenticator.size() * 8; ++bit) {
    Bytes bytes = c.authenticator;
    bytes[bit / 8] ^= static_cast<std::uint8_t>(1 << bit % 8);
    ASSERT_FALSE(c.read(bytes)) << "bit " << bit;
  }
}

TEST(Authenticator, EveryTruncationAndAnyExtraByteIsRefused) {
  const Case c;
  for (std::size_t n = 0; n < c.authenticator.size(); ++n) ASSERT_FALSE(c.read(View(c.authenticator).first(n))) << n;
  Bytes longer = c.authenticator;
  longer.push_back(0);
  EXPECT_THAT(c.error(longer), HasSubstr("left over"));
}

TEST(Authenticator, RandomBytesAreRefused) {
  const Case c;
  const auto seed = std::random_device{}();
  std::mt19937 random(seed);
  for (int i = 0; i < 2000; ++i) {
    Bytes bytes(random() % 400);
    for (auto& b : bytes) b = static_cast<std::uint8_t>(random());
    if (!bytes.empty() && i % 2) bytes[0] = i % 4 == 1 ? 11 : 20;
    ASSERT_FALSE(c.read(bytes)) << "seed " << seed << ", case " << i;
  }
}

TEST(Authenticator, OverItsCapItIsRefusedUnread) {
  const Case c;
  EXPECT_THAT(c.error(Bytes(authenticator_cap + 1, 11)), HasSubstr("over "));
}

TEST(Authenticator, AnotherConnectionsIsRefused) {
  Case c;
  c.keys.handshake_context[0] ^= 1;
  EXPECT_EQ(c.read(c.authenticator).error().kind, Error::Kind::untrusted);
}

TEST(Authenticator, AnotherRequestsIsRefused) {
  Case c;
  c.request = make_request(Prover::server, base::random_array<32>());
  EXPECT_THAT(c.error(c.authenticator), HasSubstr("for this request"));
}

TEST(Authenticator, AnotherKeyThanTheTlsPeersIsRefused) {
  const Case c;
  const auto other = base::PrivateKey::generate();
  EXPECT_THAT(c.error(make_authenticator(c.keys, c.request, c.context, make_certificate(other), c.evidence, other)),
              HasSubstr("found " + other.public_key().text()));
}

TEST(Authenticator, TheCertificateOfThePeerSignedByAnotherKeyIsRefused) {
  const Case c;
  const auto other = base::PrivateKey::generate();  // knows the exporters, has the certificate, lacks the key
  EXPECT_THAT(c.error(make_authenticator(c.keys, c.request, c.context, c.certificate, c.evidence, other)),
              HasSubstr("certificate_verify: the signature does not hold"));
}

TEST(Authenticator, WithoutEvidenceItIsRefused) {
  const Case c;
  EXPECT_THAT(c.error(make_authenticator(c.keys, c.request, c.context, c.certificate, {}, c.key)),
              HasSubstr("found none"));
}

TEST(Authenticator, ARequestSaysWhoIsAskedAndIsReadByItAlone) {
  const auto context = base::random_array<32>();
  EXPECT_EQ(parse_request(Prover::server, make_request(Prover::server, context)).value(), context);
  EXPECT_EQ(parse_request(Prover::client, make_request(Prover::client, context)).value(), context);
  EXPECT_THAT(parse_request(Prover::client, make_request(Prover::server, context)).error().what,
              HasSubstr("wanted handshake type 13"));
  EXPECT_THAT(parse_request(Prover::server, make_request(Prover::client, context)).error().what,
              HasSubstr("wanted handshake type 17"));
}

/// A request of type 17 with these extensions.
Bytes request_with(View context, View extensions) {
  const Bytes body = base::Writer()
                         .u8(static_cast<std::uint8_t>(context.size()))
                         .raw(context)
                         .u16(static_cast<std::uint16_t>(extensions.size()))
                         .raw(extensions)
                         .bytes();
  return base::Writer().u8(17).u8(0).u16(static_cast<std::uint16_t>(body.size())).raw(body).bytes();
}

std::string request_error(View context, std::string_view extensions) {
  auto r = parse_request(Prover::server, request_with(context, unhex(extensions)));
  return r ? "accepted" : r.error().text();
}

TEST(Authenticator, RequestsAreReadStrictly) {
  const Bytes context(32, 1);
  const std::string schemes = "000d000400020807", cmw = "ffa70000";
  EXPECT_EQ(request_error(context, schemes + cmw), "accepted");
  EXPECT_EQ(request_error(context, schemes + "12340001ff" + cmw), "accepted");  // unknown extensions are ignored
  EXPECT_THAT(request_error(Bytes(31, 1), schemes + cmw), HasSubstr("wanted a context of 32 bytes, found 31"));
  EXPECT_THAT(request_error({}, schemes + cmw), HasSubstr("found 0"));
  EXPECT_THAT(request_error(context, cmw), HasSubstr("ed25519"));
  EXPECT_THAT(request_error(context, "000d000400020403" + cmw), HasSubstr("ed25519"));
  EXPECT_THAT(request_error(context, schemes), HasSubstr("cmw_attestation"));
  EXPECT_THAT(request_error(context, schemes + schemes + cmw), HasSubstr("stands twice"));
  EXPECT_THAT(request_error(context, "000d00040003080700" + cmw), HasSubstr("signature_algorithms"));
}

TEST(Authenticator, RequestsSurviveEveryTruncationAndRandomBytes) {
  const Bytes good = make_request(Prover::server, base::random_array<32>());
  for (std::size_t n = 0; n < good.size(); ++n) ASSERT_FALSE(parse_request(Prover::server, View(good).first(n))) << n;
  const auto seed = std::random_device{}();
  std::mt19937 random(seed);
  for (int i = 0; i < 5000; ++i) {
    Bytes bytes = good;
    for (unsigned flips = 1 + random() % 4; flips-- > 0;)
      bytes[random() % bytes.size()] = static_cast<std::uint8_t>(random());
    (void)parse_request(Prover::server, bytes);
  }
  EXPECT_THAT(parse_request(Prover::server, Bytes(request_cap + 1, 17)).error().what, HasSubstr("over 1024"));
}

TEST(Authenticator, LabelsAreTheRfcs) {
  EXPECT_EQ(handshake_context_label(Prover::client), "EXPORTER-client authenticator handshake context");
  EXPECT_EQ(handshake_context_label(Prover::server), "EXPORTER-server authenticator handshake context");
  EXPECT_EQ(finished_key_label(Prover::client), "EXPORTER-client authenticator finished key");
  EXPECT_EQ(finished_key_label(Prover::server), "EXPORTER-server authenticator finished key");
}

TEST(ReportData, EveryInputChangesIt) {
  const auto a = base::PrivateKey::generate().public_key(), b = base::PrivateKey::generate().public_key();
  const Bytes exporter(32, 1), record{1, 2};
  const auto base_value = channel_report_data(Prover::server, a, b, exporter, record);
  EXPECT_NE(base_value, channel_report_data(Prover::client, a, b, exporter, record));
  EXPECT_NE(base_value, channel_report_data(Prover::server, b, a, exporter, record));
  EXPECT_NE(base_value, channel_report_data(Prover::server, a, a, exporter, record));
  EXPECT_NE(base_value, channel_report_data(Prover::server, a, b, Bytes(32, 2), record));
  EXPECT_NE(base_value, channel_report_data(Prover::server, a, b, exporter, Bytes{1, 3}));
  EXPECT_NE(base_value, channel_report_data(Prover::server, a, b, exporter, {}));
}

TEST(ReportData, IsWhatTheFormatSays) {
  const base::PublicKey a{{1}}, b{{2}};
  const Bytes exporter(32, 7), record{9};
  const Bytes text = base::Writer()
                         .field("cloister channel 1")
                         .field("server")
                         .field(base::sha256(a.spki()))
                         .field(base::sha256(b.spki()))
                         .field(exporter)
                         .field(base::sha256(record))
                         .bytes();
  EXPECT_EQ(channel_report_data(Prover::server, a, b, exporter, record), base::sha512(text));
}

TEST(Cmw, IsACborRecordOfThree) {
  EXPECT_EQ(base::hex(wrap_evidence(Bytes{0xaa, 0xbb})),
            "83"
            "7821" +
                base::hex(base::view("application/vnd.cloister.evidence")) +
                "42"
                "aabb"
                "04");
}

TEST(Cmw, EverySizeComesBack) {
  for (std::size_t n : {0u, 1u, 23u, 24u, 255u, 256u, 4096u, 65'000u}) {
    const Bytes evidence(n, 0x42);
    ASSERT_EQ(unwrap_evidence(wrap_evidence(evidence)).value(), evidence) << n;
  }
}

std::string cmw_error(View bytes) {
  auto r = unwrap_evidence(bytes);
  return r ? "accepted" : r.error().text();
}

TEST(Cmw, AnotherMessageIsRefused) {
  Bytes result = wrap_evidence(Bytes{1});
  result.back() = 8;  // attestation results
  EXPECT_THAT(cmw_error(result), HasSubstr("wanted evidence (4), found 8"));
  Bytes type = wrap_evidence(Bytes{1});
  type[10] ^= 1;
  EXPECT_THAT(cmw_error(type), HasSubstr("another media type"));
  Bytes two = wrap_evidence(Bytes{1});
  two[0] = 0x82;
  EXPECT_THAT(cmw_error(two), HasSubstr("array of three"));
  Bytes indefinite = wrap_evidence(Bytes{1});
  indefinite[0] = 0x9f;
  EXPECT_THAT(cmw_error(indefinite), HasSubstr("array of three"));
}

TEST(Cmw, LengthsStandInTheirShortestForm) {
  Bytes longer = wrap_evidence(Bytes{0x55});
  const auto at = longer.size() - 3;  // 41 55 04
  longer[at] = 0x58;
  longer.insert(longer.begin() + static_cast<std::ptrdiff_t>(at) + 1, 1);
  EXPECT_THAT(cmw_error(longer), HasSubstr("shortest form"));
}

TEST(Cmw, EveryTruncationIsRefused) {
  const Bytes good = wrap_evidence(Bytes(300, 1));
  for (std::size_t n = 0; n < good.size(); ++n) ASSERT_FALSE(unwrap_evidence(View(good).first(n))) << n;
}

TEST(Certificate, HoldsItsKeyAndEvidenceAndAnotherSerialEachTime) {
  const auto key = base::PrivateKey::generate();
  const auto a = make_certificate(key, Bytes{1, 2, 3}), b = make_certificate(key);
  const auto read = read_certificate(a, "test").value();
  EXPECT_EQ(read.key, key.public_key());
  EXPECT_EQ(read.dice, (Bytes{1, 2, 3}));
  EXPECT_TRUE(read_certificate(b, "test").value().dice.empty());
  EXPECT_NE(make_certificate(key), b);
}

TEST(Certificate, EveryFlippedBitAndTruncationIsRefused) {
  const auto key = base::PrivateKey::generate();
  const Bytes der = make_certificate(key);
  for (std::size_t n = 0; n < der.size(); ++n) ASSERT_FALSE(read_certificate(View(der).first(n), "test")) << n;
  for (std::size_t bit = 0; bit < der.size() * 8; ++bit) {
    Bytes bytes = der;
    bytes[bit / 8] ^= static_cast<std::uint8_t>(1 << bit % 8);
    ASSERT_FALSE(read_certificate(bytes, "test")) << "bit " << bit;
  }
}

TEST(Certificate, OverItsCapItIsRefusedUnread) {
  EXPECT_THAT(read_certificate(Bytes(certificate_cap + 1), "test").error().what, HasSubstr("at most 81920 are read"));
}

}  // namespace
}  // namespace cloister::protocols::channel

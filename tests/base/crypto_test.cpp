// Vectors from the documents that define each primitive, and what each refuses.

#include "base/crypto.hpp"

#include <filesystem>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <set>
#include <sys/stat.h>

#include "base/encoding.hpp"
#include "base/file.hpp"

namespace cloister::base {
namespace {

using testing::HasSubstr;

Bytes unhex(std::string_view h) {
  return from_hex(h, "vector").value();
}

// RFC 8410 section 7: PKCS #8 around the 32 bytes of the seed.
PrivateKey from_seed(std::string_view seed) {
  const Bytes der = unhex("302e020100300506032b657004220420" + std::string(seed));
  return PrivateKey::from_pem("-----BEGIN PRIVATE KEY-----\n" + base64(der) + "\n-----END PRIVATE KEY-----\n", "vector")
      .value();
}

TEST(Crypto, HashesAbcAsFips180SaysTheyDo) {
  const View abc = view("abc");
  EXPECT_EQ(hex(sha256(abc)), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hex(sha384(abc)),
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7");
  EXPECT_EQ(hex(sha512(abc)),
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d442364"
            "3ce80e2a9ac94fa54ca49f");
  Hasher pieces;
  pieces.add(view("a")).add(view("")).add(view("bc"));
  EXPECT_EQ(std::move(pieces).finish(), sha256(abc));
}

TEST(Crypto, HmacFollowsRfc4231Cases1And2) {
  EXPECT_EQ(hex(hmac_sha256(Bytes(20, 0x0b), view("Hi There"))),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
  EXPECT_EQ(hex(hmac_sha256(view("Jefe"), view("what do ya want for nothing?"))),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

TEST(Crypto, HkdfFollowsRfc5869Cases1And3) {
  EXPECT_EQ(hex(hkdf_sha256(Bytes(22, 0x0b), unhex("000102030405060708090a0b0c"), unhex("f0f1f2f3f4f5f6f7f8f9"), 42)),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865");
  EXPECT_EQ(hex(hkdf_sha256(Bytes(22, 0x0b), {}, {}, 42)),
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8");
}

struct EdVector {
  const char *seed, *key, *message, *signature;
};
const EdVector rfc8032[] = {
    {"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
     "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
     "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe246"
     "55141438e7a100b"},
    {"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
     "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
     "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb"
     "00d291612bb0c00"},
};

TEST(Crypto, Ed25519FollowsRfc8032Section71) {
  for (const EdVector& v : rfc8032) {
    const PrivateKey key = from_seed(v.seed);
    EXPECT_EQ(hex(key.public_key().bytes), v.key);
    EXPECT_EQ(hex(key.sign_raw(unhex(v.message))), v.signature);
    EXPECT_TRUE(key.public_key().verifies_raw(unhex(v.message), unhex(v.signature)));
  }
}

TEST(Crypto, OneFlippedBitOfASignatureOrItsMessageDenies) {
  const PrivateKey key = PrivateKey::generate();
  const Bytes message = copy(view("a message"));
  const Signature good = key.sign("purpose", message);
  ASSERT_TRUE(key.public_key().verifies("purpose", message, good));
  for (std::size_t bit = 0; bit < 8 * good.size(); ++bit) {
    Signature bad = good;
    bad[bit / 8] ^= static_cast<std::uint8_t>(1 << bit % 8);
    EXPECT_FALSE(key.public_key().verifies("purpose", message, bad)) << bit;
  }
  for (std::size_t bit = 0; bit < 8 * message.size(); ++bit) {
    Bytes other = message;
    other[bit / 8] ^= static_cast<std::uint8_t>(1 << bit % 8);
    EXPECT_FALSE(key.public_key().verifies("purpose", other, good)) << bit;
  }
}

TEST(Crypto, ASignatureForOnePurposeSaysNothingForAnother) {
  const PrivateKey key = PrivateKey::generate();
  const Signature s = key.sign("cloister policy v1", view("x"));
  EXPECT_FALSE(key.public_key().verifies("cloister charter v1", view("x"), s));
  EXPECT_FALSE(key.public_key().verifies("cloister policy v", view("1x"), s)) << "fields have lengths";
  EXPECT_TRUE(key.public_key().verifies_raw(Writer().field("cloister policy v1").field("x").bytes(), s));
}

// McGrew and Viega, "The Galois/Counter Mode of Operation", test cases 13, 14 and 16.
TEST(Crypto, AesGcmFollowsItsAuthorsVectors) {
  const Bytes zero_key(32, 0), zero_nonce(12, 0);
  EXPECT_EQ(hex(aes_gcm_seal(zero_key, zero_nonce, {}, {})), "530f8afbc74536b9a963b4f1c4cb738b");
  EXPECT_EQ(hex(aes_gcm_seal(zero_key, zero_nonce, {}, Bytes(16, 0))),
            "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919");
  const Bytes key = unhex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308");
  const Bytes nonce = unhex("cafebabefacedbaddecaf888"), associated = unhex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
  const Bytes plain = unhex(
      "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657"
      "ba637b39");
  const Bytes sealed = aes_gcm_seal(key, nonce, associated, plain);
  EXPECT_EQ(hex(sealed),
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393"
            "ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b");
  EXPECT_EQ(aes_gcm_open(key, nonce, associated, sealed, "x").value(), plain);
}

TEST(Crypto, ASealedByteThatChangedDoesNotOpen) {
  const Bytes key(32, 1), nonce(12, 2);
  const Bytes sealed = aes_gcm_seal(key, nonce, view("header"), view("plain"));
  for (std::size_t i = 0; i < sealed.size(); ++i) {
    Bytes bad = sealed;
    bad[i] ^= 0x80;
    EXPECT_FALSE(aes_gcm_open(key, nonce, view("header"), bad, "x")) << i;
  }
  EXPECT_EQ(aes_gcm_open(key, nonce, view("Header"), sealed, "model").error().text(),
            "model: the sealed bytes do not verify: wrong key, or changed");
  EXPECT_FALSE(aes_gcm_open(key, nonce, view("header"), Bytes(15), "x"));
}

TEST(Crypto, KeysAreReadAsTheyAreWritten) {
  const PrivateKey key = PrivateKey::generate();
  EXPECT_EQ(PrivateKey::from_pem(key.pem(), "k").value().public_key(), key.public_key());
  EXPECT_EQ(PublicKey::parse(key.public_key().text(), "k").value(), key.public_key());
  EXPECT_EQ(PublicKey::from_spki(key.public_key().spki(), "k").value(), key.public_key());
  EXPECT_THAT(PublicKey::parse("ed25519:00", "signers.dpo").error().text(),
              HasSubstr("signers.dpo: wanted \"ed25519:\" and 64 hex digits"));
  EXPECT_FALSE(PrivateKey::from_pem("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "k"));
  EXPECT_EQ(parse_digest(digest_text(sha256(view("abc"))), "d").value(), sha256(view("abc")));
  EXPECT_FALSE(parse_digest("sha512:" + std::string(64, '0'), "d"));
}

TEST(Crypto, APrivateKeyThatOthersMayReadIsRefused) {
  std::string folder = (std::filesystem::temp_directory_path() / "cloister key XXXXXX").string();
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  const std::string path = folder + "/k";
  ASSERT_TRUE(write_file(path, view(PrivateKey::generate().pem()), 0600));
  EXPECT_TRUE(PrivateKey::load(path));
  ::chmod(path.c_str(), 0640);
  EXPECT_THAT(PrivateKey::load(path).error().text(),
              HasSubstr("a private key that others may read (mode 640); chmod 600 it"));
  std::filesystem::remove_all(folder);
}

TEST(Crypto, RandomBytesDoNotRepeat) {
  std::set<Array<16>> seen;
  for (int i = 0; i < 1000; ++i) EXPECT_TRUE(seen.insert(random_array<16>()).second);
}

}  // namespace
}  // namespace cloister::base

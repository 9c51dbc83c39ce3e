#include "base/crypto.hpp"

#include <fmt/format.h>
#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <sys/stat.h>

#include "base/encoding.hpp"
#include "base/file.hpp"

namespace cloister::base {
namespace {

// OpenSSL fails here only when memory or the provider is gone: nothing that a caller could mend.
void must(bool ok) {
  if (!ok) std::abort();
}

template <std::size_t N>
Array<N> digest(const EVP_MD* md, View bytes) {
  Array<N> out{};
  unsigned int n = 0;
  must(EVP_Digest(bytes.data(), bytes.size(), out.data(), &n, md, nullptr) == 1 && n == N);
  return out;
}

// RFC 8410 section 4: SEQUENCE { SEQUENCE { OID 1.3.101.112 }, BIT STRING }.
constexpr Array<12> spki_prefix{0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00};

Bytes signed_bytes(std::string_view context, View message) {
  return Writer().field(context).field(message).bytes();
}

using Cipher = std::unique_ptr<EVP_CIPHER_CTX, decltype(&EVP_CIPHER_CTX_free)>;

}  // namespace

Sha256 sha256(View bytes) { return digest<32>(EVP_sha256(), bytes); }
Sha384 sha384(View bytes) { return digest<48>(EVP_sha384(), bytes); }
Sha512 sha512(View bytes) { return digest<64>(EVP_sha512(), bytes); }

Hasher::Hasher() : context_(EVP_MD_CTX_new()) { must(EVP_DigestInit_ex(context_, EVP_sha256(), nullptr) == 1); }
Hasher::~Hasher() { EVP_MD_CTX_free(context_); }
Hasher::Hasher(Hasher&& other) noexcept : context_(std::exchange(other.context_, nullptr)) {}
Hasher& Hasher::operator=(Hasher&& other) noexcept {
  std::swap(context_, other.context_);
  return *this;
}
Hasher& Hasher::add(View bytes) {
  must(EVP_DigestUpdate(context_, bytes.data(), bytes.size()) == 1);
  return *this;
}
Sha256 Hasher::finish() && {
  Sha256 out{};
  unsigned int n = 0;
  must(EVP_DigestFinal_ex(context_, out.data(), &n) == 1);
  return out;
}

std::string digest_text(const Sha256& digest) { return "sha256:" + hex(digest); }

Result<Sha256> parse_digest(std::string_view text, std::string where) {
  if (!text.starts_with("sha256:") || text.size() != 71)
    return malformed(std::move(where), fmt::format("wanted \"sha256:\" and 64 hex digits, found \"{}\"", text));
  auto bytes = from_hex(text.substr(7), std::move(where));
  if (!bytes) return bytes.error();
  return array<32>(*bytes);
}

Bytes hmac(const char* hash, View key, View message) {
  Bytes out(64);
  std::size_t n = 0;
  static const std::uint8_t none = 0;
  must(EVP_Q_mac(nullptr, "HMAC", nullptr, hash, nullptr, key.empty() ? &none : key.data(), key.size(), message.data(),
                 message.size(), out.data(), out.size(), &n) != nullptr);
  out.resize(n);
  return out;
}

Bytes hmac_sha256(View key, View message) { return hmac("SHA256", key, message); }

Bytes hkdf_sha256(View secret, View salt, View info, std::size_t length) {
  std::unique_ptr<EVP_KDF, decltype(&EVP_KDF_free)> kdf(EVP_KDF_fetch(nullptr, "HKDF", nullptr), EVP_KDF_free);
  std::unique_ptr<EVP_KDF_CTX, decltype(&EVP_KDF_CTX_free)> ctx(EVP_KDF_CTX_new(kdf.get()), EVP_KDF_CTX_free);
  char sha[] = "SHA256";
  // An empty salt or info is the default of both (RFC 5869 sections 2.2, 2.3); OpenSSL refuses a null pointer for it.
  OSSL_PARAM params[5];
  std::size_t n = 0;
  const auto octets = [&](const char* name, View bytes) {
    if (bytes.empty()) return;
    params[n++] = OSSL_PARAM_construct_octet_string(name, const_cast<std::uint8_t*>(bytes.data()), bytes.size());
  };
  params[n++] = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, sha, 0);
  octets(OSSL_KDF_PARAM_KEY, secret);
  octets(OSSL_KDF_PARAM_SALT, salt);
  octets(OSSL_KDF_PARAM_INFO, info);
  params[n] = OSSL_PARAM_construct_end();
  Bytes out(length);
  must(EVP_KDF_derive(ctx.get(), out.data(), out.size(), params) == 1);
  return out;
}

void random(std::span<std::uint8_t> out) { must(RAND_bytes(out.data(), static_cast<int>(out.size())) == 1); }

Bytes aes_gcm_seal(View key32, View nonce12, View associated, View plain) {
  must(key32.size() == 32 && nonce12.size() == 12);
  Cipher c(EVP_CIPHER_CTX_new(), EVP_CIPHER_CTX_free);
  Bytes out(plain.size() + 16);
  int n = 0;
  must(EVP_EncryptInit_ex(c.get(), EVP_aes_256_gcm(), nullptr, key32.data(), nonce12.data()) == 1);
  must(EVP_EncryptUpdate(c.get(), nullptr, &n, associated.data(), static_cast<int>(associated.size())) == 1);
  must(EVP_EncryptUpdate(c.get(), out.data(), &n, plain.data(), static_cast<int>(plain.size())) == 1);
  must(EVP_EncryptFinal_ex(c.get(), out.data() + n, &n) == 1);
  must(EVP_CIPHER_CTX_ctrl(c.get(), EVP_CTRL_GCM_GET_TAG, 16, out.data() + plain.size()) == 1);
  return out;
}

Result<Bytes> aes_gcm_open(View key32, View nonce12, View associated, View sealed, std::string where) {
  must(key32.size() == 32 && nonce12.size() == 12);
  if (sealed.size() < 16) return malformed(std::move(where), "sealed bytes are shorter than their tag");
  const std::size_t length = sealed.size() - 16;
  Cipher c(EVP_CIPHER_CTX_new(), EVP_CIPHER_CTX_free);
  Bytes out(length);
  int n = 0;
  Bytes tag = copy(sealed.subspan(length));
  must(EVP_DecryptInit_ex(c.get(), EVP_aes_256_gcm(), nullptr, key32.data(), nonce12.data()) == 1);
  must(EVP_DecryptUpdate(c.get(), nullptr, &n, associated.data(), static_cast<int>(associated.size())) == 1);
  must(EVP_DecryptUpdate(c.get(), out.data(), &n, sealed.data(), static_cast<int>(length)) == 1);
  must(EVP_CIPHER_CTX_ctrl(c.get(), EVP_CTRL_GCM_SET_TAG, 16, tag.data()) == 1);
  Array<16> rest{};
  if (EVP_DecryptFinal_ex(c.get(), rest.data(), &n) != 1)
    return untrusted(std::move(where), "the sealed bytes do not verify: wrong key, or changed");
  return out;
}

std::string PublicKey::text() const { return "ed25519:" + hex(bytes); }

Result<PublicKey> PublicKey::parse(std::string_view text, std::string where) {
  if (!text.starts_with("ed25519:") || text.size() != 72)
    return malformed(std::move(where), fmt::format("wanted \"ed25519:\" and 64 hex digits, found \"{}\"", text));
  auto bytes = from_hex(text.substr(8), std::move(where));
  if (!bytes) return bytes.error();
  return PublicKey{array<32>(*bytes)};
}

Bytes PublicKey::spki() const { return Writer().raw(spki_prefix).raw(bytes).bytes(); }

Result<PublicKey> PublicKey::from_spki(View der, std::string where) {
  if (der.size() != 44 || !std::equal(spki_prefix.begin(), spki_prefix.end(), der.begin()))
    return unsupported(std::move(where), "wanted an Ed25519 public key (RFC 8410), found another kind");
  return PublicKey{array<32>(der.subspan(12))};
}

bool PublicKey::verifies_raw(View message, View signature) const {
  std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(
      EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, bytes.data(), bytes.size()), EVP_PKEY_free);
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> ctx(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  return key && EVP_DigestVerifyInit(ctx.get(), nullptr, nullptr, nullptr, key.get()) == 1 &&
         EVP_DigestVerify(ctx.get(), signature.data(), signature.size(), message.data(), message.size()) == 1;
}

bool PublicKey::verifies(std::string_view context, View message, const Signature& signature) const {
  return verifies_raw(signed_bytes(context, message), signature);
}

PrivateKey::PrivateKey(EVP_PKEY* key) : key_(key, EVP_PKEY_free) {}

PrivateKey PrivateKey::generate() {
  EVP_PKEY* key = EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519");
  must(key != nullptr);
  return PrivateKey(key);
}

Result<PrivateKey> PrivateKey::from_pem(std::string_view pem, std::string where) {
  std::unique_ptr<BIO, decltype(&BIO_free)> bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())), BIO_free);
  EVP_PKEY* key = PEM_read_bio_PrivateKey(bio.get(), nullptr, [](char*, int, int, void*) { return 0; }, nullptr);
  if (key == nullptr) return malformed(std::move(where), "wanted a private key in PEM (PKCS #8, not encrypted)");
  PrivateKey out(key);
  if (EVP_PKEY_get_id(key) != EVP_PKEY_ED25519) return unsupported(std::move(where), "wanted an Ed25519 key");
  return out;
}

Result<PrivateKey> PrivateKey::load(const std::string& path) {
  struct stat st {};
  if (::stat(path.c_str(), &st) == 0 && (st.st_mode & 077) != 0)
    return untrusted(path, fmt::format("a private key that others may read (mode {:o}); chmod 600 it", st.st_mode & 0777));
  auto pem = read_file(path, 16 << 10);
  if (!pem) return pem.error();
  return from_pem(base::text(*pem), path);
}

std::string PrivateKey::pem() const {
  std::unique_ptr<BIO, decltype(&BIO_free)> bio(BIO_new(BIO_s_mem()), BIO_free);
  must(PEM_write_bio_PrivateKey(bio.get(), key_.get(), nullptr, nullptr, 0, nullptr, nullptr) == 1);
  char* data = nullptr;
  const long n = BIO_get_mem_data(bio.get(), &data);
  return {data, static_cast<std::size_t>(n)};
}

PublicKey PrivateKey::public_key() const {
  PublicKey out;
  std::size_t n = out.bytes.size();
  must(EVP_PKEY_get_raw_public_key(key_.get(), out.bytes.data(), &n) == 1 && n == 32);
  return out;
}

Signature PrivateKey::sign_raw(View message) const {
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> ctx(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  Signature out{};
  std::size_t n = out.size();
  must(EVP_DigestSignInit(ctx.get(), nullptr, nullptr, nullptr, key_.get()) == 1);
  must(EVP_DigestSign(ctx.get(), out.data(), &n, message.data(), message.size()) == 1 && n == out.size());
  return out;
}

Signature PrivateKey::sign(std::string_view context, View message) const {
  return sign_raw(signed_bytes(context, message));
}

}  // namespace cloister::base

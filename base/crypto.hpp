#pragma once
// Hashes, key derivation, Ed25519 and AES-GCM: OpenSSL behind value types. Thread-safe, but one Hasher is one thread's.

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.hpp"

typedef struct evp_pkey_st EVP_PKEY;
typedef struct evp_md_ctx_st EVP_MD_CTX;

namespace cloister::base {

using Sha256 = Array<32>;
using Sha384 = Array<48>;
using Sha512 = Array<64>;

Sha256 sha256(View bytes);
Sha384 sha384(View bytes);
Sha512 sha512(View bytes);

/// SHA-256 of what comes in pieces.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(Hasher&&) noexcept;
  Hasher& operator=(Hasher&&) noexcept;
  Hasher& add(View bytes);
  Sha256 finish() &&;

 private:
  EVP_MD_CTX* context_;
};

/// A digest as policies and manifests write it: "sha256:" and 64 hex digits.
std::string digest_text(const Sha256& digest);
Result<Sha256> parse_digest(std::string_view text, std::string where);

Bytes hmac_sha256(View key, View message);
/// HMAC with the hash named as OpenSSL names it ("SHA256", "SHA384").
Bytes hmac(const char* hash, View key, View message);
/// HKDF-SHA256 (RFC 5869): extract with `salt`, expand with `info`.
Bytes hkdf_sha256(View secret, View salt, View info, std::size_t length);

/// From the operating system's generator; aborts when it fails.
void random(std::span<std::uint8_t> out);
template <std::size_t N>
Array<N> random_array() {
  Array<N> out{};
  random(out);
  return out;
}

/// AES-256-GCM. The result is ciphertext and 16 bytes of tag. One (key, nonce) seals once.
Bytes aes_gcm_seal(View key32, View nonce12, View associated, View plain);
Result<Bytes> aes_gcm_open(View key32, View nonce12, View associated, View sealed, std::string where);

using Signature = Array<64>;

/// An Ed25519 public key: 32 bytes (RFC 8032).
struct PublicKey {
  Array<32> bytes{};
  auto operator<=>(const PublicKey&) const = default;

  /// "ed25519:" and 64 hex digits.
  std::string text() const;
  static Result<PublicKey> parse(std::string_view text, std::string where);
  /// The 44 bytes of its SubjectPublicKeyInfo (RFC 8410 section 4).
  Bytes spki() const;
  static Result<PublicKey> from_spki(View der, std::string where);
  /// Does `signature` cover `message` under `context`? See PrivateKey::sign.
  bool verifies(std::string_view context, View message, const Signature& signature) const;
  bool verifies_raw(View message, View signature) const;
};

/// An Ed25519 private key; zeroised on destruction. Copies share one key.
class PrivateKey {
 public:
  static PrivateKey generate();
  /// PEM, PKCS #8, as `openssl genpkey` writes it.
  static Result<PrivateKey> from_pem(std::string_view pem, std::string where);
  /// Refuses a file that others than its owner may read.
  static Result<PrivateKey> load(const std::string& path);
  std::string pem() const;
  PublicKey public_key() const;
  /// Signs field(context) || field(message) in the canonical encoding: a signature made for one purpose says nothing for another.
  Signature sign(std::string_view context, View message) const;
  Signature sign_raw(View message) const;
  EVP_PKEY* get() const { return key_.get(); }

 private:
  explicit PrivateKey(EVP_PKEY* key);
  std::shared_ptr<EVP_PKEY> key_;
};

}  // namespace cloister::base

#include "protocols/channel/certificate.hpp"

#include <cstdlib>
#include <memory>
#include <openssl/asn1.h>
#include <openssl/evp.h>
#include <openssl/objects.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

namespace cloister::protocols::channel {
namespace {

template <auto free>
struct Free {
  template <class T>
  void operator()(T* p) const {
    free(p);
  }
};
using Certificate = std::unique_ptr<X509, Free<X509_free>>;
using Extension = std::unique_ptr<X509_EXTENSION, Free<X509_EXTENSION_free>>;
using Octets = std::unique_ptr<ASN1_OCTET_STRING, Free<ASN1_OCTET_STRING_free>>;
using Object = std::unique_ptr<ASN1_OBJECT, Free<ASN1_OBJECT_free>>;
using Key = std::unique_ptr<EVP_PKEY, Free<EVP_PKEY_free>>;

constexpr const char* dice_oid = "2.23.133.5.4.9";  // TCG DICE Attestation Architecture, tcg-dice-TaggedEvidence

void must(bool ok) {
  if (!ok) std::abort();  // building a certificate from valid parts fails only without memory
}

Object dice_object() {
  return Object(OBJ_txt2obj(dice_oid, 1));
}

void add_dice(X509* certificate, View value) {
  Octets octets(ASN1_OCTET_STRING_new());
  must(ASN1_OCTET_STRING_set(octets.get(), value.data(), static_cast<int>(value.size())) == 1);
  Object object = dice_object();
  Extension extension(X509_EXTENSION_create_by_OBJ(nullptr, object.get(), 0, octets.get()));
  must(extension && X509_add_ext(certificate, extension.get(), -1) == 1);
}

Bytes find_dice(X509* certificate) {
  Object object = dice_object();
  const int at = X509_get_ext_by_OBJ(certificate, object.get(), -1);
  if (at < 0) return {};
  const ASN1_OCTET_STRING* value = X509_EXTENSION_get_data(X509_get_ext(certificate, at));
  return base::copy({ASN1_STRING_get0_data(value), static_cast<std::size_t>(ASN1_STRING_length(value))});
}

/// A name's common name, or else its organisation; printable ASCII only, since it goes to logs and terminals.
std::string readable(const X509_NAME* name) {
  char buffer[128] = "";
  for (int nid : {NID_commonName, NID_organizationName})
    if (X509_NAME_get_text_by_NID(const_cast<X509_NAME*>(name), nid, buffer, sizeof buffer) > 0) break;
  std::string out = buffer[0] ? buffer : "(no name)";
  for (char& c : out)
    if (c < 0x20 || c > 0x7e) c = '?';
  return out;
}

struct FreeBytes {
  void operator()(unsigned char* p) const { OPENSSL_free(p); }
};

Error too_long(std::size_t size, std::string where) {
  return base::malformed(std::move(where), "a certificate of " + std::to_string(size) + " bytes; at most " +
                                               std::to_string(certificate_cap) + " are read");
}

}  // namespace

Bytes make_certificate(const base::PrivateKey& key, View dice) {
  Certificate c(X509_new());
  must(c && X509_set_version(c.get(), X509_VERSION_3) == 1);
  auto serial = base::random_array<16>();
  serial[0] &= 0x7f;  // RFC 5280 section 4.1.2.2: positive, at most 20 octets
  std::unique_ptr<BIGNUM, Free<BN_free>> number(BN_bin2bn(serial.data(), serial.size(), nullptr));
  must(number && BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(c.get())) != nullptr);
  must(X509_gmtime_adj(X509_getm_notBefore(c.get()), -3600) != nullptr);
  must(X509_gmtime_adj(X509_getm_notAfter(c.get()), 24 * 3600) != nullptr);
  X509_NAME* name = X509_get_subject_name(c.get());
  const auto* text = reinterpret_cast<const unsigned char*>("cloister");
  must(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, text, -1, -1, 0) == 1);
  must(X509_set_issuer_name(c.get(), name) == 1 && X509_set_pubkey(c.get(), key.get()) == 1);
  if (!dice.empty()) add_dice(c.get(), dice);
  must(X509_sign(c.get(), key.get(), nullptr) > 0);
  unsigned char* der = nullptr;
  const int n = i2d_X509(c.get(), &der);
  must(n > 0);
  Bytes out(der, der + n);
  OPENSSL_free(der);
  return out;
}

Result<PeerCertificate> read_certificate(View der, std::string where) {
  if (der.size() > certificate_cap) return too_long(der.size(), std::move(where));
  const unsigned char* at = der.data();
  Certificate c(d2i_X509(nullptr, &at, static_cast<long>(der.size())));
  if (!c || at != der.data() + der.size()) return base::malformed(std::move(where), "not one X.509 certificate in DER");
  return read_certificate(c.get(), std::move(where));
}

Result<PeerCertificate> read_certificate(X509* certificate, std::string where) {
  unsigned char* bytes = nullptr;
  const int length = i2d_X509(certificate, &bytes);
  if (length <= 0) return base::malformed(std::move(where), "no certificate");
  const std::unique_ptr<unsigned char, FreeBytes> der(bytes);
  if (static_cast<std::size_t>(length) > certificate_cap)
    return too_long(static_cast<std::size_t>(length), std::move(where));
  EVP_PKEY* key = X509_get0_pubkey(certificate);
  if (key == nullptr || EVP_PKEY_get_id(key) != EVP_PKEY_ED25519 || X509_verify(certificate, key) != 1) {
    return base::untrusted(
        std::move(where),
        "wanted a self-made Ed25519 certificate, found one issued by \"" + readable(X509_get_issuer_name(certificate)) +
            "\": something between opens the TLS connection (an inspecting proxy?), or another service "
            "answers; exempt this host and port from inspection");
  }
  PeerCertificate out;
  std::size_t n = out.key.bytes.size();
  must(EVP_PKEY_get_raw_public_key(key, out.key.bytes.data(), &n) == 1 && n == out.key.bytes.size());
  out.dice = find_dice(certificate);
  out.digest = base::sha256({der.get(), static_cast<std::size_t>(length)});
  return out;
}

}  // namespace cloister::protocols::channel

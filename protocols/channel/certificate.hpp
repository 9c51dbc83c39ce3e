#pragma once
// Self-made X.509 certificates around Ed25519 keys. The key is what counts: it is pinned in the charter or named by a
// grant, and the handshake proves it. No CA, no names, no chain; validity dates are written for other tools and decide
// nothing here, since an enclave has no clock that it may trust (docs/formats.md, "Channel").

#include <optional>
#include <string>

#include "base/bytes.hpp"
#include "base/crypto.hpp"

typedef struct x509_st X509;

namespace cloister::protocols::channel {

inline constexpr std::size_t certificate_cap = 80 << 10;  ///< DER; the DICE extension may hold evidence of 64 KiB

/// DER of a fresh certificate, signed by its own key, with a random serial, valid from an hour ago for a day.
/// `dice`: value of the extension 2.23.133.5.4.9 (TCG DICE tagged evidence), left out when empty.
Bytes make_certificate(const base::PrivateKey& key, View dice = {});

/// What a peer's certificate says.
struct PeerCertificate {
  base::PublicKey key;
  Bytes dice;             ///< value of its DICE extension, empty when it has none
  base::Sha256 digest{};  ///< of its DER
};

/// Errors: malformed (not a certificate, left-over bytes, over the cap), untrusted with the issuer's name (not signed
/// by its own Ed25519 key: a CA's certificate, most likely an inspecting proxy's).
Result<PeerCertificate> read_certificate(View der, std::string where);
/// The same of one that OpenSSL has parsed.
Result<PeerCertificate> read_certificate(X509* certificate, std::string where);

}  // namespace cloister::protocols::channel

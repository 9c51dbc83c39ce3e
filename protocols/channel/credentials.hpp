#pragma once
// This side's TLS key and the certificate around it. Making and parsing a certificate costs more than a handshake's own
// cryptography, so whoever opens or takes many connections keeps one of these.

#include <memory>

#include "base/bytes.hpp"
#include "base/crypto.hpp"

typedef struct x509_st X509;

namespace cloister::protocols::channel {

/// A certificate of this side, as bytes and as OpenSSL holds it.
struct OwnCertificate {
  Bytes der;
  std::shared_ptr<X509> x509;
};

/// Copies share what they have made. Thread-safe. A bare key is taken for it: then the certificate is made for that one
/// call.
class Credentials {
 public:
  Credentials(base::PrivateKey key);  // NOLINT: implicit, a key is all that there is to say

  const base::PrivateKey& key() const;
  const base::PublicKey& public_key() const;
  /// With `dice` as the value of its DICE extension (none when empty). Made when it is first asked for, and anew when
  /// `dice` is another one or half of its day is over.
  std::shared_ptr<const OwnCertificate> certificate(View dice = {}) const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace cloister::protocols::channel

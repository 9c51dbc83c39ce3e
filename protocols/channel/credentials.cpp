#include "protocols/channel/credentials.hpp"

#include <chrono>
#include <cstdlib>
#include <mutex>
#include <openssl/x509v3.h>

#include "protocols/channel/certificate.hpp"

namespace cloister::protocols::channel {

namespace {

constexpr auto renewed_after = std::chrono::hours(12);  // a certificate is valid for a day

std::shared_ptr<const OwnCertificate> make(const base::PrivateKey& key, View dice) {
  auto out = std::make_shared<OwnCertificate>();
  out->der = make_certificate(key, dice);
  const unsigned char* at = out->der.data();
  out->x509 = {d2i_X509(nullptr, &at, static_cast<long>(out->der.size())), X509_free};
  // Read by OpenSSL's handshakes of several threads: what it derives lazily is derived here.
  if (!out->x509 || X509_get0_pubkey(out->x509.get()) == nullptr) std::abort();
  X509_check_purpose(out->x509.get(), -1, 0);
  return out;
}

}  // namespace

struct Credentials::State {
  explicit State(base::PrivateKey k) : key(std::move(k)), public_key(key.public_key()) {}
  const base::PrivateKey key;
  const base::PublicKey public_key;
  std::mutex mutex;
  std::shared_ptr<const OwnCertificate> made;
  Bytes dice;  ///< of made
  std::chrono::steady_clock::time_point made_at{};
};

Credentials::Credentials(base::PrivateKey key) : state_(std::make_shared<State>(std::move(key))) {}

const base::PrivateKey& Credentials::key() const {
  return state_->key;
}

const base::PublicKey& Credentials::public_key() const {
  return state_->public_key;
}

std::shared_ptr<const OwnCertificate> Credentials::certificate(View dice) const {
  const std::scoped_lock lock(state_->mutex);
  const auto now = std::chrono::steady_clock::now();
  if (!state_->made || !base::equal(dice, state_->dice) || now - state_->made_at > renewed_after) {
    state_->made = make(state_->key, dice);
    state_->dice = base::copy(dice);
    state_->made_at = now;
  }
  return state_->made;
}

}  // namespace cloister::protocols::channel

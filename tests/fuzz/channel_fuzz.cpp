#include "protocols/channel/authenticator.hpp"
#include "protocols/channel/certificate.hpp"
#include "protocols/channel/proxy.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace {

using namespace cloister;
using namespace cloister::protocols::channel;

const base::PrivateKey& own_key() {
  static const auto made = fuzz::key(1);
  return made;
}
const AuthenticatorKeys keys{"SHA256", Bytes(32, 1), Bytes(32, 2)};
const RequestContext context{5};

const Bytes& genuine() {
  static const Bytes made = make_authenticator(keys, make_request(Prover::server, context), context,
                                               make_certificate(own_key()), Bytes(30, 9), own_key());
  return made;
}

}  // namespace

// What a peer or a proxy sends before it has proven anything, each through its own reader.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const View bytes(data, size);
  const Bytes request = make_request(Prover::server, context);
  if (auto proven = read_authenticator(keys, request, context, bytes, own_key().public_key());
      proven && !proven->evidence.empty()) {
    // The Finished covers every byte: only the seed itself may pass.
    if (!base::equal(bytes, genuine())) std::abort();
  }
  (void)parse_request(Prover::server, bytes);
  (void)parse_request(Prover::client, bytes);
  (void)unwrap_evidence(bytes);
  (void)read_certificate(bytes, "fuzz");
  (void)judge_connect_answer(base::text(bytes), {"host", 1, "proxy:2"});
  return 0;
}

std::vector<cloister::Bytes> cloister::fuzz::seeds() {
  return {genuine(),
          make_empty_authenticator(keys, make_request(Prover::server, context), context),
          make_request(Prover::server, context),
          make_request(Prover::client, context),
          wrap_evidence(Bytes(40, 3)),
          make_certificate(own_key(), Bytes(20, 4)),
          base::copy(base::view("HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n"))};
}

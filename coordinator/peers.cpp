#include "coordinator/peers.hpp"

#include "attest/judge.hpp"
#include "protocols/launch/checks.hpp"

namespace cloister::coordinator {

namespace launch = protocols::launch;

namespace {

/// The model owner's judgement of an enclave. The host data that its evidence must carry is what the compute owner's
/// grant says; the channel asks for the grant first (docs/formats.md, "Channel").
channel::EnclaveExpectation expectation(const attest::Charter& charter) {
  const attest::Policy& policy = *charter.policy(charter.manifest.model_owner().owner);
  auto host_data = std::make_shared<std::optional<Array<32>>>();
  channel::EnclaveExpectation out;
  out.charter = charter.digest;
  out.check_grant = [&charter, host_data](View grant, View record) -> Result<Bytes> {
    auto verified = launch::verify_grant(charter, grant, record, base::now());
    if (!verified) return verified.error();
    *host_data = verified->host_data;
    return base::copy(base::view(verified->platform));
  };
  out.tls_key = launch::tls_key;
  out.judge = [&charter, &policy, host_data](const attest::Claims& claims) {
    return attest::judge(&claims, attest::Study{.charter = charter, .at = base::now(), .host_data = *host_data},
                         policy);
  };
  return out;
}

}  // namespace

awaitable<channel::ConnectionPtr> NetworkPeers::launcher(const attest::Charter& charter, channel::Deadline deadline) {
  const attest::Party& compute = charter.manifest.compute_owner();
  channel::Endpoint to{compute.host, compute.port,
                       proxy_};  // named: GCC 12 destroys braced temporaries of a co_await twice
  co_return co_await channel::connect_pinned(to, tls_, compute.tls, deadline);
}

awaitable<channel::ConnectionPtr> NetworkPeers::enclave(const attest::Charter& charter, channel::Deadline deadline) {
  const channel::Endpoint to{charter.manifest.aggregator_host, charter.manifest.aggregator_port, proxy_};
  const channel::EnclaveExpectation expected = expectation(charter);
  auto connection = co_await channel::connect_enclave(to, tls_, expected, std::nullopt, deadline, log_);
  const auto& claims = connection->peer_claims();
  if (!claims) throw Exception(base::untrusted("aggregator", "the channel proved no claims"));  // deny by default
  if (claims->simulated) log_->set_simulated(true);
  co_return connection;
}

awaitable<void> NetworkPeers::attest_again(const attest::Charter& charter, channel::ConnectionPtr connection,
                                           channel::Deadline deadline) {
  const channel::EnclaveExpectation expected = expectation(charter);
  co_await channel::attest_again(*connection, expected, deadline);
}

}  // namespace cloister::coordinator

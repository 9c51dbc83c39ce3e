#include "aggregation/enclave/instance.hpp"

#include "attest/evidence.hpp"

namespace cloister::enclave {
Result<Instance> make_instance(Tee& tee, Time now) {
  const auto document = tee.launch_document();
  if (!document) return document.error();
  auto launch = protocols::launch::LaunchDocument::parse(*document);
  if (!launch) return launch.error();
  auto charter = attest::load_charter(launch->charter, "charter of the launch document", now);
  if (!charter) return charter.error();

  const auto tls = base::PrivateKey::generate();
  const auto receipt = base::PrivateKey::generate();
  const Bytes record =
      protocols::launch::Record::make(charter->digest, tls.public_key(), receipt.public_key(), launch->nonce)
          .serialize();
  auto evidence = tee.evidence(protocols::launch::instance_report_data(record));
  if (!evidence) return evidence.error();
  // Its own evidence says whether hardware stands behind this instance; that word then stands on every log line and
  // receipt.
  auto claims = attest::verify_evidence(*evidence, now);
  if (!claims) return claims.error();

  return Instance{std::make_shared<const attest::Charter>(std::move(*charter)),
                  std::move(*launch),
                  tls,
                  receipt,
                  record,
                  std::move(*evidence),
                  std::move(*claims)};
}

}  // namespace cloister::enclave

#include "coordinator/receipts.hpp"

#include "attest/evidence.hpp"
#include "attest/judge.hpp"
#include "protocols/launch/documents.hpp"

namespace cloister::coordinator {

namespace launch = protocols::launch;
namespace round = protocols::round;

namespace {

attest::Finding finding(bool met, const attest::Policy& policy, std::string requirement, std::string wanted,
                        std::string found, std::string remedy) {
  return {met, policy.owner_text(), std::move(requirement), std::move(wanted), std::move(found), std::move(remedy)};
}

}  // namespace

Result<base::PublicKey> receipt_key(const attest::Charter& charter, View record) {
  auto parsed = launch::Record::parse(record);
  if (!parsed) return parsed.error();
  if (parsed->charter != charter.digest)
    return base::untrusted("instance record", "wanted one of charter " + base::digest_text(charter.digest) +
                                                  "; found one of " + base::digest_text(parsed->charter));
  return parsed->receipt;
}

attest::Decision judge_instance(const attest::Charter& charter, View record, View evidence, Time at) {
  const attest::Policy& policy = *charter.policy(charter.manifest.model_owner().owner);
  attest::Decision out;
  const auto key = receipt_key(charter, record);
  out.add(finding(key.has_value(), policy, "aggregator.record", "the record of an instance of this charter",
                  key ? "one" : key.error().text(), "ask the coordinator for this run's own record"));
  const auto claims = attest::verify_evidence(evidence, at);
  out.add(finding(claims.has_value(), policy, "aggregator.evidence", "instance evidence that verifies",
                  claims ? "evidence of kind " + claims->kind : claims.error().text(),
                  "keep the evidence with the receipts"));
  if (!claims) return out;
  // docs/formats.md, "Instance record": report data = SHA-512(field("cloister instance 1") || field(record)).
  const bool bound = claims->report_data == launch::instance_report_data(record);
  out.add(finding(bound, policy, "aggregator.report_data", "evidence bound to the record that names the receipt key",
                  bound ? "bound" : "evidence of something else", "keep the evidence of the instance that signed"));
  out.add(attest::judge(&*claims, attest::Study{.charter = charter, .at = at}, policy));
  return out;
}

Result<Verified> verify_run(const attest::Charter& charter, View record, View evidence,
                            std::span<const Receipt> receipts, Time at) {
  Verified out;
  out.instance = judge_instance(charter, record, evidence, at);
  if (!out.instance.allowed()) return base::denied("instance", out.instance.explain());
  std::vector<round::CommittedReceipt> chain;
  for (const Receipt& receipt : receipts) chain.push_back({receipt.receipt, receipt.acknowledgements});
  auto verified = round::verify_chain(chain, charter, receipt_key(charter, record).value(), base::sha256(evidence));
  if (!verified) return verified.error();
  out.receipts = std::move(*verified);
  return out;
}

}  // namespace cloister::coordinator

#pragma once
// What anybody can check of a run afterwards, offline: that its receipts are a chain of an allowed enclave, committed
// by their witnesses. The coordinator checks them as they come, `cloister run receipts --verify` on the submitter's own
// machine. Pure.

#include <span>
#include <vector>

#include "attest/charter.hpp"
#include "attest/claims.hpp"
#include "coordinator/store.hpp"
#include "protocols/round/receipt.hpp"

namespace cloister::coordinator {

/// Is `evidence` the instance evidence of an enclave with this record, of this charter, that the model owner's policy
/// allows? Evidence that does not parse or verify is one refusal. `at`: when the instance lived.
attest::Decision judge_instance(const attest::Charter& charter, View record, View evidence, Time at);

/// The receipt key that a record of this charter names. Errors: malformed, untrusted (another charter's record).
Result<base::PublicKey> receipt_key(const attest::Charter& charter, View record);

/// A whole run: the instance, every link and every quorum.
struct Verified {
  attest::Decision instance;
  std::vector<protocols::round::SignedReceipt> receipts;
};
Result<Verified> verify_run(const attest::Charter& charter, View record, View evidence,
                            std::span<const Receipt> receipts, Time at);

}  // namespace cloister::coordinator

#pragma once
// One start of the aggregator: which charter it serves, which keys it made, what proves them (docs/how-it-works.md).

#include <memory>

#include "aggregation/enclave/tee.hpp"
#include "attest/charter.hpp"
#include "attest/claims.hpp"
#include "protocols/launch/documents.hpp"

namespace cloister::enclave {

/// Immutable once made. The private keys were born here and die here.
struct Instance {
  std::shared_ptr<const attest::Charter> charter;
  protocols::launch::LaunchDocument launch;
  base::PrivateKey tls;
  base::PrivateKey receipt;
  Bytes record;    ///< serialized protocols::launch::Record
  Bytes evidence;  ///< instance evidence: its report data binds the record; also in the certificate, as a pre-check
  attest::Claims
      claims;  ///< what the instance evidence says, for the requirements that the enclave itself holds the owners to
};

/// Reads the launch document, loads its charter as founded (`now` is the host's clock: it decides liveness only), makes
/// the keys and asks the TEE for evidence. Errors: the document's, the charter's, the TEE's.
Result<Instance> make_instance(Tee& tee, Time now);

}  // namespace cloister::enclave

#pragma once
// The TEE as the aggregator sees it: a launch document and evidence. `main` gives the one that fd 3 speaks to; tests
// give their own.

#include "base/crypto.hpp"

namespace cloister::enclave {

/// Both calls block for as long as the TEE takes; called from one thread.
class Tee {
 public:
  virtual ~Tee() = default;

  /// What this instance was started with (docs/formats.md, "Launch document"), as bytes: the host data is a digest over
  /// them.
  virtual Result<Bytes> launch_document() = 0;
  /// Serialized attest::Evidence that carries `report_data`.
  virtual Result<Bytes> evidence(const Array<64>& report_data) = 0;
  /// Is the TEE gone? Never blocks.
  virtual bool ended() const = 0;
};

}  // namespace cloister::enclave

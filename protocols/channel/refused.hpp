#pragma once
// The exception of a peer that was refused, or that refused us, with every reason.

#include <utility>

#include "attest/decision.hpp"
#include "base/result.hpp"

namespace cloister::protocols::channel {

/// error().kind is denied, or unavailable when another try may succeed (no grant yet, full, restarting).
class Refused : public Exception {
 public:
  Refused(Error error, attest::Decision decision, bool by_peer, bool retry = false)
      : Exception(std::move(error)), decision_(std::move(decision)), by_peer_(by_peer), retry_(retry) {}

  /// The findings, as far as their owner shows them; a peer's are its own words.
  const attest::Decision& decision() const { return decision_; }
  bool by_peer() const { return by_peer_; }  ///< the peer refused us; otherwise this side's owner refused the peer
  bool retry() const { return retry_; }

 private:
  attest::Decision decision_;
  bool by_peer_;
  bool retry_;
};

}  // namespace cloister::protocols::channel

#pragma once
// The guest's side of the socket pair that its simulated TEE made before it started it (docs/formats.md, "Guest
// protocol").

#include <memory>

#include "attest/evidence.hpp"

namespace cloister::attest::simulated {

inline constexpr int guest_descriptor = 3;
inline constexpr std::size_t guest_message_cap = 72 << 20;  ///< of one message; a launch document holds a charter

/// Thread-safe: requests queue. Copies share the descriptor, which is closed with the last of them. Calls block until
/// the TEE answers, at most ten seconds.
class Guest {
 public:
  /// Takes the descriptor over, hides it from children (close-on-exec) and this process from other processes of its
  /// user (PR_SET_DUMPABLE). Error unavailable: it is no stream socket, so nobody started this process in a simulated
  /// TEE.
  static Result<Guest> open(int fd = guest_descriptor);

  /// The launch document that this guest was started with; may be empty.
  Result<Bytes> document() const;

  /// Serialized Evidence over `report_data`. `wanted_measurement`: what this guest would like to be; the TEE states
  /// what it measured all the same.
  Result<Bytes> evidence(const Array<64>& report_data, View wanted_measurement = {}) const;
  Attester attester(Bytes wanted_measurement = {}) const;

 private:
  struct Link;
  explicit Guest(std::shared_ptr<Link> link) : link_(std::move(link)) {}
  std::shared_ptr<Link> link_;
};

}  // namespace cloister::attest::simulated

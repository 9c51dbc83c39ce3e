#pragma once
// What the simulated TEE answers its guest. No I/O.

#include "attest/simulated/platform.hpp"

namespace cloister::attest::simulated::tee {

/// What was started: settled before the guest ran its first instruction.
struct Started {
  Measurement measurement{};
  Array<32> host_data{};
  Bytes document;
};

/// The answer to one request, field("ok") || field(value) or field("error") || field(reason). The evidence states
/// `started.measurement`, whatever the guest wants to be.
Bytes answer(const Platform& platform, const Started& started, View request, Time at);

}  // namespace cloister::attest::simulated::tee

#pragma once
// The parts that a node loads, each with its own check, so that `doctor` can go through them one by one.

#include "attest/charter.hpp"
#include "participant/config.hpp"

namespace cloister::participant {

/// Founded and valid at `at`, with `config.owner` as a data owner.
Result<attest::Charter> load_own_charter(const Config& config, Time at);
/// The policy's file says, byte for byte, what the charter holds.
Result<void> check_own_policy(const Config& config, const attest::Charter& charter);
/// The key file's public key is the one that the charter names.
Result<base::PrivateKey> load_own_key(const std::string& path, const std::optional<base::PublicKey>& in_charter,
                                      std::string_view role);
/// Digest of the installed trainer; untrusted when it is not the charter's.
Result<base::Sha256> load_trainer(const Config& config, const attest::Charter& charter);

}  // namespace cloister::participant

#pragma once
// What this hospital's witness key has agreed to: `cloister charter sign --witness` writes it beside the key before the
// signature exists, and the running node reads it. From then on the witness serves no new run under the old charter.

#include <optional>
#include <string>

#include "base/crypto.hpp"

namespace cloister::participant {

/// "<key file>.successions"
std::string successions_path(const std::string& witness_key);

/// Durable on return. The same again does nothing; a second successor of one charter is Error::denied.
Result<void> remember_succession(const std::string& witness_key, const base::Sha256& charter,
                                 const base::Sha256& successor);

/// The successor of `charter` that the key has signed, if any. Error: the file is there and is none of this version.
Result<std::optional<base::Sha256>> agreed_successor(const std::string& witness_key, const base::Sha256& charter);

}  // namespace cloister::participant

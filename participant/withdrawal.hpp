#pragma once
// This hospital's withdrawal from a study, as a file in the ledger's folder that `cloister participant withdraw` writes
// and a running node notices.

#include <optional>
#include <string>

#include "protocols/round/receipt.hpp"

namespace cloister::participant {

/// A withdrawal and the hospital's own note; the reason stays here, only `statement` is sent.
struct StoredWithdrawal {
  Bytes statement;  ///< protocols::round::Withdrawal, serialized
  std::string reason;
};

/// "<first 16 hex digits of the charter's digest>.withdrawal"
std::string withdrawal_file_name(const base::Sha256& charter);

/// Signs and stores one; its serial is one more than that of any before (also one that was taken back).
Result<protocols::round::Withdrawal> withdraw(const std::string& folder, const std::string& owner,
                                              const attest::Charter& charter, const base::PrivateKey& witness_key,
                                              const std::string& reason, Time at);

/// Removes it. An instance that has seen it goes on without this hospital; false: there was none.
Result<bool> take_back(const std::string& folder, const base::Sha256& charter);

/// The one in force, if any. Error: it is there and does not hold under the charter.
Result<std::optional<StoredWithdrawal>> load_withdrawal(const std::string& folder, const attest::Charter& charter);

}  // namespace cloister::participant

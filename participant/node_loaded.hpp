#pragma once
// What a node loads before it does anything, checked against each other.

#include "participant/node.hpp"

namespace cloister::participant {

struct Node::Loaded {
  std::shared_ptr<const Clock> clock;
  std::shared_ptr<const attest::Charter> charter;
  base::PrivateKey tls, witness;
  std::unique_ptr<Ledger> ledger;
  UpdateStore updates;
  ModelFile model;
  RunFiles files;
  Formats formats;
  base::Sha256 trainer{};
  std::optional<StoredWithdrawal> withdrawal;

  static Result<Loaded> load(const Config& config, std::shared_ptr<const Clock> clock, base::Log& log);
};

}  // namespace cloister::participant

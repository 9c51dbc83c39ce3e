#pragma once
// Updates on their way out, in the node's folder: stored before their digest is announced, so that a cut connection or
// a restart sends the same bytes again and never computes a second answer; removed after the round's commit. One file
// per round.

#include <string>
#include <vector>

#include "participant/ledger.hpp"

namespace cloister::participant {

class UpdateStore {
 public:
  /// Makes `folder` (mode 0700) when missing.
  static Result<UpdateStore> open(const std::string& folder);

  /// Durable on return (fsync of file and folder). Replaces what was there for the round.
  Result<StoredUpdate> put(const RoundId& id, View update, std::uint64_t weight) const;
  /// The bytes that `recorded` describes. Errors: unavailable (lost: counts as a drop), untrusted (other bytes than
  /// were recorded).
  Result<Bytes> get(const RoundId& id, const StoredUpdate& recorded) const;
  /// After commit or a run's end. A missing file is no error.
  void remove(const RoundId& id) const;
  void remove_run(const RunId& id) const;

 private:
  explicit UpdateStore(std::string folder) : folder_(std::move(folder)) {}
  std::string path(const RoundId& id) const;
  std::string folder_;
};

}  // namespace cloister::participant

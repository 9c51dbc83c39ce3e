#pragma once
// Updates on their way out, in the node's folder: stored before their digest is announced, so that a cut connection or
// a restart sends the same bytes again and never computes a second answer; one file per round, put aside for the next
// after the round's commit. The record of an update is durable (ledger.hpp); its bytes are with the operating system
// only: the node's end takes nothing, and what a power cut takes is found by its digest and counts as a drop.

#include <map>
#include <string>
#include <vector>

#include "participant/ledger.hpp"

namespace cloister::participant {

/// A stored update, open for reading. Moves only.
class StoredBytes {
 public:
  explicit StoredBytes(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  StoredBytes(StoredBytes&& other) noexcept;
  StoredBytes& operator=(StoredBytes&&) = delete;
  ~StoredBytes();
  /// Fills `into` from `offset` on. Error unavailable: the file is shorter or cannot be read.
  Result<void> read(std::uint64_t offset, std::span<std::uint8_t> into) const;

 private:
  int fd_ = -1;
  std::string path_;
};

/// Not thread-safe; `put` may run on another thread than the rest, one call at a time.
class UpdateStore {
 public:
  /// Makes `folder` (mode 0700) when missing.
  static Result<UpdateStore> open(const std::string& folder);

  /// Copies `update` into the round's file and digests the very bytes that it writes, in one pass: whoever shares the
  /// memory of `update` may change it meanwhile or later and changes nothing of what is stored. With the operating
  /// system on return, not fsynced. Replaces what was there for the round.
  Result<StoredUpdate> put(const RoundId& id, View update, std::uint64_t weight);
  /// The bytes that `recorded` describes. What another process has put is digested first. Errors: unavailable (lost:
  /// counts as a drop), untrusted (other bytes than were recorded).
  Result<StoredBytes> get(const RoundId& id, const StoredUpdate& recorded);
  /// After commit or a run's end. A missing file is no error.
  void remove(const RoundId& id);
  void remove_run(const RunId& id);

 private:
  explicit UpdateStore(std::string folder) : folder_(std::move(folder)) {}
  std::string path(const RoundId& id) const;
  std::string spare() const;
  std::string folder_;
  std::map<std::string, base::Sha256> checked_;  ///< files whose bytes this process has digested
};

}  // namespace cloister::participant

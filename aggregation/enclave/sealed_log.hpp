#pragma once
// Records of any length, one after the other, outside the enclave's memory: what a run leaves behind grows with its
// rounds, and what is here costs some 16 bytes of memory for each. In a SealedFile, or in memory where none can be
// made.

#include <algorithm>
#include <memory>
#include <vector>

#include "aggregation/enclave/sealed_file.hpp"
#include "protocols/round/aggregator.hpp"

namespace cloister::enclave {

/// One owner, one thread at a time.
class SealedLog {
 public:
  SealedLog();
  std::size_t size() const { return first_.size(); }
  std::uint64_t length(std::size_t record) const { return length_[record]; }
  /// Throws when the sealed file cannot take it any more.
  void append(View record);
  Result<Bytes> at(std::size_t record) const;
  /// A piece of the record from `offset` on, which must be a multiple of `piece`: at least one byte, at most `piece`.
  Result<Bytes> piece_at(std::size_t record, std::uint64_t offset) const;

  static constexpr std::size_t piece = 256 << 10;

 private:
  std::optional<SealedFile> file_;
  std::vector<Bytes> plain_;           ///< blocks, without a file
  std::vector<std::uint64_t> length_;  ///< of each record
  std::vector<std::uint32_t> first_;   ///< its first block
  std::uint32_t blocks_ = 0;
};

/// A run's committed rounds.
class SealedHistory final : public protocols::round::History {
 public:
  void append(View round) override { log_.append(round); }
  Result<Bytes> at(std::uint32_t index) const override { return log_.at(index); }

 private:
  SealedLog log_;
};

}  // namespace cloister::enclave

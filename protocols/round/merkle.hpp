#pragma once
// Merkle trees as RFC 9162 section 2.1 builds them: the root stands for all leaves, a path proves one of them and says
// nothing about the others. Pure functions, thread-safe.

#include <cstdint>
#include <span>
#include <vector>

#include "base/crypto.hpp"

namespace cloister::protocols::round {

/// What stands under a receipt's root for one contributor: SHA-256(random || update digest). The random bytes go only
/// to their participant, so that nobody else can try out what it sent.
base::Sha256 leaf_entry(const Array<32>& random, const base::Sha256& update);

/// Root over the entries in order (RFC 9162 section 2.1.1: leaves are hashed with 0x00, nodes with 0x01 in front).
/// No entries: the hash of the empty string.
base::Sha256 merkle_root(std::span<const base::Sha256> entries);

/// All of a tree's hashes, so that each of n paths costs log n. 64 bytes an entry.
class MerkleTree {
 public:
  explicit MerkleTree(std::span<const base::Sha256> entries);
  const base::Sha256& root() const { return levels_.back().front(); }
  /// As merkle_path. Asserts index < the number of entries.
  std::vector<base::Sha256> path(std::size_t index) const;

 private:
  std::vector<std::vector<base::Sha256>> levels_;  ///< leaves first; a node without a sibling goes up as it is
  std::size_t entries_ = 0;
};

/// The path of entry `index`, from the leaf's sibling to the root's children (RFC 9162 section 2.1.3.1).
/// Asserts index < entries.size().
std::vector<base::Sha256> merkle_path(std::span<const base::Sha256> entries, std::size_t index);

/// Does `path` lead from `entry` at `index` of `count` to `root` (RFC 9162 section 2.1.3.2)?
bool merkle_verifies(const base::Sha256& entry, std::uint64_t index, std::uint64_t count,
                     std::span<const base::Sha256> path, const base::Sha256& root);

}  // namespace cloister::protocols::round

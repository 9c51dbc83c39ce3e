#include "protocols/round/merkle.hpp"

#include <bit>
#include <cstdlib>

#include "base/encoding.hpp"

namespace cloister::protocols::round {

using base::Sha256;

namespace {

Sha256 leaf_hash(const Sha256& entry) {
  return base::sha256(base::Writer().u8(0x00).raw(entry).bytes());
}

Sha256 node_hash(const Sha256& left, const Sha256& right) {
  return base::sha256(base::Writer().u8(0x01).raw(left).raw(right).bytes());
}

}  // namespace

Sha256 leaf_entry(const Array<32>& random, const Sha256& update) {
  return base::sha256(base::Writer().raw(random).raw(update).bytes());
}

Sha256 merkle_root(std::span<const Sha256> entries) {
  if (entries.empty()) return base::sha256({});
  if (entries.size() == 1) return leaf_hash(entries[0]);
  const std::size_t k = std::bit_floor(entries.size() - 1);  // the largest power of two smaller than n
  return node_hash(merkle_root(entries.first(k)), merkle_root(entries.subspan(k)));
}

std::vector<Sha256> merkle_path(std::span<const Sha256> entries, std::size_t index) {
  if (index >= entries.size()) std::abort();
  if (entries.size() == 1) return {};
  const std::size_t k = std::bit_floor(entries.size() - 1);
  std::vector<Sha256> path =
      index < k ? merkle_path(entries.first(k), index) : merkle_path(entries.subspan(k), index - k);
  path.push_back(merkle_root(index < k ? entries.subspan(k) : entries.first(k)));
  return path;
}

MerkleTree::MerkleTree(std::span<const Sha256> entries) : entries_(entries.size()) {
  if (entries.empty()) {
    levels_.push_back({merkle_root({})});
    return;
  }
  std::vector<Sha256>& leaves = levels_.emplace_back();
  for (const Sha256& entry : entries) leaves.push_back(leaf_hash(entry));
  while (levels_.back().size() > 1) {
    const std::vector<Sha256>& below = levels_.back();
    std::vector<Sha256> above;
    for (std::size_t i = 0; i + 1 < below.size(); i += 2) above.push_back(node_hash(below[i], below[i + 1]));
    if (below.size() % 2 == 1) above.push_back(below.back());
    levels_.push_back(std::move(above));
  }
}

std::vector<Sha256> MerkleTree::path(std::size_t index) const {
  if (index >= entries_) std::abort();
  std::vector<Sha256> out;
  for (std::size_t level = 0; level + 1 < levels_.size(); ++level, index /= 2)
    if (const std::size_t sibling = index ^ 1; sibling < levels_[level].size()) out.push_back(levels_[level][sibling]);
  return out;
}

bool merkle_verifies(const Sha256& entry, std::uint64_t index, std::uint64_t count, std::span<const Sha256> path,
                     const Sha256& root) {
  if (index >= count) return false;  // RFC 9162 section 2.1.3.2, step 1
  std::uint64_t fn = index, sn = count - 1;
  Sha256 r = leaf_hash(entry);
  for (const Sha256& p : path) {
    if (sn == 0) return false;  // "If sn is 0, then stop the iteration and fail the proof verification."
    if ((fn & 1) != 0 || fn == sn) {
      r = node_hash(p, r);
      while ((fn & 1) == 0 && fn != 0) fn >>= 1, sn >>= 1;
    } else {
      r = node_hash(r, p);
    }
    fn >>= 1, sn >>= 1;
  }
  return sn == 0 && r == root;  // step 5
}

}  // namespace cloister::protocols::round

#pragma once
// What became of every data owner in a round, as a receipt says it: compact however many there are, because most of
// them contribute and those that do not share their reasons.

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/encoding.hpp"

namespace cloister::protocols::round {

/// What became of a data owner in a round. The numbers are those of the encoding.
enum class MemberState : std::uint8_t {
  contributed = 1,
  absent = 2,     ///< in the cohort, did not answer the offer
  declined = 3,   ///< its gate or its trainer said no
  refused = 4,    ///< its update broke a bound
  late = 5,       ///< accepted, but its update was not whole when the round closed
  withdrawn = 6,  ///< not in the cohort: its signed withdrawal is in force
};
std::string_view name(MemberState state);

struct ReceiptMember {
  MemberState state = MemberState::absent;
  std::string reason;  ///< empty when it contributed; names a check, never a value
};

/// The charter's data owners by their place in the manifest, from 0. Whoever is not listed contributed. Not
/// thread-safe while it is changed.
class Members {
 public:
  using Places = std::vector<std::uint32_t>;  ///< ascending

  explicit Members(std::uint32_t owners = 0) : owners_(owners) {}

  std::uint32_t size() const { return owners_; }
  std::uint32_t contributors() const;
  /// How many owners before `place` contributed: a contributor's place among the leaves of the Merkle tree.
  std::uint32_t contributors_before(std::uint32_t place) const;
  /// Asserts place < size().
  ReceiptMember operator[](std::uint32_t place) const;
  /// Asserts place < size(). A contributor has no reason. Cheap in ascending order of places.
  void set(std::uint32_t place, MemberState state, std::string reason = {});
  Places withdrawn() const;
  /// Those who did not contribute, by state and reason.
  const std::map<std::pair<MemberState, std::string>, Places>& others() const { return others_; }

  void write(base::Writer& w) const;
  static Members read(base::Reader& r);

  /// Of one round: with more, a receipt would not stay small however many owners there are.
  static constexpr std::size_t groups_at_most = 64;

  bool operator==(const Members&) const = default;

 private:
  std::uint32_t owners_ = 0;
  std::map<std::pair<MemberState, std::string>, Places> others_;
};

}  // namespace cloister::protocols::round

#pragma once
// What no user of the machines may do and an exhaustive search must: copy a machine in the middle of a round, and tell
// whether two machines are in the same state.

#include "protocols/round/aggregator.hpp"
#include "protocols/round/participant.hpp"

namespace cloister::protocols::round {

/// What an aggregator that will be copied is made with: its copies go on from what it has, each for itself.
class CopiedHistory : public History {
 public:
  void append(View round) override { rounds_.push_back(base::copy(round)); }
  Result<Bytes> at(std::uint32_t index) const override { return rounds_.at(index); }

 private:
  std::vector<Bytes> rounds_;
};

struct Inspection {
  static Aggregator copy(const Aggregator& machine);
  static Participant copy(const Participant& machine);
  /// Everything that a machine remembers, but what it was made with: equal bytes, equal behaviour from here on.
  static Bytes state(const Aggregator& machine);
  static Bytes state(const Participant& machine);
};

}  // namespace cloister::protocols::round

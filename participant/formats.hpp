#pragma once
// What this hospital's update of each task must look like, from the charter's manifest alone; and the minimum counts,
// applied by the node itself to whatever its trainer made.

#include "aggregation/grid.hpp"
#include "attest/manifest.hpp"
#include "attest/policy.hpp"
#include "protocols/round/round.hpp"

namespace cloister::participant {

using Formats =
    std::map<std::string, aggregation::UpdateFormat, std::less<>>;  ///< by task, of those that the manifest has

/// Error unsupported or malformed: this build cannot do what the manifest asks.
Result<Formats> update_formats(const attest::Manifest& manifest);

protocols::round::Shapes shapes(const Formats& formats);

/// The records that a published cell of this task needs: the larger of what the manifest and this owner's policy say; 0
/// for train.
std::uint64_t minimum_count(const std::string& task, const attest::Manifest& manifest,
                            const attest::DataPolicy& policy);

/// Zeroes every statistic, or the whole evaluation, that rests on fewer than `minimum` records, and says absent for it.
/// A trainer that already did gives the same bytes back. Error malformed: not the length that the format has.
Result<Bytes> apply_minimum_count(const std::string& task, const aggregation::UpdateFormat& format,
                                  std::uint64_t minimum, View update);

}  // namespace cloister::participant

#pragma once
// Many participants in one process: each a round machine and an attested connection of its own. What a hospital keeps
// on its disk is kept in memory here, and its trainer is a constant.

#include <cstdint>

#include "bench/scale_study.hpp"

namespace cloister::bench {

/// How the connections of a process come and go while a run is under way.
struct Chaos {
  std::uint64_t seed = 0;
  double per_second = 0;  ///< events of this process: a cut, or a cut and a restart from the stored record
};

/// Of all participants of one process.
struct ClientFigures {
  std::uint64_t bytes_in = 0, bytes_out = 0;  ///< since all were connected
  std::uint64_t ended_done = 0, cuts = 0, restarts = 0;
  std::uint64_t late = 0;  ///< updates that came after their round had closed at its quorum
};

/// Serves data owners first, first + step, … on one thread until their run has ended, writes its ClientFigures to
/// `figures` and ends the process. Writes one byte to `ready` once all of them are connected. Throws what a participant
/// could not live with.
[[noreturn]] void serve_participants(const ScaleStudy& study, std::uint16_t port, std::size_t first, std::size_t step,
                                     int ready, int figures, const Chaos& chaos);

}  // namespace cloister::bench

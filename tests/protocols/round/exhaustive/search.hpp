#pragma once
// Breadth first through every state that a world can reach, each once: the first violation comes with a shortest way to
// it. States are told apart by 128 bits of hash.

#include <string>
#include <vector>

#include "tests/protocols/round/exhaustive/world.hpp"

namespace cloister::tests::exhaustive {

struct Bounds {
  std::size_t states = 0;  ///< stop after so many, 0: never
  double seconds = 0;      ///< or after so long
  bool cycles = true;      ///< keep the edges, and look for executions without an end
};

struct Found {
  std::size_t states = 0, transitions = 0, ends = 0, depth = 0;
  std::size_t machine_states = 0, computed = 0;  ///< of single machines, and their transitions
  bool complete = false;                         ///< every reachable state was seen
  double seconds = 0;
  std::string broken;              ///< the first violation, empty: none
  std::vector<std::string> trace;  ///< the way to it
};

Found search(std::size_t sites, std::uint32_t rounds, const Options& options, const Bounds& bounds = {});

}  // namespace cloister::tests::exhaustive

#pragma once
// What a fuzz target gives: the function that libFuzzer calls, and well-formed inputs to start from, made by our own
// writers. Under ctest replay.cpp feeds each target its seeds and thousands of their mutations; with -DCLOISTER_FUZZ=ON
// and clang the same files become libFuzzer programs.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/bytes.hpp"

namespace cloister::fuzz {

std::vector<Bytes> seeds();

}  // namespace cloister::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

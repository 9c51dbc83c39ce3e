#pragma once
// What a simulated TEE measures: the program's bytes with its fixed arguments and an empty environment.

#include <string>
#include <vector>

#include "base/bytes.hpp"
#include "base/crypto.hpp"

namespace cloister::attest::simulated {

using Measurement = base::Sha384;

inline constexpr std::size_t guest_cap = std::size_t{512} << 20;  ///< bytes of a program that is measured

/// SHA-384(field("cloister simulated measurement 1") || raw SHA-384(program) || u32 count || a field for each
/// argument).
Measurement measure(View program, const std::vector<std::string>& arguments);

/// The same of a file. Errors: unavailable, malformed (larger than guest_cap).
Result<Measurement> measure_file(const std::string& path, const std::vector<std::string>& arguments);

}  // namespace cloister::attest::simulated

#pragma once
// What a fuzz target gives: the function that libFuzzer calls, and well-formed inputs to start from, made by our own
// writers. Under ctest replay.cpp feeds each target its seeds and thousands of their mutations; with -DCLOISTER_FUZZ=ON
// and clang the same files become libFuzzer programs.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.hpp"
#include "base/crypto.hpp"

namespace cloister::fuzz {

std::vector<Bytes> seeds();

/// A key that is the same in every process: what one run of a target kept means the same to the next.
inline base::PrivateKey key(std::uint8_t number) {
  Bytes der = {0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20};
  der.insert(der.end(), 32, number);  // PKCS #8 (RFC 8410 section 7)
  const std::string pem = "-----BEGIN PRIVATE KEY-----\n" + base::base64(der) + "\n-----END PRIVATE KEY-----\n";
  return base::PrivateKey::from_pem(pem, "fuzz key").value();
}

}  // namespace cloister::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

// Writes a target's seeds as files before libFuzzer starts, where the environment asks for it (scripts/fuzz): the seeds
// live in code, a corpus of binary files is made from them.

#include <cstdio>
#include <cstdlib>
#include <string>

#include "tests/fuzz/fuzz.hpp"

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  const char* folder = std::getenv("CLOISTER_FUZZ_SEEDS");
  if (folder == nullptr) return 0;
  std::size_t n = 0;
  for (const cloister::Bytes& seed : cloister::fuzz::seeds()) {
    const std::string path = std::string(folder) + "/seed-" + std::to_string(n++);
    std::FILE* file = std::fopen(path.c_str(), "wb");
    if (file == nullptr || std::fwrite(seed.data(), 1, seed.size(), file) != seed.size() || std::fclose(file) != 0)
      std::exit(1);
  }
  std::exit(0);
}

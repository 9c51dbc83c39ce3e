// The replaying main: seeds, every truncation, bit flips, splices and length-field edits of them, and the files given
// as arguments (an input that libFuzzer once found). Deterministic; prints its seed. A crash, an abort or a sanitizer
// report is the failure.

#include <cstdio>
#include <cstdlib>
#include <random>

#include "base/file.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace {

using cloister::Bytes;

void feed(const Bytes& input) {
  // An exact allocation, so that AddressSanitizer sees a read one byte too far.
  Bytes exact(input);
  exact.shrink_to_fit();
  LLVMFuzzerTestOneInput(exact.data(), exact.size());
}

Bytes mutated(const std::vector<Bytes>& seeds, std::mt19937_64& rng) {
  Bytes out = seeds[rng() % seeds.size()];
  for (std::uint64_t n = 1 + rng() % 4; n > 0 && !out.empty(); --n) {
    const std::size_t at = rng() % out.size();
    switch (rng() % 6) {
      case 0:
        out[at] ^= static_cast<std::uint8_t>(1u << rng() % 8);
        break;
      case 1:
        out[at] = static_cast<std::uint8_t>(rng());
        break;
      case 2:
        out.resize(at);
        break;
      case 3:
        out.insert(out.begin() + static_cast<std::ptrdiff_t>(at), static_cast<std::uint8_t>(rng()));
        break;
      case 4:
        for (std::size_t k = at; k < std::min(at + 4, out.size()); ++k) out[k] = rng() % 2 ? 0xff : 0;
        break;
      case 5: {
        const Bytes& other = seeds[rng() % seeds.size()];
        if (other.empty()) break;
        const std::size_t from = rng() % other.size();
        out.insert(out.begin() + static_cast<std::ptrdiff_t>(at), other.begin() + static_cast<std::ptrdiff_t>(from),
                   other.begin() + static_cast<std::ptrdiff_t>(std::min(from + 64, other.size())));
      }
    }
  }
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    auto bytes = cloister::base::read_file(argv[i], 64 << 20);
    if (!bytes) return std::fprintf(stderr, "%s\n", bytes.error().text().c_str()), 1;
    feed(*bytes);
  }
  if (argc > 1) return 0;

  const std::vector<Bytes> seeds = cloister::fuzz::seeds();
  if (seeds.empty()) return std::fprintf(stderr, "no seeds\n"), 1;
  std::size_t fed = 0;
  feed({});
  for (const Bytes& seed : seeds) {
    feed(seed);
    const std::size_t step = std::max<std::size_t>(1, seed.size() / 400);
    for (std::size_t n = 0; n < seed.size(); n += step, ++fed)
      feed(Bytes(seed.begin(), seed.begin() + static_cast<std::ptrdiff_t>(n)));
  }
  constexpr std::uint64_t random_seed = 20261201;
  std::mt19937_64 rng(random_seed);
  for (int i = 0; i < 4000; ++i, ++fed) feed(mutated(seeds, rng));
  std::printf("%zu inputs from %zu seeds, random seed %llu\n", fed, seeds.size(),
              static_cast<unsigned long long>(random_seed));
  return 0;
}

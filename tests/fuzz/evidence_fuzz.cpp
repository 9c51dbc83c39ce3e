#include "attest/evidence.hpp"
#include "attest/simulated/platform.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace {

constexpr cloister::Time made{std::chrono::seconds(1'800'000'000)};

const cloister::Bytes& genuine() {
  using namespace cloister;
  static const Bytes evidence = attest::simulated::Platform(fuzz::key(1), {}).attest({}, {}, {}, made);
  return evidence;
}

}  // namespace

// Evidence of any kind: only what was made verifies.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace cloister;
  auto claims = attest::verify_evidence(View(data, size), made);
  if (claims && !base::equal(genuine(), View(data, size))) std::abort();
  if (!claims && claims.error().what.empty()) std::abort();
  return 0;
}

std::vector<cloister::Bytes> cloister::fuzz::seeds() {
  return {genuine()};
}

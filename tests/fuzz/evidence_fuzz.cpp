#include "attest/evidence.hpp"
#include "attest/simulated/platform.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace {

const cloister::Bytes& genuine() {
  using namespace cloister;
  static const Bytes evidence =
      attest::simulated::Platform(base::PrivateKey::generate(), {}).attest({}, {}, {}, base::now());
  return evidence;
}

}  // namespace

// Evidence of any kind: only what was made verifies.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace cloister;
  auto claims = attest::verify_evidence(View(data, size), base::now());
  if (claims && !base::equal(genuine(), View(data, size))) std::abort();
  if (!claims && claims.error().what.empty()) std::abort();
  return 0;
}

std::vector<cloister::Bytes> cloister::fuzz::seeds() {
  return {genuine()};
}

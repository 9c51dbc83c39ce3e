#include "attest/manifest.hpp"
#include "tests/fuzz/fuzz.hpp"
#include "tests/support/study.hpp"

// Policies and manifests: what an owner receives from another owner before anybody signed anything.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace cloister;
  const std::string text = base::text(View(data, size));
  if (auto policy = attest::parse_policy(text, "fuzz.policy.toml"); !policy && policy.error().what.empty())
    std::abort();
  if (auto manifest = attest::parse_manifest(text, "fuzz.manifest.toml"); !manifest && manifest.error().what.empty())
    std::abort();
  return 0;
}

std::vector<cloister::Bytes> cloister::fuzz::seeds() {
  const tests::Study study;
  std::vector<Bytes> out{base::copy(base::view(study.manifest))};
  for (const auto& [file, text] : study.policies) out.push_back(base::copy(base::view(text)));
  return out;
}

#include <gmock/gmock.h>

#include "base/file.hpp"
#include "tests/aggregation/enclave/elf.hpp"

namespace cloister::tests {
namespace {

// Small trusted base (docs/threat-model.md): the aggregator links libc, libstdc++, OpenSSL, Protobuf, fmt and the evidence kinds
// it was built for. Sanitizer builds add their own run-time library.
const std::vector<std::string> allowed = {"ld-linux-x86-64.so",
                                          "ld-linux-aarch64.so",
                                          "libc.so",
                                          "libm.so",
                                          "libgcc_s.so",
                                          "libstdc++.so",
                                          "libssl.so",
                                          "libcrypto.so",
                                          "libprotobuf-lite.so",
                                          "libfmt.so"
#ifdef CLOISTER_SANITIZED
                                          ,
                                          "libasan.so",
                                          "libubsan.so",
                                          "libtsan.so"
#endif
};

Dynamic aggregator() {
  const auto file = base::read_file(CLOISTER_BINARY_DIR "/bin/cloister-aggregator", 256 << 20);
  if (!file) throw std::runtime_error(file.error().text());
  return dynamic_of(*file);
}

TEST(LinkBudget, TheAggregatorLinksOnlyItsSmallTrustedBase) {
  const Dynamic d = aggregator();
  EXPECT_THAT(d.needed, testing::Contains(testing::StartsWith("libcrypto.so")));  // the reader found the list at all
  for (const auto& library : d.needed) {
    const bool known =
        std::any_of(allowed.begin(), allowed.end(), [&](const auto& a) { return library.starts_with(a); });
    EXPECT_TRUE(known) << "cloister-aggregator needs " << library << ", which is outside its trusted base";
  }
}

// A search path in the binary would let the host choose the code that the measurement vouches for.
TEST(LinkBudget, TheAggregatorNamesNoSearchPath) {
  EXPECT_THAT(aggregator().search_paths, testing::IsEmpty());
}

}  // namespace
}  // namespace cloister::tests

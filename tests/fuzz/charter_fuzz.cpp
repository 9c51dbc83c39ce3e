#include "attest/run_order.hpp"
#include "tests/fuzz/fuzz.hpp"
#include "tests/support/study.hpp"

// Charters and run orders. What parses is canonical; and nothing but the charter that was founded is founded.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace cloister;
  const View bytes(data, size);
  if (auto charter = attest::parse_charter(bytes, "fuzz.charter")) {
    if (!base::equal(charter->serialize(), bytes)) std::abort();
    (void)attest::founded(*charter, Time{}).explain();
  }
  if (auto order = attest::RunOrder::parse(bytes); order && !base::equal(order->serialize(), bytes)) std::abort();
  (void)attest::RunOrder::parse_submission(bytes);
  return 0;
}

std::vector<cloister::Bytes> cloister::fuzz::seeds() {
  const tests::Study study({.data_owners = {"a", "b", "c"}});
  const attest::RunOrder order = study.run_order();
  return {study.charter.serialize(), order.serialize(), order.submission()};
}

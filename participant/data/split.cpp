#include "participant/data/split.hpp"

#include "base/crypto.hpp"
#include "base/encoding.hpp"

namespace cloister::participant::data {

bool is_test_record(std::uint64_t split, std::uint64_t row) {
  const auto digest = base::sha256(base::Writer().raw(base::view("cloister split 1")).u64(split).u64(row).bytes());
  unsigned digits = 0;  // 256 is 1 modulo 3, so a number is what the sum of its bytes is
  for (const std::uint8_t b : digest) digits += b;
  return digits % 3 == 0;
}

Split split_records(std::size_t records, std::uint64_t split) {
  Split out;
  for (std::size_t row = 0; row < records; ++row) (is_test_record(split, row) ? out.test : out.train).push_back(row);
  return out;
}

}  // namespace cloister::participant::data

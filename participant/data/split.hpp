#pragma once
// Which records are for training and which for testing: the same on every machine, from the run's setting `split`.

#include <cstdint>
#include <vector>

namespace cloister::participant::data {

/// Record `row` (its index in the file, from 0) is a test record when SHA-256("cloister split 1" || u64 split || u64
/// row), read as a number, is divisible by three: a third of the records, whatever a site's size and order.
bool is_test_record(std::uint64_t split, std::uint64_t row);

struct Split {
  std::vector<std::size_t> train, test;  ///< rows in file order
};
Split split_records(std::size_t records, std::uint64_t split);

}  // namespace cloister::participant::data

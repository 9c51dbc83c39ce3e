#pragma once
// Comma-separated values (RFC 4180): what a hospital exports.

#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.hpp"

namespace cloister::participant::data {

struct CsvRecord {
  std::size_t line = 1;  ///< of the file, from 1, where the record starts
  std::vector<std::string> cells;
};

/// All records with at least one character; blanks around unquoted cells are dropped, line ends are LF or CRLF, a byte
/// order mark is passed over. Errors name file and line, never a cell: a quote that does not end, text after a closing
/// quote.
Result<std::vector<CsvRecord>> parse_csv(std::string_view text, const std::string& file);

}  // namespace cloister::participant::data

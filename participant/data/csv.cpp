#include "participant/data/csv.hpp"

#include <fmt/format.h>

namespace cloister::participant::data {
namespace {

std::string_view trimmed(std::string_view s) {
  constexpr std::string_view blanks = " \t\r";
  const std::size_t from = s.find_first_not_of(blanks);
  if (from == std::string_view::npos) return {};
  return s.substr(from, s.find_last_not_of(blanks) - from + 1);
}

class Parser {
 public:
  Parser(std::string_view text, const std::string& file) : text_(text), file_(file) {}

  Result<std::vector<CsvRecord>> run() {
    if (text_.starts_with("\xef\xbb\xbf")) at_ = 3;
    std::vector<CsvRecord> out;
    while (at_ < text_.size()) {
      CsvRecord record{line_, {}};
      if (const auto ok = read(record); !ok) return ok.error();
      const bool blank = record.cells.size() == 1 && record.cells[0].empty();
      if (!blank) out.push_back(std::move(record));
    }
    return out;
  }

 private:
  Result<void> read(CsvRecord& record) {
    for (;;) {
      skip_blanks();
      const auto ok = at_ < text_.size() && text_[at_] == '"' ? quoted(record) : plain(record);
      if (!ok) return ok;
      if (at_ == text_.size()) return {};
      if (text_[at_++] == ',') continue;
      ++line_;  // the delimiter was a line end
      return {};
    }
  }

  Result<void> plain(CsvRecord& record) {
    const std::size_t end = std::min(text_.find_first_of(",\n", at_), text_.size());
    record.cells.emplace_back(trimmed(text_.substr(at_, end - at_)));
    at_ = end;
    return {};
  }

  // RFC 4180 section 2, rule 7: "a double-quote appearing inside a field must be escaped by preceding it with another".
  Result<void> quoted(CsvRecord& record) {
    const std::size_t started = line_;
    std::string cell;
    for (++at_; at_ < text_.size(); ++at_) {
      if (text_[at_] == '\n') ++line_;
      if (text_[at_] == '"') {
        if (at_ + 1 == text_.size() || text_[at_ + 1] != '"') break;
        ++at_;
      }
      cell += text_[at_];
    }
    if (at_ == text_.size()) return error(started, "a quoted cell does not end");
    ++at_;
    skip_blanks();
    if (at_ < text_.size() && text_[at_] != ',' && text_[at_] != '\n')
      return error(started, "there is text between a closing quote and the next comma");
    record.cells.push_back(std::move(cell));
    return {};
  }

  void skip_blanks() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\r')) ++at_;
  }

  Error error(std::size_t line, std::string what) const {
    return base::malformed(fmt::format("{}:{}", file_, line), std::move(what));
  }

  std::string_view text_;
  const std::string& file_;
  std::size_t at_ = 0, line_ = 1;
};

}  // namespace

Result<std::vector<CsvRecord>> parse_csv(std::string_view text, const std::string& file) {
  return Parser(text, file).run();
}

}  // namespace cloister::participant::data

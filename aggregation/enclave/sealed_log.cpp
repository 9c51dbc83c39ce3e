#include "aggregation/enclave/sealed_log.hpp"

#include <fmt/format.h>

namespace cloister::enclave {

SealedLog::SealedLog() {
  if (auto file = SealedFile::make()) file_ = std::move(*file);
}

void SealedLog::append(View record) {
  const std::uint32_t first = blocks_;
  for (std::size_t at = 0; at < record.size(); at += piece, ++blocks_) {
    const View block = record.subspan(at, std::min(piece, record.size() - at));
    if (!file_) {
      plain_.push_back(base::copy(block));
    } else if (auto ok = file_->append(block); !ok) {
      throw Exception(ok.error());
    }
  }
  first_.push_back(first);
  length_.push_back(record.size());
}

Result<Bytes> SealedLog::piece_at(std::size_t record, std::uint64_t offset) const {
  if (record >= first_.size() || offset >= length_[record])
    return base::unavailable("sealed log", fmt::format("record {} has no byte {}", record, offset));
  const std::size_t block = first_[record] + offset / piece;
  if (!file_) return plain_[block];
  return file_->block(block);
}

Result<Bytes> SealedLog::at(std::size_t record) const {
  if (record >= first_.size()) return base::unavailable("sealed log", fmt::format("there is no record {}", record));
  Bytes out;
  out.reserve(length_[record]);
  while (out.size() < length_[record]) {
    const auto part = piece_at(record, out.size());
    if (!part) return part.error();
    out.insert(out.end(), part->begin(), part->end());
  }
  return out;
}

}  // namespace cloister::enclave

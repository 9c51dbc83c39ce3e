#include "aggregation/enclave/uploads.hpp"

#include <fmt/format.h>

namespace cloister::enclave {

using aggregation::CompleteUpdate;
using aggregation::StagedUpdate;

Result<CompleteUpdate> WholeUpdate::complete() {
  if (auto* slot = std::get_if<Slot>(&bytes_)) return std::move(slot->update).complete(announced_);
  StagedUpdate update(format_, aggregation::fastest_kernels(), pages_);
  update.keep_nothing();
  const auto file = std::make_shared<const SealedFile>(std::move(std::get<SealedFile>(bytes_)));
  if (auto read = file->read([&](View block) { return update.feed(block); }); !read) return read.error();
  // The second reading opens the same blocks under the same tags: other bytes than were checked do not come of it.
  return std::move(update).complete(announced_, [file, next = std::size_t{0}]() mutable -> Result<Bytes> {
    if (next == file->blocks()) return Bytes{};
    return file->block(next++);
  });
}

Result<std::uint64_t> Uploads::open(const std::string& owner, const base::Sha256& announced) {
  if (const auto it = open_.find(owner); it != open_.end()) {
    if (it->second.announced == announced) return it->second.received;
    open_.erase(it);
  }
  if (slots_taken() < slots_) {
    open_.emplace(owner, Upload{announced, Slot(format_, pages_, taken_), 0});
    return 0;
  }
  auto file = SealedFile::make();
  if (!file) return file.error();
  open_.emplace(owner, Upload{announced, std::move(*file), 0});
  return 0;
}

Result<void> Uploads::feed(const std::string& owner, View bytes) {
  const auto it = open_.find(owner);
  if (it == open_.end()) return base::denied(owner, "no update of it is awaited");
  Upload& upload = it->second;
  Result<void> taken;
  if (auto* slot = std::get_if<Slot>(&upload.bytes)) {
    taken = slot->update.feed(bytes);
  } else if (bytes.size() > format_->schema.bytes() - upload.received) {
    taken = base::malformed("update", fmt::format("wanted {} bytes, found more", format_->schema.bytes()));
  } else {
    taken = std::get<SealedFile>(upload.bytes).append(bytes);
  }
  if (!taken) {
    open_.erase(it);
    return taken;
  }
  upload.received += bytes.size();
  return {};
}

bool Uploads::whole(const std::string& owner) const {
  return open_.contains(owner) && received(owner) == format_->schema.bytes();
}

std::uint64_t Uploads::received(const std::string& owner) const {
  const auto it = open_.find(owner);
  return it == open_.end() ? 0 : it->second.received;
}

WholeUpdate Uploads::take(const std::string& owner) {
  auto node = open_.extract(owner);
  return WholeUpdate(format_, pages_, node.mapped().announced, std::move(node.mapped().bytes));
}

}  // namespace cloister::enclave

#include "aggregation/enclave/coordinator_feed.hpp"

namespace cloister::enclave {
namespace {

constexpr std::size_t block = 256 << 10;

std::shared_ptr<const SealedFile> seal(View model) {
  auto file = SealedFile::make();
  if (!file) return nullptr;
  for (std::size_t at = 0; at < model.size(); at += block)
    if (!file->append(model.subspan(at, std::min(block, model.size() - at)))) return nullptr;
  return std::make_shared<const SealedFile>(std::move(*file));
}

// A transfer to the coordinator always starts at the beginning, so offsets fall on blocks.
Source source_of(std::shared_ptr<const SealedFile> file) {
  return [file = std::move(file)](std::uint64_t offset) { return file->block(offset / block); };
}

}  // namespace

void CoordinatorFeed::begin(std::uint64_t run) {
  run_ = run;
  records_.clear();
  results_.clear();
  status_.reset();
  end_.reset();
}

void CoordinatorFeed::record(messages::ReceiptRecord record) {
  if (link_) link_->send(messages::RECEIPT_RECORD, record);
  records_.push_back(std::move(record));
}

void CoordinatorFeed::result(messages::Result result, std::shared_ptr<const Bytes> model) {
  Published published{std::move(result), nullptr, nullptr};
  if (model) published.sealed = seal(*model);
  if (!published.sealed) published.plain = std::move(model);
  send(published);
  results_.push_back(std::move(published));
}

void CoordinatorFeed::status(messages::RunStatus status) {
  if (link_) link_->send(messages::RUN_STATUS, status);
  status_ = std::move(status);
}

void CoordinatorFeed::end(messages::RunEnd end) {
  if (link_) link_->send(messages::RUN_END, end);
  end_ = std::move(end);
}

void CoordinatorFeed::attach(LinkPtr link) {
  link_ = std::move(link);
  for (const auto& record : records_) link_->send(messages::RECEIPT_RECORD, record);
  for (const auto& result : results_) send(result);
  if (status_) link_->send(messages::RUN_STATUS, *status_);
  if (end_) link_->send(messages::RUN_END, *end_);
}

void CoordinatorFeed::detach(const LinkPtr& link) {
  if (link_ == link) link_ = nullptr;
}

void CoordinatorFeed::send(const Published& published) {
  if (!link_) return;
  link_->send(messages::RESULT, published.result);
  if (!published.sealed && !published.plain) return;
  messages::Transfer header;
  header.set_what("model");
  header.set_digest(published.result.digest());
  header.set_length(published.sealed ? published.sealed->size() : published.plain->size());
  link_->stream(std::move(header), published.sealed ? source_of(published.sealed) : enclave::source_of(published.plain),
                {});
}

}  // namespace cloister::enclave

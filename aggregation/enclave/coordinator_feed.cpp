#include "aggregation/enclave/coordinator_feed.hpp"

namespace cloister::enclave {
namespace {

template <class Message>
Result<std::shared_ptr<const Message>> message_at(const SealedLog& log, std::size_t index) {
  const auto bytes = log.at(index);
  if (!bytes) return bytes.error();
  auto message = std::make_shared<Message>();
  if (!message->ParseFromArray(bytes->data(), static_cast<int>(bytes->size())))
    return base::untrusted("coordinator's feed", "what was sealed does not parse");
  return std::shared_ptr<const Message>(std::move(message));
}

messages::Transfer header_of(const messages::Result& result, std::uint64_t length) {
  messages::Transfer header;
  header.set_what("model");
  header.set_digest(result.digest());
  header.set_length(length);
  return header;
}

}  // namespace

void CoordinatorFeed::begin(std::uint64_t run) {
  run_ = run;
  past_ = std::make_shared<Past>();
  status_.reset();
  end_.reset();
}

void CoordinatorFeed::record(messages::ReceiptRecord record) {
  past_->records.append(base::view(record.SerializeAsString()));
  if (link_) link_->send(messages::RECEIPT_RECORD, std::move(record));
}

void CoordinatorFeed::result(messages::Result result, std::shared_ptr<const aggregation::ModelFile> model) {
  past_->results.append(base::view(result.SerializeAsString()));
  if (model) past_->models.append(model->bytes());
  send(result, model != nullptr);
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
  if (past_ && past_->records.size() > 0) link_->series(replay());
  if (status_) link_->send(messages::RUN_STATUS, *status_);
  if (end_) link_->send(messages::RUN_END, *end_);
}

void CoordinatorFeed::detach(const LinkPtr& link) {
  if (link_ == link) link_ = nullptr;
}

// Everything so far, in order; what comes meanwhile is queued behind it.
Link::Series CoordinatorFeed::replay() const {
  struct At {
    std::size_t record = 0, result = 0, model = 0;
    std::shared_ptr<const messages::Result> of;  ///< a model's result that was just given: its transfer is next
  };
  return [past = past_, records = past_->records.size(), results = past_->results.size(),
          at = At()]() mutable -> Result<std::optional<Link::Outgoing>> {
    Link::Outgoing out;
    if (at.record < records) {
      const auto record = message_at<messages::ReceiptRecord>(past->records, at.record++);
      if (!record) return record.error();
      out.type = messages::RECEIPT_RECORD;
      out.message = *record;
    } else if (at.of) {
      const std::size_t model = at.model++;
      out.type = messages::TRANSFER;
      out.length = past->models.length(model);
      out.message = std::make_shared<messages::Transfer>(header_of(*at.of, out.length));
      out.source = source_of(past, model);
      at.of = nullptr;
    } else if (at.result < results) {
      const auto result = message_at<messages::Result>(past->results, at.result++);
      if (!result) return result.error();
      out.type = messages::RESULT;
      out.message = *result;
      if ((*result)->kind() == "model") at.of = *result;
    } else {
      return std::optional<Link::Outgoing>();
    }
    return std::optional(std::move(out));
  };
}

// From the log also while it goes on live: a coordinator that takes its time keeps no model in memory.
Source CoordinatorFeed::source_of(std::shared_ptr<const Past> past, std::size_t model) {
  return [past = std::move(past), model](std::uint64_t offset) -> Result<Part> {
    auto piece = past->models.piece_at(model, offset);
    if (!piece) return piece.error();
    const auto held = std::make_shared<const Bytes>(std::move(*piece));
    return Part{*held, held};
  };
}

void CoordinatorFeed::send(const messages::Result& result, bool model) {
  if (!link_) return;
  link_->send(messages::RESULT, result);
  if (!model) return;
  const std::size_t last = past_->models.size() - 1;
  messages::Transfer header = header_of(result, past_->models.length(last));
  link_->stream(std::move(header), source_of(past_, last), {});
}

}  // namespace cloister::enclave

#include "aggregation/enclave/link.hpp"

#include <boost/asio/redirect_error.hpp>

#include "base/deadline.hpp"

namespace cloister::enclave {
namespace {

constexpr std::size_t stream_block = 256 << 10;  // of a transfer: small enough that a slow link shows progress

}  // namespace

Source source_of(std::weak_ptr<const aggregation::ModelFile> whole) {
  return [whole = std::move(whole)](std::uint64_t offset) -> Result<Part> {
    const auto held = whole.lock();
    if (!held) return base::unavailable("model", "it is no longer on offer");
    return Part{held->bytes().subspan(offset, std::min<std::uint64_t>(stream_block, held->size() - offset)), held};
  };
}

Link::Link(channel::ConnectionPtr connection, boost::asio::any_io_executor executor, std::chrono::milliseconds patience)
    : connection_(std::move(connection)), wake_(executor, Deadline::max()), patience_(patience) {}

void Link::send(MessageType type, std::shared_ptr<const google::protobuf::MessageLite> message) {
  if (closed_ || finishing_) return;
  if (queue_.size() >= queue_cap) return close();
  queue_.push_back({.type = type, .message = std::move(message), .source = {}, .sent = {}, .series = {}});
  wake_.cancel();
}

void Link::stream(messages::Transfer header, Source source, std::function<void(std::size_t)> sent) {
  if (closed_ || finishing_) return;
  ++streams_;
  const std::uint64_t offset = header.offset(), length = header.length();
  queue_.push_back({.type = messages::TRANSFER,
                    .message = std::make_shared<messages::Transfer>(std::move(header)),
                    .source = std::move(source),
                    .offset = offset,
                    .length = length,
                    .sent = std::move(sent),
                    .series = {}});
  wake_.cancel();
}

void Link::series(Series next) {
  if (closed_ || finishing_) return;
  queue_.push_back({.type = messages::UNSET, .message = {}, .source = {}, .sent = {}, .series = std::move(next)});
  wake_.cancel();
}

awaitable<void> Link::pump() {
  for (;;) {
    while (!queue_.empty()) {
      Item item = std::move(queue_.front());
      queue_.pop_front();
      co_await send_item(std::move(item));
    }
    if (closed_ || finishing_) break;
    boost::system::error_code woken;
    wake_.expires_at(Deadline::max());
    co_await wake_.async_wait(boost::asio::redirect_error(boost::asio::use_awaitable, woken));
    const auto state = co_await boost::asio::this_coro::cancellation_state;
    if (state.cancelled() != boost::asio::cancellation_type::none)
      throw Exception(base::unavailable(owner(), "the link has ended"));
  }
  close();
}

awaitable<void> Link::send_series(Series next) {
  while (!closed_) {
    auto one = next();
    if (!one) throw Exception(one.error());
    if (!*one) co_return;
    Outgoing& out = **one;
    if (out.source) ++streams_;
    Item item{.type = out.type,
              .message = std::move(out.message),
              .source = std::move(out.source),
              .offset = out.offset,
              .length = out.length,
              .sent = {},
              .series = {}};
    co_await send_item(std::move(item));
  }
}

awaitable<void> Link::send_item(Item item) {
  if (item.series) {
    co_await send_series(std::move(item.series));
    co_return;
  }
  const auto soon = [&] { return std::chrono::steady_clock::now() + patience_; };
  co_await with_deadline(connection_->send(item.type, *item.message), soon(), owner() + ": taking a message");
  if (!item.source) co_return;
  for (std::uint64_t at = item.offset; at < item.length && !closed_;) {
    const auto block = item.source(at);
    if (!block) throw Exception(block.error());
    co_await with_deadline(connection_->send_data(block->bytes), soon(), owner() + ": taking a part of the model");
    at += block->bytes.size();
    if (item.sent) item.sent(block->bytes.size());
  }
  --streams_;
}

void Link::finish() {
  finishing_ = true;
  wake_.cancel();
}

void Link::close() noexcept {
  if (std::exchange(closed_, true)) return;
  connection_->close();
  wake_.cancel();
}

}  // namespace cloister::enclave

#pragma once
// One peer's connection with its queue of what is to be sent, so that a slow peer delays nobody else.

#include <boost/asio/steady_timer.hpp>
#include <deque>
#include <functional>

#include "aggregation/model.hpp"
#include "protocols/channel/channel.hpp"

namespace cloister::enclave {

namespace channel = protocols::channel;
namespace messages = protocols::messages;
using channel::awaitable;
using channel::MessageType;

/// A part of a transfer, and what it lies in.
struct Part {
  View bytes;
  std::shared_ptr<const void> owner;
};
/// The bytes of a transfer from an offset on: at least one, at most data_cap of them. Asked when the link is ready for
/// more, so that what waits costs no memory.
using Source = std::function<Result<Part>(std::uint64_t offset)>;
/// Of `whole`, while anybody else holds it: a peer that takes its time does not keep a model that is past.
Source source_of(std::weak_ptr<const aggregation::ModelFile> whole);

/// Lives on the server's strand. Whoever serves the peer runs `pump` beside its reading; `close` ends both.
class Link {
 public:
  /// `patience`: how long one frame may take to leave.
  Link(channel::ConnectionPtr connection, boost::asio::any_io_executor executor, std::chrono::milliseconds patience);

  /// Queues a message. A peer that makes us talk and does not listen is closed when `queue_cap` of them wait.
  void send(MessageType type, std::shared_ptr<const google::protobuf::MessageLite> message);
  template <class Message>
  void send(MessageType type, Message message) {
    send(type, std::shared_ptr<const google::protobuf::MessageLite>(std::make_shared<Message>(std::move(message))));
  }
  /// Queues a transfer: its header, then the data frames of `source` from header.offset() on. `sent` (may be empty) is
  /// told each frame's size. A source that fails closes the link.
  void stream(messages::Transfer header, Source source, std::function<void(std::size_t)> sent);
  /// What a generator gives: a message, and for a transfer its data frames.
  struct Outgoing {
    MessageType type = messages::UNSET;
    std::shared_ptr<const google::protobuf::MessageLite> message;
    Source source{};  ///< of a transfer,
    std::uint64_t offset = 0, length = 0;
  };
  using Series = std::function<Result<std::optional<Outgoing>>()>;
  /// Queues what `next` gives until it gives nothing. It is asked when the link is ready for more, so that the past of
  /// a long run costs no memory; what is queued later is sent later. An error closes the link.
  void series(Series next);
  std::size_t streams() const { return streams_; }  ///< transfers queued or under way

  /// Sends what is queued until the connection ends; throws what ended it. Returns after finish() and an empty queue.
  awaitable<void> pump();
  /// The next frame, however long it takes: liveness of a peer is the round's business.
  awaitable<channel::Frame> receive() { return connection_->receive(); }
  /// The same into a frame whose memory is used again.
  awaitable<void> receive(channel::Frame& into) { return connection_->receive(into); }
  /// Closes once the queue is empty.
  void finish();
  void close() noexcept;

  channel::Connection& connection() { return *connection_; }
  const channel::ConnectionPtr& shared_connection() { return connection_; }
  const std::string& owner() const { return connection_->peer_owner(); }
  bool closed() const { return closed_; }
  /// True the first time only: a peer that was refused is refused once, and what it still sends is dropped.
  bool begin_refusing() { return !std::exchange(refusing_, true); }
  bool refusing() const { return refusing_; }

  static constexpr std::size_t queue_cap = 4096;  ///< messages

 private:
  struct Item {
    MessageType type = messages::UNSET;
    std::shared_ptr<const google::protobuf::MessageLite> message;
    Source source;  ///< of a transfer,
    std::uint64_t offset = 0, length = 0;
    std::function<void(std::size_t)> sent;
    Series series;  ///< in place of all that
  };
  awaitable<void> send_item(Item item);
  awaitable<void> send_series(Series next);

  channel::ConnectionPtr connection_;
  boost::asio::steady_timer wake_;
  std::chrono::milliseconds patience_;
  std::deque<Item> queue_;
  std::size_t streams_ = 0;
  bool finishing_ = false;
  bool closed_ = false;
  bool refusing_ = false;
};

using LinkPtr = std::shared_ptr<Link>;

}  // namespace cloister::enclave

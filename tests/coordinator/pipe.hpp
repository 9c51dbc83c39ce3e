#pragma once
// Two ends of a connection without a network, and peers that play by script: the driver cannot tell them from real
// ones.

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <deque>
#include <functional>
#include <memory>

#include "coordinator/notice.hpp"
#include "coordinator/peers.hpp"

namespace cloister::tests {

namespace channel = protocols::channel;
namespace messages = protocols::messages;
using channel::awaitable;

class Pipe : public channel::Connection {
 public:
  struct Facts {
    base::PublicKey key{};
    std::string owner{};
    std::optional<attest::Claims> claims{};
    Bytes record{};
  };
  /// `a` sees `b` as `of_b` says, and the other way round.
  static std::pair<std::shared_ptr<Pipe>, std::shared_ptr<Pipe>> pair(Facts of_b, Facts of_a) {
    auto wires = std::make_shared<std::pair<Wire, Wire>>();
    return {std::shared_ptr<Pipe>(new Pipe(wires, wires->first, wires->second, std::move(of_b))),
            std::shared_ptr<Pipe>(new Pipe(wires, wires->second, wires->first, std::move(of_a)))};
  }
  ~Pipe() override { close(); }

  awaitable<void> send(channel::MessageType type, const google::protobuf::MessageLite& message) override {
    const std::string bytes = message.SerializeAsString();
    channel::Frame frame{type, base::copy(base::view(bytes))};
    co_await put(std::move(frame));
  }
  awaitable<void> send_data(View bytes) override {
    channel::Frame frame{messages::DATA, base::copy(bytes)};
    co_await put(std::move(frame));
  }
  awaitable<void> put(channel::Frame frame) {
    if (out_.closed) throw Exception(base::unavailable("pipe", "closed"));
    out_.frames.push_back(std::move(frame));
    out_.notice.raise();
    co_return;
  }
  awaitable<channel::Frame> receive() override {
    const auto wires = wires_;  // outlives the wait
    while (in_.frames.empty()) {
      if (in_.closed) throw Exception(base::unavailable("pipe", "the peer closed"));
      co_await in_.notice.after(in_.notice.version(), std::chrono::steady_clock::time_point::max());
    }
    channel::Frame frame = std::move(in_.frames.front());
    in_.frames.pop_front();
    co_return frame;
  }
  awaitable<void> receive(channel::Frame& frame) override { frame = co_await receive(); }
  awaitable<bool> receive_data(std::span<std::uint8_t> into, std::size_t& have) override {
    while (have < into.size()) {
      channel::Frame frame = co_await receive();
      const std::size_t n = frame.type == messages::DATA ? std::min(frame.payload.size(), into.size() - have) : 0;
      const auto end = frame.payload.begin() + static_cast<std::ptrdiff_t>(n);
      std::copy(frame.payload.begin(), end, into.begin() + static_cast<std::ptrdiff_t>(have));
      have += n;
      frame.payload.erase(frame.payload.begin(), end);
      const bool other = frame.type != messages::DATA;
      if (other || !frame.payload.empty()) in_.frames.push_front(std::move(frame));
      if (other) co_return false;
    }
    co_return true;
  }
  void close() noexcept override {
    for (Wire* wire : {&in_, &out_}) {
      wire->closed = true;
      wire->notice.raise();
    }
  }
  const base::PublicKey& peer_key() const override { return facts_.key; }
  const std::string& peer_owner() const override { return facts_.owner; }
  const std::optional<attest::Claims>& peer_claims() const override { return facts_.claims; }
  const Bytes& record() const override { return facts_.record; }
  std::uint64_t bytes_sent() const override { return 0; }
  std::uint64_t bytes_received() const override { return 0; }

 private:
  struct Wire {
    std::deque<channel::Frame> frames;
    bool closed = false;
    coordinator::Notice notice;
  };
  Pipe(std::shared_ptr<std::pair<Wire, Wire>> wires, Wire& in, Wire& out, Facts facts)
      : wires_(std::move(wires)), in_(in), out_(out), facts_(std::move(facts)) {}
  std::shared_ptr<std::pair<Wire, Wire>> wires_;
  Wire& in_;
  Wire& out_;
  Facts facts_;
};

using Script = std::function<awaitable<void>(channel::ConnectionPtr)>;

/// Whoever dials gets a pipe whose other end a script plays. An empty script: nobody is there.
struct ScriptedPeers : coordinator::Peers {
  explicit ScriptedPeers(boost::asio::io_context& context) : io(context) {}
  awaitable<channel::ConnectionPtr> launcher(const attest::Charter&, channel::Deadline) override {
    ++launcher_dials;
    co_return dial(play_launcher, {}, "the launcher");
  }
  awaitable<channel::ConnectionPtr> enclave(const attest::Charter&, channel::Deadline) override {
    ++enclave_dials;
    if (refusal) throw Exception(*refusal);
    co_return dial(play_enclave, enclave_facts, "the enclave");
  }
  awaitable<void> attest_again(const attest::Charter&, channel::ConnectionPtr, channel::Deadline) override {
    ++renewals;
    if (refusal_again) throw Exception(*refusal_again);
    if (renewed) renewed();
    co_return;
  }
  channel::ConnectionPtr dial(const Script& script, Pipe::Facts facts, const std::string& who) {
    if (!script) throw Exception(base::unavailable(who, "nobody is there"));
    auto [near, far] = Pipe::pair(std::move(facts), {});
    boost::asio::co_spawn(io, play(script, far),
                          [](std::exception_ptr) {});  // a script that is cut has played its part
    return near;
  }
  static awaitable<void> play(Script script, channel::ConnectionPtr connection) { co_await script(connection); }

  boost::asio::io_context& io;
  Script play_launcher, play_enclave;
  Pipe::Facts enclave_facts;
  std::optional<Error> refusal;  ///< what judging the enclave ends with
  std::optional<Error> refusal_again;  ///< the same when its evidence is renewed
  std::function<void()> renewed;
  int launcher_dials = 0, enclave_dials = 0, renewals = 0;
};

}  // namespace cloister::tests

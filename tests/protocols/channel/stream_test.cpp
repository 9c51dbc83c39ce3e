// Data frames straight into the caller's memory: whole, in order, whatever is cut, cancelled or mixed in between.

#include <gmock/gmock.h>
#include <random>

#include "pair.hpp"

namespace cloister::protocols::channel::tests {
namespace {

using testing::HasSubstr;

Bytes pattern(std::size_t n) {
  std::mt19937 random(11);
  Bytes out(n);
  for (auto& x : out) x = static_cast<std::uint8_t>(random());
  return out;
}

TEST(Stream, DataComesIntoTheCallersMemoryHoweverTheFramesAreCut) {
  Pair p;
  const Bytes sent = pattern(3'000'001);
  Bytes got(sent.size());
  auto send = [&]() -> awaitable<void> {
    std::size_t at = 0;
    for (std::size_t n = 1; at < sent.size(); n = n * 3 + 1) {
      const View part = View(sent).subspan(at, std::min(n, sent.size() - at));
      co_await p.client->send_data(part);
      at += part.size();
    }
  };
  auto take = [&]() -> awaitable<void> {
    for (std::size_t at = 0, n = 7; at < got.size(); n = n * 2 + 1) {
      std::size_t have = 0;
      const auto part = std::span(got).subspan(at, std::min(n, got.size() - at));
      const bool full = co_await p.server->receive_data(part, have);
      EXPECT_TRUE(full);
      EXPECT_EQ(have, part.size());
      at += have;
    }
  };
  p.w.run(send(), take());
  EXPECT_TRUE(got == sent);
}

TEST(Stream, AMessageEndsTheDataAndIsNotLost) {
  Pair p;
  const Bytes sent = pattern(500'000);
  Bytes got(1'000'000);
  std::size_t have = 0;
  auto send = [&]() -> awaitable<void> {
    co_await p.client->send_data(sent);
    messages::RunEnd end;
    end.set_reason("that was all");
    co_await p.client->send(messages::RUN_END, end);
  };
  auto take = [&]() -> awaitable<void> {
    const bool full = co_await p.server->receive_data(got, have);
    EXPECT_FALSE(full);
    const Frame frame = co_await p.server->receive();
    EXPECT_EQ(parse<messages::RunEnd>(frame).reason(), "that was all");
  };
  p.w.run(send(), take());
  EXPECT_EQ(have, sent.size());
  EXPECT_TRUE(std::equal(sent.begin(), sent.end(), got.begin()));
}

TEST(Stream, TheRestOfAFrameGoesToTheNextReceiveOfEitherKind) {
  Pair p;
  const Bytes sent = pattern(200'000);
  Bytes start(50'000), end(30'000);
  Frame middle;
  auto send = [&]() -> awaitable<void> {
    for (int i = 0; i < 2; ++i) {
      const auto head = encode(Header{messages::DATA, sent.size()});
      co_await p.raw_client().write(head, sent);
    }
  };
  auto take = [&]() -> awaitable<void> {
    std::size_t have = 0;
    co_await p.server->receive_data(start, have);
    co_await p.server->receive(middle);
    have = 0;
    co_await p.server->receive_data(end, have);
  };
  p.w.run(send(), take());
  Bytes joined = start;
  joined.insert(joined.end(), middle.payload.begin(), middle.payload.end());
  EXPECT_TRUE(joined == sent);
  EXPECT_TRUE(std::equal(end.begin(), end.end(), sent.begin()));
}

TEST(Stream, ACancelledReceiveOfEitherKindLosesNothing) {
  Pair p;
  const Bytes sent = pattern(600'000);
  Bytes got(sent.size());
  std::size_t have = 0;
  std::string first, second;
  auto late = [](awaitable<void> op, std::string& why) -> awaitable<void> {
    try {
      co_await with_deadline(std::move(op), std::chrono::steady_clock::now() + 20ms, "the data");
    } catch (const Exception& e) {
      why = e.what();
    }
  };
  auto into_memory = [&]() -> awaitable<void> { co_await p.server->receive_data(got, have); };
  auto all = [&]() -> awaitable<void> {
    const auto head = encode(Header{messages::DATA, sent.size()});
    co_await p.raw_client().write(head, View(sent).first(100'000));
    Frame unused;
    co_await late(p.server->receive(unused), first);
    co_await p.raw_client().write(View(sent).subspan(100'000, 200'000));
    co_await late(into_memory(), second);
    co_await p.raw_client().write(View(sent).subspan(300'000));
    co_await into_memory();
  };
  p.w.run(all());
  EXPECT_THAT(first, HasSubstr("the data: no answer within"));
  EXPECT_THAT(second, HasSubstr("the data: no answer within"));
  EXPECT_EQ(have, sent.size());
  EXPECT_TRUE(got == sent);
}

TEST(Stream, ACutWithinAFrameSaysSo) {
  Pair p;
  Bytes got(100'000);
  std::size_t have = 0;
  std::string error;
  auto cheat = [&]() -> awaitable<void> {
    const auto head = encode(Header{messages::DATA, got.size()});
    co_await p.raw_client().write(head, View(got).first(40'000));
    p.client->close();
  };
  auto take = [&]() -> awaitable<void> {
    try {
      co_await p.server->receive_data(got, have);
    } catch (const Exception& e) {
      error = e.what();
    }
  };
  p.w.run(cheat(), take());
  EXPECT_THAT(error, HasSubstr("in the middle of a frame"));
  EXPECT_EQ(have, 40'000u);
}

}  // namespace
}  // namespace cloister::protocols::channel::tests

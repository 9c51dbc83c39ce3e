// Under the attestation: pinned links, strangers of every kind on both sides, proxies, frames over real sockets.

#include <gmock/gmock.h>
#include <random>

#include "pair.hpp"
#include "strangers.hpp"
#include "world.hpp"

namespace cloister::protocols::channel::tests {
namespace {

using testing::AllOf;
using testing::AnyOf;
using testing::HasSubstr;

// --- Pinned links
// -------------------------------------------------------------------------------------------------------

TEST(Pinned, TwoKeysOfTheCharterAreConnected) {
  World w;
  auto [client, server] = meet_pinned(w, w.party, w.enclave_key.public_key());
  ASSERT_TRUE(client.ok()) << client.error;
  ASSERT_TRUE(server.ok()) << server.error;
  EXPECT_EQ(server.connection->peer_owner(), "charite");
  EXPECT_TRUE(client.connection->record().empty());
}

TEST(Pinned, AnotherServerKeyIsRefusedByTheClient) {
  World w;
  const auto wanted = base::PrivateKey::generate().public_key();
  auto [client, server] = meet_pinned(w, w.party, wanted);
  const auto f = client.refusal("parties.tls_key");
  EXPECT_EQ(f.wanted, wanted.text());
  EXPECT_EQ(f.found, w.enclave_key.public_key().text());
  EXPECT_THAT(server.error, HasSubstr("does not know this side's key " + w.enclave_key.public_key().text()));
}

TEST(Pinned, AStrangerIsRefusedLoggedAndTold) {
  World w;
  const auto stranger = base::PrivateKey::generate();
  auto [client, server] = meet_pinned(w, stranger, w.enclave_key.public_key());
  EXPECT_THAT(client.error,
              AllOf(HasSubstr("does not know this side's key " + stranger.public_key().text()), HasSubstr("unknown")));
  EXPECT_EQ(client.kind, Error::Kind::denied);
  EXPECT_EQ(server.refusal("parties.tls_key").found, stranger.public_key().text());
  EXPECT_THAT(w.enclave_log.text(), AllOf(HasSubstr("\"event\":\"refusal\""), HasSubstr(stranger.public_key().text())));
}

TEST(Pinned, NobodyThereIsToldAtOnce) {
  World w;
  Endpoint nobody = w.endpoint();
  w.acceptor.close();
  Outcome client;
  w.run(World::into(client, connect_pinned(nobody, w.party, std::nullopt, soon())));
  EXPECT_EQ(client.kind, Error::Kind::unavailable);
  EXPECT_THAT(client.error, HasSubstr("nobody answers at 127.0.0.1"));
}

TEST(Pinned, APeerThatAcceptsAndSaysNothingIsTooLate) {
  World w;
  Outcome client;
  w.run(World::into(client,
                    connect_pinned(w.endpoint(), w.party, std::nullopt, std::chrono::steady_clock::now() + 50ms)));
  EXPECT_THAT(client.error, AllOf(HasSubstr("TLS handshake"), HasSubstr("no answer within")));
}

// --- Who else may call the enclave
// --------------------------------------------------------------------------------------

/// What the enclave's side makes of a caller.
Outcome called_by(World& w, std::function<void(tcp::socket&)> call) {
  Outcome server;
  Caller caller(w.acceptor.local_endpoint().port(), std::move(call));
  w.run(World::into(server, w.accept_one(w.identity())));
  return server;
}

TEST(Strangers, ATls12ClientIsRefusedOnBothSides) {
  World w;
  std::string told;
  {
    const auto server = called_by(w, [&](tcp::socket& s) {
      Ssl ssl(false, s);
      SSL_CTX_set_max_proto_version(ssl.context, TLS1_2_VERSION);
      told = ssl.handshake(false);
    });
    EXPECT_EQ(server.kind, Error::Kind::unsupported);
    EXPECT_THAT(server.error, HasSubstr("wanted TLS 1.3, found a peer that speaks only older versions"));
  }
  EXPECT_THAT(told, HasSubstr("protocol version"));
}

TEST(Strangers, APlainTlsClientIsRefused) {
  World w;
  const auto server = called_by(w, [](tcp::socket& s) { Ssl(false, s).handshake(false); });
  EXPECT_EQ(server.kind, Error::Kind::untrusted);
  EXPECT_THAT(server.error, HasSubstr("showed no Ed25519 client certificate"));
}

TEST(Strangers, ATlsClientOfAnotherProtocolIsRefused) {
  World w;
  std::string told;
  {
    const auto server = called_by(w, [&](tcp::socket& s) {
      Ssl ssl(false, s);
      SSL_CTX_set_alpn_protos(ssl.context, reinterpret_cast<const unsigned char*>("\x02h2"), 3);
      told = ssl.handshake(false);
    });
    EXPECT_THAT(server.error, HasSubstr("not the protocol cloister/1"));
  }
  EXPECT_THAT(told, HasSubstr("no application protocol"));
}

TEST(Strangers, AKnownKeyWithoutTheProtocolIsRefused) {
  World w;
  const auto server = called_by(w, [&](tcp::socket& s) {
    Ssl ssl(false, s);
    const Bytes der = make_certificate(w.party);
    SSL_CTX_use_certificate_ASN1(ssl.context, static_cast<int>(der.size()), der.data());
    SSL_CTX_use_PrivateKey(ssl.context, w.party.get());
    ssl.handshake(false);
  });
  EXPECT_THAT(server.error, HasSubstr("not the protocol cloister/1"));
}

TEST(Strangers, AClientWithACasCertificateIsRefused) {
  World w;
  const auto server = called_by(w, [](tcp::socket& s) {
    Ssl ssl(false, s);
    use_ca_certificate(ssl.context, "Some CA");
    ssl.handshake(false);
  });
  EXPECT_THAT(server.error, HasSubstr("showed no Ed25519 client certificate"));
}

TEST(Strangers, ABrowserIsToldApart) {
  World w;
  const auto server = called_by(w, [](tcp::socket& s) {
    boost::asio::write(s, boost::asio::buffer(std::string("GET / HTTP/1.1\r\nHost: x\r\n\r\n")));
    drain(s);
  });
  EXPECT_THAT(server.error, HasSubstr("speaks plain HTTP, not TLS 1.3"));
}

TEST(Strangers, GarbageIsNotTls) {
  World w;
  const auto server = called_by(w, [](tcp::socket& s) {
    boost::asio::write(s,
                       boost::asio::buffer(std::string("\xde\xad\xbe\xef and more of it, enough for a record header")));
    drain(s);
  });
  EXPECT_THAT(server.error, HasSubstr("does not speak TLS (first bytes deadbeef"));
}

TEST(Strangers, ACallerThatHangsUpIsCut) {
  World w;
  const auto server = called_by(w, [](tcp::socket&) {});
  EXPECT_EQ(server.kind, Error::Kind::unavailable);
  EXPECT_THAT(server.error, HasSubstr("cut"));
}

// --- Who else may answer a party
// ----------------------------------------------------------------------------------------

Outcome calling(World& w, std::function<void(tcp::socket&)> serve) {
  Listener listener(std::move(serve));
  Outcome client;
  w.run(World::into(client, connect_enclave({"127.0.0.1", listener.port(), {}}, w.party, w.expectation(), std::nullopt,
                                            soon(), nullptr)));
  return client;
}

TEST(Strangers, AnInspectingProxyIsNamed) {
  World w;
  const auto client = calling(w, [](tcp::socket& s) {
    Ssl ssl(true, s);
    use_ca_certificate(ssl.context, "Acme Inspection CA");
    ssl.handshake(true);
  });
  EXPECT_EQ(client.kind, Error::Kind::untrusted);
  EXPECT_THAT(client.error, AllOf(HasSubstr("issued by \"Acme Inspection CA\""), HasSubstr("inspecting proxy")));
}

TEST(Strangers, AServerOfTls12IsToldApart) {
  World w;
  const auto client = calling(w, [](tcp::socket& s) {
    Ssl ssl(true, s);
    SSL_CTX_set_max_proto_version(ssl.context, TLS1_2_VERSION);
    use_ca_certificate(ssl.context, "Old CA");
    ssl.handshake(true);
  });
  EXPECT_EQ(client.kind, Error::Kind::unsupported);
  EXPECT_THAT(client.error, HasSubstr("only older versions"));
}

TEST(Strangers, ATlsServerWithoutTheProtocolIsToldApart) {
  World w;
  const auto key = base::PrivateKey::generate();
  const auto client = calling(w, [&](tcp::socket& s) {
    Ssl ssl(true, s);
    const Bytes der = make_certificate(key);
    SSL_CTX_use_certificate_ASN1(ssl.context, static_cast<int>(der.size()), der.data());
    SSL_CTX_use_PrivateKey(ssl.context, key.get());
    ssl.handshake(true);
  });
  EXPECT_THAT(client.error, HasSubstr("not the protocol cloister/1"));
}

TEST(Strangers, AWebServerIsToldApart) {
  World w;
  const auto client = calling(w, [](tcp::socket& s) {
    boost::asio::write(s, boost::asio::buffer(std::string("HTTP/1.1 400 Bad Request\r\n\r\n")));
    drain(s);
  });
  EXPECT_THAT(client.error, HasSubstr("answers with plain HTTP, not TLS"));
}

TEST(Strangers, AServerThatHangsUpIsCut) {
  World w;
  const auto client = calling(w, [](tcp::socket&) {});
  EXPECT_EQ(client.kind, Error::Kind::unavailable);
}

// --- Proxies
// ------------------------------------------------------------------------------------------------------------

TEST(Proxy, WhatItsAnswerMeans) {
  const Endpoint to{"aggregator.example", 7443, "proxy.example:3128"};
  auto judged = [&](std::string_view head) {
    auto r = judge_connect_answer(head, to);
    return r ? std::string("ok") : r.error().text();
  };
  EXPECT_EQ(judged("HTTP/1.1 200 Connection established\r\n\r\n"), "ok");
  EXPECT_EQ(judged("HTTP/1.0 204 \r\n\r\n"), "ok");
  EXPECT_THAT(judged("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"), HasSubstr("wants a login"));
  EXPECT_THAT(judged("HTTP/1.1 403 Forbidden\r\n\r\n"),
              AllOf(HasSubstr("forbids CONNECT to aggregator.example:7443"), HasSubstr("proxy.example:3128")));
  EXPECT_THAT(judged("HTTP/1.1 503 No\r\n\r\n"), HasSubstr("cannot reach aggregator.example:7443"));
  EXPECT_THAT(judged("HTTP/1.1 302 Found\r\n\r\n"), HasSubstr("answers \"HTTP/1.1 302 Found\" to CONNECT, wanted 200"));
  EXPECT_THAT(judged("SSH-2.0-OpenSSH\r\n\r\n"), HasSubstr("no HTTP proxy"));
  EXPECT_THAT(judged("HTTP/1.1 2x0 ok\r\n\r\n"), HasSubstr("no HTTP proxy"));
  EXPECT_THAT(judged(""), HasSubstr("no HTTP proxy"));
}

/// Reads the CONNECT and answers; with `to` it forwards both ways afterwards.
void proxy(tcp::socket& client, const std::string& answer, std::uint16_t to, std::string* request) {
  boost::system::error_code ec;
  char c = 0;
  while (!request->ends_with("\r\n\r\n") && client.read_some(boost::asio::buffer(&c, 1), ec) == 1)
    request->push_back(c);
  boost::asio::write(client, boost::asio::buffer(answer), ec);
  if (to == 0) return drain(client);
  boost::asio::io_context io;
  tcp::socket server(io);
  server.connect({boost::asio::ip::address_v4::loopback(), to});
  auto pump = [](tcp::socket& from, tcp::socket& into) {
    boost::system::error_code e;
    char buffer[16384];
    for (;;) {
      const auto n = from.read_some(boost::asio::buffer(buffer), e);
      if (e) break;
      boost::asio::write(into, boost::asio::buffer(buffer, n), e);
      if (e) break;
    }
    into.shutdown(tcp::socket::shutdown_send, e);
  };
  std::thread up([&] { pump(client, server); });
  pump(server, client);
  up.join();
}

Outcome through_proxy(World& w, const std::string& answer, std::uint16_t to, std::string* request) {
  Outcome client, server;
  {
    Listener listener([&](tcp::socket& s) { proxy(s, answer, to, request); });
    Endpoint end = w.endpoint();
    end.proxy = "127.0.0.1:" + std::to_string(listener.port());
    if (to != 0) asio::co_spawn(w.io, World::into(server, w.accept_one(w.identity())), [](std::exception_ptr) {});
    w.run(World::into(client, connect_enclave(end, w.party, w.expectation(), std::nullopt, soon(), nullptr)));
    server.connection.reset();
    if (to != 0) client.connection.reset();
  }
  return client;
}

TEST(Proxy, TheAttestedConnectionGoesThroughConnect) {
  World w;
  std::string request;
  const auto port = w.acceptor.local_endpoint().port();
  const auto client = through_proxy(w, "HTTP/1.1 200 OK\r\nVia: test\r\n\r\n", port, &request);
  EXPECT_EQ(client.error, "");
  const auto authority = "127.0.0.1:" + std::to_string(port);
  EXPECT_EQ(request, "CONNECT " + authority + " HTTP/1.1\r\nHost: " + authority + "\r\n\r\n");
}

TEST(Proxy, ARefusalNamesTheProxyAndWhatToDo) {
  World w;
  std::string request;
  const auto client = through_proxy(w, "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", 0, &request);
  EXPECT_EQ(client.kind, Error::Kind::unavailable);
  EXPECT_THAT(client.error, AllOf(HasSubstr("through the proxy 127.0.0.1:"), HasSubstr("wants a login")));
}

TEST(Proxy, AnEndlessAnswerIsCutOff) {
  World w;
  std::string request;
  const auto client = through_proxy(w, "HTTP/1.1 200 OK\r\nX: " + std::string(20'000, 'x'), 0, &request);
  EXPECT_THAT(client.error, HasSubstr("longer than 16 KiB"));
}

TEST(Proxy, SomethingElseOnItsPortIsToldAtOnce) {
  World w;
  std::string request;
  const auto client = through_proxy(w, "220 mail.example ESMTP\r\n", 0, &request);
  EXPECT_THAT(client.error, HasSubstr("no HTTP proxy: \"220 m\""));
}

TEST(Proxy, WithoutAPortItIsRefusedUndialled) {
  World w;
  Endpoint end = w.endpoint();
  end.proxy = "proxy.example";
  Outcome client;
  w.run(World::into(client, connect_pinned(end, w.party, std::nullopt, soon())));
  EXPECT_THAT(client.error, HasSubstr("wanted a proxy as host:port, found \"proxy.example\""));
}

// --- Frames over the wire
// -----------------------------------------------------------------------------------------------

awaitable<void> receive_error(Connection& c, std::string& error) {
  try {
    co_await c.receive();
    error = "received";
  } catch (const std::exception& e) {
    error = e.what();
  }
}

/// The server's error over these bytes from an authenticated client, which closes after them.
std::string error_over(Bytes bytes) {
  Pair p;
  std::string error;
  auto cheat = [&]() -> awaitable<void> {
    co_await p.raw_client().write(bytes);
    p.client->close();
  };
  p.w.run(receive_error(*p.server, error), cheat());
  return error;
}

TEST(Wire, AnOversizeFrameIsRefusedAtItsHeader) {
  Header h{messages::OFFER, message_cap + 1};
  const auto head = encode(h);
  EXPECT_THAT(error_over({head.begin(), head.end()}), HasSubstr("frame.length: wanted at most 4194304"));
}

TEST(Wire, ATruncatedFrameIsACut) {
  const auto head = encode(Header{messages::OFFER, 100});
  Bytes bytes(head.begin(), head.end());
  EXPECT_THAT(error_over(bytes), HasSubstr("in the middle of a frame"));
  bytes.resize(9);
  EXPECT_THAT(error_over(bytes), HasSubstr("in the middle of a frame"));
}

TEST(Wire, GarbageInTheFramingEndsTheConnection) {
  EXPECT_THAT(error_over(Bytes(64, 0xee)), HasSubstr("frame.version: wanted 1, found 238"));
}

TEST(Wire, AGoodbyeIsToldFromACut) {
  EXPECT_THAT(error_over({}), HasSubstr("the peer closed the connection"));
}

TEST(Wire, AMessageThatDoesNotParseNamesItsType) {
  const Frame frame{messages::OFFER, Bytes(3, 0xff)};
  try {
    parse<messages::Offer>(frame);
    FAIL();
  } catch (const Exception& e) {
    EXPECT_EQ(e.error().kind, Error::Kind::malformed);
    EXPECT_THAT(e.what(), HasSubstr("OFFER"));
  }
}

TEST(Wire, DataArrivesWholeInOrderWhileBothSend) {
  Pair p;
  std::mt19937 random(7);
  Bytes up(5'000'000), down(3'333'333);
  for (auto* b : {&up, &down})
    for (auto& x : *b) x = static_cast<std::uint8_t>(random());
  auto send = [](Connection& c, const Bytes& bytes, std::string what) -> awaitable<void> {
    messages::Transfer header;
    header.set_what(what);
    header.set_length(bytes.size());
    co_await c.send(messages::TRANSFER, header);
    co_await c.send_data(bytes);
  };
  auto take = [](Connection& c, Bytes& into) -> awaitable<void> {
    Frame frame = co_await c.receive();
    const auto header = parse<messages::Transfer>(frame);
    while (into.size() < header.length()) {
      co_await c.receive(frame);
      into.insert(into.end(), frame.payload.begin(), frame.payload.end());
    }
  };
  Bytes at_server, at_client;
  p.w.run(send(*p.client, up, "update"), send(*p.server, down, "model"), take(*p.server, at_server),
          take(*p.client, at_client));
  EXPECT_TRUE(at_server == up);
  EXPECT_TRUE(at_client == down);
  EXPECT_GT(p.client->bytes_sent(), up.size());
  EXPECT_EQ(p.client->bytes_sent(), p.server->bytes_received());
}

TEST(Wire, TwoSendersDoNotMixTheirFrames) {
  Pair p;
  constexpr int each = 50;
  auto send = [&](std::uint64_t who) -> awaitable<void> {
    for (int i = 0; i < each; ++i) {
      messages::RunEnd m;
      m.set_run(who);
      m.set_reason(std::string(100'000, static_cast<char>('a' + who)));
      co_await p.client->send(messages::RUN_END, m);
    }
  };
  int good = 0;
  auto take = [&]() -> awaitable<void> {
    for (int i = 0; i < 2 * each; ++i) {
      const Frame frame = co_await p.server->receive();
      const auto m = parse<messages::RunEnd>(frame);
      good += m.reason() == std::string(100'000, static_cast<char>('a' + m.run()));
    }
  };
  p.w.run(send(1), send(2), take());
  EXPECT_EQ(good, 2 * each);
}

TEST(Wire, AReceiveThatWasTooLateLosesNothing) {
  Pair p;
  Bytes big(600'000, 0x61);
  std::string late;
  std::size_t got = 0;
  auto slow = [&]() -> awaitable<void> {
    const auto head = encode(Header{messages::DATA, big.size()});
    co_await p.raw_client().write(head, View(big).first(300'000));
    try {  // the server gives up in the middle of the frame, and tries again
      Frame unused;
      co_await with_deadline(p.server->receive(unused), std::chrono::steady_clock::now() + 20ms, "a whole frame");
    } catch (const Exception& e) {
      late = e.what();
    }
    co_await p.raw_client().write(View(big).subspan(300'000));
    const Frame frame = co_await p.server->receive();
    got = frame.payload.size();
  };
  p.w.run(slow());
  EXPECT_THAT(late, HasSubstr("a whole frame: no answer within"));
  EXPECT_EQ(got, big.size());
}

TEST(Wire, ASendThatWasTooLateTearsNoFrame) {
  Pair p;
  Bytes big(64 << 20, 0x62);  // more than the sockets hold
  std::string late;
  std::size_t frames = 0, bytes = 0;
  auto slow = [&]() -> awaitable<void> {
    try {
      co_await with_deadline(p.client->send_data(big), std::chrono::steady_clock::now() + 20ms, "sending");
    } catch (const Exception& e) {
      late = e.what();
    }
  };
  p.w.run(slow());
  EXPECT_THAT(late, HasSubstr("sending: no answer within"));
  auto last = [&]() -> awaitable<void> { co_await p.client->send(messages::READY, messages::Ready()); };
  auto take = [&]() -> awaitable<void> {
    for (;;) {
      const Frame frame = co_await p.server->receive();
      if (frame.type == messages::READY) co_return;
      ++frames;
      bytes += frame.payload.size();
    }
  };
  p.w.run(last(), take());
  EXPECT_GT(frames, 0u);
  EXPECT_LT(bytes, big.size());
}

TEST(Wire, ClosingEndsAWaitingReceiveOfThisSide) {
  Pair p;
  std::string error;
  auto close = [&]() -> awaitable<void> {
    p.server->close();
    co_return;
  };
  p.w.run(receive_error(*p.server, error), close());
  EXPECT_THAT(error, HasSubstr("closed on this side"));
}

TEST(Wire, ARefusalReachesAPeerThatIsBusySending) {
  Pair p;
  std::string error;
  auto send = [&]() -> awaitable<void> {
    try {
      const Bytes chunk(1 << 20, 1);
      for (;;) co_await p.client->send_data(chunk);
    } catch (const Refused& e) {
      error = e.what();
    } catch (const std::exception& e) {
      error = std::string("not a refusal: ") + e.what();
    }
  };
  auto refuse_it = [&]() -> awaitable<void> {
    co_await p.server->receive();
    attest::Decision d;
    d.add(World::finding(false, "charite (data)", "data.update", "float32 in range", "NaN"));
    co_await refuse(p.server, d, "the update is refused");
  };
  p.w.run(send(), refuse_it());
  EXPECT_THAT(error, AllOf(HasSubstr("the update is refused"), HasSubstr("data.update")));
}

TEST(Wire, TwoReceiversOnOneConnectionAreABrokenPromise) {
  Pair p;
  std::string first, second;
  auto end = [&]() -> awaitable<void> {
    p.client->close();
    co_return;
  };
  p.w.run(receive_error(*p.server, first), receive_error(*p.server, second), end());
  EXPECT_THAT(second, HasSubstr("two coroutines receive"));
  EXPECT_THAT(first, HasSubstr("the peer closed"));
}

}  // namespace
}  // namespace cloister::protocols::channel::tests

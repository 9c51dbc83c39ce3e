// Attacks on the attested connection by somebody who holds keys: each peer here is a class that breaks one rule.

#include <gmock/gmock.h>

#include "protocols/channel/connection.hpp"
#include "world.hpp"

namespace cloister::protocols::channel::tests {
namespace {

using testing::HasSubstr;

attest::Decision anybody(const base::PublicKey&) {
  attest::Decision d;
  d.add({true, "test", "any", "", "", ""});
  return d;
}

/// TLS and frames without the channel's rules on top.
awaitable<std::shared_ptr<FramedConnection>> raw_connect(Endpoint to, base::PrivateKey key) {
  auto socket = co_await dial(to, soon());
  auto tls = std::make_unique<Tls>(std::move(socket), Tls::Role::client, key, View(), anybody, to.text());
  co_await tls->handshake();
  co_return std::make_shared<FramedConnection>(std::move(tls), Tls::Role::client, "raw");
}

awaitable<std::shared_ptr<FramedConnection>> raw_accept(tcp::acceptor& acceptor, base::PrivateKey key) {
  auto socket = co_await acceptor.async_accept(asio::use_awaitable);
  auto tls = std::make_unique<Tls>(std::move(socket), Tls::Role::server, key, View(), anybody, "raw client");
  co_await tls->handshake();
  co_return std::make_shared<FramedConnection>(std::move(tls), Tls::Role::server, "raw");
}

/// Terminates TLS on both sides and forwards every frame. It holds the enclave's TLS private key (leaked from the TEE)
/// and a key that the enclave knows: its own, or the victim's as well.
struct ManInTheMiddle {
  World& w;
  base::PrivateKey leaked_enclave_key;
  base::PrivateKey known_key;
  bool makes_authenticators_anew =
      false;                           ///< with the leaked key, over its own connection, around the genuine evidence
  bool asks_with_own_request = false;  ///< instead of forwarding the victim's request
  tcp::acceptor acceptor{w.io, {asio::ip::address_v4::loopback(), 0}};

  Endpoint endpoint() const { return {"127.0.0.1", acceptor.local_endpoint().port(), {}}; }

  awaitable<void> run() {
    auto victim = co_await raw_accept(acceptor, leaked_enclave_key);
    auto enclave = co_await raw_connect(w.endpoint(), known_key);
    try {
      Bytes request = co_await hello_and_request(*victim, *enclave);
      co_await authenticator(*victim, *enclave, std::move(request));
      co_await forward(*victim, *enclave);  // Accepted, if it came to that
      co_await forward(*enclave, *victim);  // Ready
    } catch (const Exception&) {
      // The victim refused.
    }
    enclave->close();
    victim->close();
  }

 private:
  static awaitable<Frame> take(FramedConnection& from) {
    Frame frame;
    co_await from.receive_raw(frame);
    co_return frame;
  }
  static awaitable<void> give(FramedConnection& to, const Frame& frame) {
    const auto head = encode(Header{frame.type, frame.payload.size()});
    co_await to.tls().write(head, frame.payload);
  }
  static awaitable<void> forward(FramedConnection& from, FramedConnection& to) {
    const Frame frame = co_await take(from);
    co_await give(to, frame);
  }
  awaitable<Bytes> hello_and_request(FramedConnection& victim, FramedConnection& enclave) {
    co_await forward(enclave, victim);
    const Frame frame = co_await take(victim);
    const auto asked = parse<messages::AuthenticatorRequest>(frame);
    Bytes request = base::copy(base::view(asked.request()));
    if (asks_with_own_request) request = make_request(Prover::server, base::random_array<32>());
    messages::AuthenticatorRequest out;
    out.set_request(base::text(request));
    co_await enclave.send(messages::AUTHENTICATOR_REQUEST, out);
    co_return base::copy(base::view(asked.request()));
  }
  awaitable<void> authenticator(FramedConnection& victim, FramedConnection& enclave, Bytes request) {
    Frame frame = co_await take(enclave);
    if (makes_authenticators_anew) {
      const auto genuine = parse<messages::Authenticator>(frame);
      const auto context = parse_request(Prover::server, request).value();
      const auto proven = read_authenticator(enclave.authenticator_keys(Prover::server), request, context,
                                             base::view(genuine.authenticator()), enclave.peer_key());
      messages::Authenticator forged;
      forged.set_authenticator(
          base::text(make_authenticator(victim.authenticator_keys(Prover::server), request, context,
                                        victim.tls().own_certificate(), proven.value().evidence, leaked_enclave_key)));
      co_return co_await victim.send(messages::AUTHENTICATOR, forged);
    }
    co_await give(victim, frame);
  }
};

Outcome attacked(World& w, ManInTheMiddle& mitm) {
  Outcome client, server;
  w.run(World::into(server, w.accept_one(w.identity())), mitm.run(),
        World::into(client,
                    connect_enclave(mitm.endpoint(), w.party, w.expectation(), std::nullopt, soon(), w.party_log.log)));
  EXPECT_FALSE(server.ok());
  return client;
}

TEST(Attack, AManInTheMiddleWithTheEnclavesTlsKeyWhoForwardsEverythingIsRefused) {
  World w;
  const auto mallory = base::PrivateKey::generate();
  w.charter_keys[mallory.public_key()] = "mallory";
  ManInTheMiddle mitm{w, w.enclave_key, mallory};
  const auto client = attacked(w, mitm);
  EXPECT_EQ(client.kind, Error::Kind::denied);
  EXPECT_THAT(client.refusal("channel.authenticator").found, HasSubstr("was not made on this connection"));
  EXPECT_THAT(w.party_log.text(), HasSubstr("channel.authenticator"));
}

TEST(Attack, AManInTheMiddleWhoMakesTheAuthenticatorAnewAroundGenuineEvidenceIsRefused) {
  World w;
  const auto mallory = base::PrivateKey::generate();
  w.charter_keys[mallory.public_key()] = "mallory";
  ManInTheMiddle mitm{
      .w = w, .leaked_enclave_key = w.enclave_key, .known_key = mallory, .makes_authenticators_anew = true};
  const auto client = attacked(w, mitm);
  EXPECT_THAT(client.refusal("channel.report_data").remedy, HasSubstr("made for another connection"));
  EXPECT_THAT(w.party_log.text(), HasSubstr("channel.report_data"));
}

TEST(Attack, AManInTheMiddleWithTheKeysOfBothEndsIsRefusedByTheExporterAlone) {
  World w;
  ManInTheMiddle mitm{
      .w = w, .leaked_enclave_key = w.enclave_key, .known_key = w.party, .makes_authenticators_anew = true};
  const auto client = attacked(w, mitm);
  EXPECT_THAT(client.refusal("channel.report_data").remedy, HasSubstr("made for another connection"));
  ASSERT_TRUE(client.decision);
  EXPECT_EQ(client.decision->refusals().size(), 1u) << client.error;  // everything else was genuine
}

TEST(Attack, AManInTheMiddleWithoutAnyKeyIsRefusedByTheRecord) {
  World w;
  ManInTheMiddle mitm{.w = w, .leaked_enclave_key = base::PrivateKey::generate(), .known_key = w.party};
  const auto client = attacked(w, mitm);
  EXPECT_EQ(client.refusal("channel.tls_key").found, mitm.leaked_enclave_key.public_key().text());
}

// --- Diversion and replay: an enclave's side that gives an authenticator of somewhere else
// ------------------------------

/// Serves Hello and then whatever `answer` makes of the request.
struct CheatingEnclave {
  World& w;
  std::function<Bytes(FramedConnection&, View request)> answer;

  awaitable<void> run() {
    auto victim = co_await raw_accept(w.acceptor, w.enclave_key);
    try {
      messages::Hello hello;
      hello.set_version(1);
      hello.set_charter(base::text(w.charter));
      hello.set_record(base::text(w.record));
      hello.set_grant(World::platform_text(w.granted_platform));
      co_await victim->send(messages::HELLO, hello);
      const Frame frame = co_await victim->receive();
      messages::Authenticator out;
      out.set_authenticator(
          base::text(answer(*victim, base::view(parse<messages::AuthenticatorRequest>(frame).request()))));
      co_await victim->send(messages::AUTHENTICATOR, out);
      co_await victim->receive();
    } catch (const Exception&) {
      // The victim refused.
    }
    victim->close();
  }
};

Outcome meet(World& w, CheatingEnclave cheat) {
  Outcome client;
  w.run(cheat.run(), World::into(client, w.connect_party()));
  EXPECT_FALSE(client.ok());
  return client;
}

TEST(Attack, AnAuthenticatorOfAnotherConnectionIsRefused) {
  World w;
  const auto other = [&] {  // the same enclave, the same party, a connection before
    AuthenticatorKeys keys{"SHA384", Bytes(48, 1), Bytes(48, 2)};
    return keys;
  }();
  const auto client =
      meet(w, {w, [&](FramedConnection& c, View request) {
                 const auto context = parse_request(Prover::server, request).value();
                 return make_authenticator(other, request, context, c.tls().own_certificate(),
                                           w.tee.attest(c.report_data(Prover::server, true, context)), w.enclave_key);
               }});
  EXPECT_THAT(client.refusal("channel.authenticator").found, HasSubstr("replayed or relayed"));
}

TEST(Attack, AnAuthenticatorForAnotherRequestIsRefused) {
  World w;
  const auto client = meet(w, {w, [&](FramedConnection& c, View) {
                                 const auto context = base::random_array<32>();
                                 const auto own = make_request(Prover::server, context);
                                 return make_authenticator(
                                     c.authenticator_keys(Prover::server), own, context, c.tls().own_certificate(),
                                     w.tee.attest(c.report_data(Prover::server, true, context)), w.enclave_key);
                               }});
  EXPECT_THAT(client.refusal("channel.authenticator").found, HasSubstr("for this request"));
}

TEST(Attack, AnAuthenticatorUnderTheClientsLabelsIsRefused) {
  World w;
  const auto client = meet(w, {w, [&](FramedConnection& c, View request) {
                                 const auto context = parse_request(Prover::server, request).value();
                                 return make_authenticator(
                                     c.authenticator_keys(Prover::client), request, context, c.tls().own_certificate(),
                                     w.tee.attest(c.report_data(Prover::server, true, context)), w.enclave_key);
                               }});
  EXPECT_THAT(client.refusal("channel.authenticator").found, HasSubstr("replayed or relayed"));
}

TEST(Attack, AnAuthenticatorWithAnotherKeyThanTheConnectionsIsRefused) {
  World w;
  const auto other = base::PrivateKey::generate();
  const auto client = meet(w, {w, [&](FramedConnection& c, View request) {
                                 const auto context = parse_request(Prover::server, request).value();
                                 return make_authenticator(
                                     c.authenticator_keys(Prover::server), request, context, make_certificate(other),
                                     w.tee.attest(c.report_data(Prover::server, true, context)), other);
                               }});
  EXPECT_THAT(client.refusal("channel.authenticator").found, HasSubstr("wanted the key of the TLS connection"));
}

TEST(Attack, EvidenceForTheOtherDirectionIsRefused) {
  World w;
  const auto client = meet(w, {w, [&](FramedConnection& c, View request) {
                                 const auto context = parse_request(Prover::server, request).value();
                                 return make_authenticator(
                                     c.authenticator_keys(Prover::server), request, context, c.tls().own_certificate(),
                                     w.tee.attest(c.report_data(Prover::client, true, context)), w.enclave_key);
                               }});
  EXPECT_NE(client.refusal("channel.report_data").wanted, "") << client.error;
}

TEST(Attack, AnEnclaveThatDeclinesToProveItselfIsRefused) {
  World w;
  const auto client = meet(w, {w, [&](FramedConnection& c, View request) {
                                 return make_empty_authenticator(c.authenticator_keys(Prover::server), request,
                                                                 parse_request(Prover::server, request).value());
                               }});
  EXPECT_EQ(client.refusal("channel.evidence").found, "an empty authenticator");
}

TEST(Attack, AnAuthenticatorThatIsGarbageIsRefused) {
  World w;
  const auto client = meet(w, {w, [&](FramedConnection&, View) { return Bytes(300, 0xab); }});
  EXPECT_THAT(client.refusal("channel.authenticator").found, HasSubstr("wanted handshake type 11"));
}

// --- A party that cheats
// ----------------------------------------------------------------------------------------------

TEST(Attack, ARequestContextThatIsUsedTwiceIsRefused) {
  World w;
  Outcome server;
  std::string got;
  auto party = [&]() -> awaitable<void> {
    auto c = co_await raw_connect(w.endpoint(), w.party);
    co_await c->receive();  // Hello
    messages::AuthenticatorRequest request;
    request.set_request(base::text(make_request(Prover::server, Array<32>{7})));
    co_await c->send(messages::AUTHENTICATOR_REQUEST, request);
    co_await c->receive();
    co_await c->send(messages::ACCEPTED, messages::Accepted());
    co_await c->receive();  // Ready
    co_await c->send(messages::AUTHENTICATOR_REQUEST, request);
    try {
      co_await c->receive();
    } catch (const Exception& e) {
      got = e.what();
    }
  };
  auto enclave = [&]() -> awaitable<ConnectionPtr> {
    auto c = co_await w.accept_one(w.identity());
    co_await c->receive();
    co_return c;
  };
  w.run(World::into(server, enclave()), party());
  EXPECT_EQ(server.kind, Error::Kind::untrusted);
  EXPECT_THAT(server.error, HasSubstr("used a request context twice"));
  EXPECT_NE(got, "");
}

TEST(Attack, AMessageOutOfTurnEndsTheConnectionWithItsName) {
  World w;
  Outcome server;
  auto party = [&]() -> awaitable<void> {
    auto c = co_await raw_connect(w.endpoint(), w.party);
    co_await c->receive();  // Hello
    co_await c->send(messages::ACCEPTED, messages::Accepted());
  };
  w.run(World::into(server, w.accept_one(w.identity())), party());
  EXPECT_THAT(server.error, HasSubstr("got ACCEPTED while waiting for AuthenticatorRequest"));
}

TEST(Attack, ARefusalsWordsAreCutToPrintableTextOfSaneLength) {
  World w;
  Outcome server;
  auto party = [&]() -> awaitable<void> {
    auto c = co_await raw_connect(w.endpoint(), w.party);
    co_await c->receive();  // Hello
    messages::Refusal refusal;
    refusal.set_reason("\x1b[2Jgone\n" + std::string(100'000, 'x'));
    for (int i = 0; i < 200; ++i) refusal.add_findings()->set_owner("somebody\x07");
    co_await c->send(messages::REFUSAL, refusal);
  };
  w.run(World::into(server, w.accept_one(w.identity())), party());
  ASSERT_TRUE(server.by_peer) << server.error;
  EXPECT_THAT(server.error, Not(HasSubstr("\x1b")));
  EXPECT_LT(server.error.size(), 30'000u);
  EXPECT_LE(server.decision->findings.size(), 64u);
}

}  // namespace
}  // namespace cloister::protocols::channel::tests

// Peers of other versions: they talk, or they are refused by name (docs/how-it-works.md, "Versions").
#include <gmock/gmock.h>

#include "protocols/channel/certificate.hpp"
#include "protocols/channel/connection.hpp"
#include "strangers.hpp"
#include "world.hpp"

namespace cloister::protocols::channel::tests {
namespace {

using testing::HasSubstr;

/// ALPN's list: each name with its length before it.
std::vector<unsigned char> list(const std::vector<std::string>& names) {
  std::vector<unsigned char> out;
  for (const std::string& n : names) {
    out.push_back(static_cast<unsigned char>(n.size()));
    out.insert(out.end(), n.begin(), n.end());
  }
  return out;
}

/// The party of the charter, of a version that offers `protocols`. Gives what the enclave made of it; `told`: what the
/// enclave answered.
Outcome party_offering(World& w, const std::vector<std::string>& protocols, std::string& told) {
  Outcome server;
  Caller caller(w.acceptor.local_endpoint().port(), [&](tcp::socket& s) {
    Ssl ssl(false, s);
    const auto alpn = list(protocols);
    SSL_CTX_set_alpn_protos(ssl.context, alpn.data(), static_cast<unsigned>(alpn.size()));
    const Bytes der = make_certificate(w.party);
    SSL_CTX_use_certificate_ASN1(ssl.context, static_cast<int>(der.size()), der.data());
    SSL_CTX_use_PrivateKey(ssl.context, w.party.get());
    told = ssl.handshake(false);
  });
  w.run(World::into(server, w.accept_one(w.identity())));
  return server;
}

TEST(Versions, APartyThatSpeaksOnlyALaterVersionIsRefusedByName) {
  World w;
  std::string told;
  const Outcome server = party_offering(w, {"cloister/2"}, told);
  EXPECT_EQ(server.kind, Error::Kind::unsupported);
  EXPECT_THAT(server.error, HasSubstr("wanted the protocol cloister/1, found a peer that speaks cloister/2"));
}

TEST(Versions, TheRefusalIsToldToTheParty) {
  World w;
  std::string told;
  {
    const Outcome server = party_offering(w, {"h2", "cloister/3"}, told);
    EXPECT_THAT(server.error, HasSubstr("cloister/3"));
  }
  EXPECT_THAT(told, HasSubstr("no application protocol"));
}

TEST(Versions, NoOthersWordsReachTheLog) {
  World w;
  std::string told;
  EXPECT_THAT(party_offering(w, {"cloister/\n1"}, told).error, HasSubstr("another kind of client"));
}

TEST(Versions, APartyThatSpeaksALaterVersionTooIsServedInThisOne) {
  World w;
  std::string told;
  {
    const Outcome server = party_offering(w, {"cloister/2", "cloister/1"}, told);
    EXPECT_THAT(server.error, testing::Not(HasSubstr("protocol cloister/1"))) << "the handshake is done";
  }
  EXPECT_EQ(told, "connected") << "and the enclave's Hello came";
}

TEST(Versions, AnEnclaveThatSpeaksOnlyALaterVersionIsNamed) {
  World w;
  const auto key = base::PrivateKey::generate();
  Outcome client;
  Listener listener([&](tcp::socket& s) {
    Ssl ssl(true, s);
    SSL_CTX_set_alpn_select_cb(
        ssl.context,
        [](SSL*, const unsigned char**, unsigned char*, const unsigned char*, unsigned, void*) {
          return SSL_TLSEXT_ERR_ALERT_FATAL;
        },
        nullptr);
    const Bytes der = make_certificate(key);
    SSL_CTX_use_certificate_ASN1(ssl.context, static_cast<int>(der.size()), der.data());
    SSL_CTX_use_PrivateKey(ssl.context, key.get());
    ssl.handshake(true);
  });
  w.run(World::into(client, connect_enclave({"127.0.0.1", listener.port(), {}}, w.party, w.expectation(), std::nullopt,
                                            soon(), w.party_log.log)));
  EXPECT_EQ(client.kind, Error::Kind::unsupported);
  EXPECT_THAT(client.error, HasSubstr("does not speak the protocol cloister/1"));
  EXPECT_THAT(client.error, HasSubstr("a Cloister of another protocol version"));
}

// --- After the handshake ---------------------------------------------------------------------------------------------

/// An enclave whose first frame is `type` with `payload`; the frame's header can be edited.
struct Speaker {
  World& w;
  Bytes payload;
  MessageType type = messages::HELLO;
  std::function<void(Array<header_size>&)> edit = [](Array<header_size>&) {};

  Outcome meet() {
    Outcome client;
    auto speak = [](Speaker& self) -> awaitable<void> {
      auto socket = co_await self.w.acceptor.async_accept(asio::use_awaitable);
      auto anybody = [](const base::PublicKey&) {
        attest::Decision d;
        d.add({true, "test", "any", "", "", ""});
        return d;
      };
      auto tls =
          std::make_unique<Tls>(std::move(socket), Tls::Role::server, self.w.enclave_key, View(), anybody, "party");
      co_await tls->handshake();
      auto head = encode(Header{self.type, self.payload.size()});
      self.edit(head);
      co_await tls->write(head, self.payload);
      auto c = std::make_shared<FramedConnection>(std::move(tls), Tls::Role::server, "party");
      try {
        // The party has asked already; an answer that proves nothing brings its verdict on Hello, or on that.
        co_await c->expect<messages::AuthenticatorRequest>(messages::AUTHENTICATOR_REQUEST, soon(), "the request");
        co_await c->send(messages::AUTHENTICATOR, messages::Authenticator());
        Frame answer;
        co_await with_deadline(c->receive_raw(answer), soon(), "the party's verdict");
      } catch (const Exception& e) {
        self.told = e.what();
      }
    };
    w.run(speak(*this), World::into(client, w.connect_party()));
    return client;
  }
  std::string told{};
};

Bytes hello(World& w, std::uint32_t version) {
  messages::Hello h;
  h.set_version(version);
  h.set_charter(base::text(w.charter));
  h.set_record(base::text(w.record));
  h.set_grant(World::platform_text(w.granted_platform));
  h.set_software("cloister-aggregator 9.9");
  return base::copy(base::view(h.SerializeAsString()));
}

TEST(Versions, AHelloOfALaterVersionIsRefusedByBothNames) {
  World w;
  Speaker enclave{w, hello(w, 2)};
  const Outcome client = enclave.meet();
  const attest::Finding refusal = client.refusal("channel.version");
  EXPECT_EQ(refusal.wanted, "1");
  EXPECT_EQ(refusal.found, "2");
  EXPECT_THAT(refusal.remedy, HasSubstr("same channel version on both sides"));
  EXPECT_THAT(enclave.told, HasSubstr("channel.version: wanted 1, found 2")) << "the other side's people read it too";
}

TEST(Versions, FieldsThatALaterHelloAddsAreIgnored) {
  World w;
  Bytes payload = hello(w, 1);
  // Field 99, length-delimited: "later"; field 100, a number.
  const Array<11> later{0x9a, 0x06, 5, 'l', 'a', 't', 'e', 'r', 0xa0, 0x06, 7};
  payload.insert(payload.end(), later.begin(), later.end());
  Speaker enclave{w, payload};
  enclave.meet();
  EXPECT_THAT(enclave.told, HasSubstr("channel.authenticator: wanted")) << "Hello was taken, and the next thing judged";
}

TEST(Versions, AFrameOfALaterTypeEndsTheConnectionByName) {
  World w;
  Speaker enclave{w, hello(w, 1)};
  enclave.edit = [](Array<header_size>& h) { h[2] = 0x7f, h[3] = 0x01; };
  const Outcome client = enclave.meet();
  EXPECT_EQ(client.kind, Error::Kind::unsupported);
  EXPECT_THAT(client.error, HasSubstr("no message has the type 32513"));
}

TEST(Versions, AFrameOfALaterFramingOrWithItsFlagsIsRefusedByName) {
  World w;
  Speaker later{w, hello(w, 1)};
  later.edit = [](Array<header_size>& h) { h[0] = 2; };
  EXPECT_THAT(later.meet().error, HasSubstr("frame.version: wanted 1, found 2"));
  Speaker flagged{w, hello(w, 1)};
  flagged.edit = [](Array<header_size>& h) { h[7] = 1; };
  EXPECT_THAT(flagged.meet().error, HasSubstr("reserved bits are set"));
}

}  // namespace
}  // namespace cloister::protocols::channel::tests

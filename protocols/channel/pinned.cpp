// Links between two keys that the charter pins, and how any connection ends with a reason.

#include <boost/asio/this_coro.hpp>

#include "protocols/channel/connection.hpp"

namespace cloister::protocols::channel {

namespace {

std::string peer_name(const tcp::socket& socket) {
  boost::system::error_code ec;
  const auto end = socket.remote_endpoint(ec);
  return ec ? "a peer that has gone" : end.address().to_string() + ":" + std::to_string(end.port());
}

attest::Decision judge_server_key(const std::optional<base::PublicKey>& wanted, const base::PublicKey& found) {
  const bool met = !wanted || *wanted == found;
  attest::Finding f =
      unmet("parties.tls_key", wanted ? wanted->text() : "any key, judged by its instance evidence", found.text(),
            "dial the host whose key the charter pins, or found a charter with the key it has now");
  f.met = met;
  return denial(std::move(f));
}

}  // namespace

awaitable<ConnectionPtr> connect_pinned(Endpoint to, Credentials own_tls, std::optional<base::PublicKey> server,
                                        Deadline deadline) {
  auto socket = co_await dial(to, deadline);
  auto tls = std::make_unique<Tls>(
      std::move(socket), Tls::Role::client, own_tls, View(),
      [server](const base::PublicKey& key) { return judge_server_key(server, key); }, to.text());
  co_await with_deadline(tls->handshake(), deadline, to.text() + ": TLS handshake");
  auto connection =
      std::make_shared<FramedConnection>(std::move(tls), Tls::Role::client, server ? "server" : "aggregator");
  // In TLS 1.3 a client is done before the server has looked at its certificate: only Ready says that we are known.
  co_await connection->expect<messages::Ready>(messages::READY, deadline,
                                               "Ready (does the peer take this key for another role?)");
  co_return connection;
}

attest::Decision judge_client_key(const Known& known, const base::PublicKey& key) {
  attest::Finding f = unmet("parties.tls_key", "a TLS key that the charter lists", key.text(),
                            "name this key in the manifest and found the charter again, or use the key that it names");
  f.met = known(key).has_value();
  return denial(std::move(f));
}

awaitable<std::shared_ptr<FramedConnection>> accept_tls(tcp::socket socket, const Credentials& own, View dice,
                                                        const Known& known, Deadline deadline,
                                                        std::shared_ptr<base::Log> log) {
  const std::string peer = peer_name(socket);
  auto tls = std::make_unique<Tls>(
      std::move(socket), Tls::Role::server, own, dice,
      [known](const base::PublicKey& key) { return judge_client_key(known, key); }, peer);
  try {
    co_await with_deadline(tls->handshake(), deadline, peer + ": TLS handshake");
  } catch (const Refused& refused) {
    if (log) attest::log_refusals(*log, refused.decision(), peer);
    throw;
  }
  auto owner = known(tls->peer_key());
  co_return std::make_shared<FramedConnection>(std::move(tls), Tls::Role::server, owner.value_or(""));
}

awaitable<ConnectionPtr> accept_pinned(tcp::socket socket, Credentials own_tls, Known known, Deadline deadline,
                                       std::shared_ptr<base::Log> log) {
  auto connection = co_await accept_tls(std::move(socket), own_tls, View(), known, deadline, log);
  co_await with_deadline(connection->send(messages::READY, messages::Ready()), deadline,
                         connection->name() + ": sending Ready");
  co_return connection;
}

awaitable<void> refuse(ConnectionPtr connection, attest::Decision decision, std::string reason, bool retry) {
  constexpr std::chrono::milliseconds at_most{2000};
  try {
    const auto message = refusal_message(decision, reason, retry);
    co_await with_deadline(connection->send(messages::REFUSAL, message), std::chrono::steady_clock::now() + at_most,
                           "sending a refusal");
    if (auto* framed = dynamic_cast<FramedConnection*>(connection.get())) co_await framed->tls().linger(at_most);
  } catch (const std::exception&) {
    // A peer that does not listen to its refusal is refused all the same.
  }
  connection->close();
}

}  // namespace cloister::protocols::channel

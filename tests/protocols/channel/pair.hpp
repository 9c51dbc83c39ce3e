#pragma once
// Two ends of a pinned link over loopback TCP.

#include "protocols/channel/connection.hpp"
#include "world.hpp"

namespace cloister::protocols::channel::tests {

inline std::pair<Outcome, Outcome> meet_pinned(World& w, base::PrivateKey client_key,
                                               std::optional<base::PublicKey> wanted) {
  Outcome client, server;
  w.run(World::into(server, w.accept_one_pinned(w.enclave_key)),
        World::into(client, connect_pinned(w.endpoint(), client_key, wanted, soon())));
  return {std::move(client), std::move(server)};
}

/// The party and the server it pins, connected.
struct Pair {
  World w;
  ConnectionPtr client, server;
  Pair() {
    auto [c, s] = meet_pinned(w, w.party, w.enclave_key.public_key());
    client = c.connection;
    server = s.connection;
  }
  Tls& raw_client() { return dynamic_cast<FramedConnection&>(*client).tls(); }
};

}  // namespace cloister::protocols::channel::tests

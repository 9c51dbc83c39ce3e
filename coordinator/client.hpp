#pragma once
// The submitter's side of a request to a coordinator.

#include <functional>

#include "base/crypto.hpp"
#include "protocols/channel/frame.hpp"

namespace cloister::coordinator {

struct Remote {
  std::string host;
  std::uint16_t port = 0;
  std::string proxy;       ///< "host:port" of an HTTP CONNECT proxy, or empty
  base::PublicKey server;  ///< the model owner's TLS key: nobody else may answer
  base::PrivateKey key;    ///< the submitter's
};

/// Sends one request and hands every answer to `on`, until that gives false. Blocks; each answer must come within
/// `patience`. Throws denied with its reasons when the coordinator refuses, unavailable when it is not there or the
/// connection is cut.
void ask(const Remote& remote, protocols::messages::MessageType type, const google::protobuf::MessageLite& request,
         const std::function<bool(const protocols::channel::Frame&)>& on,
         std::chrono::seconds patience = std::chrono::seconds(60),
         std::chrono::seconds dial_for = std::chrono::seconds(0));

}  // namespace cloister::coordinator

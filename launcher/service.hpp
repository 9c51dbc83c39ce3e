#pragma once
// The launcher as the coordinator sees it: pinned links in, requests judged, instances started and watched.

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <memory>
#include <string>

#include "launcher/instance.hpp"

namespace cloister::launcher {

/// Single-threaded: all calls on the executor's one thread.
class Service {
 public:
  /// `acceptor`: open and listening. `tools.agent` and the rest must outlive the service.
  Service(boost::asio::ip::tcp::acceptor acceptor, Tools tools);
  ~Service();

  /// Serves until stop(), then ends every instance and returns when the last one is gone. Throws only what accept()
  /// throws.
  boost::asio::awaitable<void> run();
  void stop();

 private:
  struct Link;
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace cloister::launcher

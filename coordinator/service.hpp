#pragma once
// The coordinator as a whole: listens for submitters, and drives every study's runs.

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <memory>
#include <set>
#include <vector>

#include "coordinator/config.hpp"
#include "coordinator/driver.hpp"
#include "coordinator/requests.hpp"

namespace cloister::coordinator {

/// All coroutines run on the one executor that it is given (a single-threaded io_context).
class Service {
 public:
  /// Adds the configuration's studies to the store. Configuration, store and peers outlive it.
  Service(boost::asio::any_io_executor executor, const Configuration& configuration, Store& store, Peers& peers,
          std::shared_ptr<base::Log> log);

  /// Listens and picks up what an earlier process left unfinished. Throws unavailable when the address is taken.
  void start();
  /// Where it listens, once started.
  std::uint16_t port() const { return port_; }
  /// Soon after this the executor has no more work of ours. Runs and instances stay as they are, for the next start.
  void stop();
  /// What ended it against its will: a disk or a database that failed.
  const std::string& failure() const { return failure_; }

 private:
  awaitable<void> accept();
  awaitable<void> serve(boost::asio::ip::tcp::socket socket);
  template <class After>
  void spawn(awaitable<void> work, std::string what, After&& after);

  const Configuration& configuration_;
  boost::asio::any_io_executor executor_;
  Store& store_;
  std::shared_ptr<base::Log> log_;
  Board board_;
  std::vector<std::unique_ptr<Driver>> drivers_;
  Requests requests_;
  boost::asio::ip::tcp::acceptor acceptor_;
  std::set<channel::Connection*> open_;
  std::uint16_t port_ = 0;
  std::size_t connections_ = 0;
  bool stopping_ = false;
  std::string failure_;
};

}  // namespace cloister::coordinator

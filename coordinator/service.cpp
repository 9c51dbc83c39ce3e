#include "coordinator/service.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "base/deadline.hpp"

namespace cloister::coordinator {

using boost::asio::ip::tcp;
using std::chrono::steady_clock;

namespace {

/// Submitters are few; more connections than this are somebody's mistake or an attack.
constexpr std::size_t connections_at_most = 64;
constexpr std::chrono::seconds handshake_at_most{10};

std::string text(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const std::exception& e) {
    return e.what();
  }
}

}  // namespace

Service::Service(boost::asio::any_io_executor executor, const Configuration& configuration, Store& store, Peers& peers,
                 std::shared_ptr<base::Log> log)
    : configuration_(configuration),
      executor_(executor),
      store_(store),
      log_(log),
      requests_(drivers_, store, board_, configuration.order, log),
      acceptor_(executor) {
  for (const StudyFiles& study : configuration.studies) {
    store.add_study(study.charter, base::now());
    if (attest::is_simulated(study.charter)) log->set_simulated(true);
    drivers_.push_back(
        std::make_unique<Driver>(executor, study, store, peers, board_, log, configuration.instance_idle));
  }
}

/// Runs `work` beside the rest; `after` gets its failure, or null.
template <class After>
void Service::spawn(awaitable<void> work, std::string what, After&& after) {
  boost::asio::co_spawn(executor_, std::move(work),
                        [this, what = std::move(what), after = std::forward<After>(after)](std::exception_ptr failure) {
                          after(failure && !stopping_ ? what + ": " + text(failure) : std::string());
                        });
}

void Service::start() {
  const std::string address = configuration_.host + ":" + std::to_string(configuration_.port);
  boost::system::error_code failed;
  tcp::resolver resolver(executor_);
  const auto found =
      resolver.resolve(configuration_.host, std::to_string(configuration_.port), tcp::resolver::passive, failed);
  if (!failed) {
    const tcp::endpoint endpoint = found.begin()->endpoint();
    acceptor_.open(endpoint.protocol(), failed);
    if (!failed) acceptor_.set_option(tcp::acceptor::reuse_address(true), failed);
    if (!failed) acceptor_.bind(endpoint, failed);
    if (!failed) acceptor_.listen(boost::asio::socket_base::max_listen_connections, failed);
  }
  if (failed) throw Exception(base::unavailable(address, "cannot listen here: " + failed.message()));
  port_ = acceptor_.local_endpoint().port();
  log_->event("listening", "listening on " + configuration_.host + ":" + std::to_string(port_), {{"port", port_}});

  auto fatal = [this](const std::string& failure) {
    if (failure.empty()) return;
    failure_ = failure;
    log_->event("coordinator_failed", failure);
    stop();
  };
  spawn(accept(), "accepting submitters", fatal);
  for (const auto& driver : drivers_) {
    for (const Run& run : store_.unfinished(driver->charter().digest))
      log_->event("run_picked_up", "run " + std::to_string(run.id.run) + " was " + std::string(name(run.state)),
                  {{"run", run.id.run}, {"state", name(run.state)}});
    spawn(driver->run(), "study " + driver->charter().manifest.study, fatal);
  }
}

void Service::stop() {
  stopping_ = true;
  boost::system::error_code ignored;
  acceptor_.close(ignored);
  for (const auto& driver : drivers_) driver->stop();
  for (channel::Connection* connection : open_) connection->close();
  board_.stopping = true;
  board_.notice.raise();
}

awaitable<void> Service::accept() {
  while (!stopping_) {
    boost::system::error_code failed;
    tcp::socket socket =
        co_await acceptor_.async_accept(boost::asio::redirect_error(boost::asio::use_awaitable, failed));
    if (stopping_) co_return;
    if (failed) {  // out of descriptors, or a peer that has gone: the next one may do
      log_->event("accept_failed", failed.message());
      co_await board_.notice.after(board_.notice.version(), steady_clock::now() + std::chrono::seconds(1));
      continue;
    }
    if (connections_ >= connections_at_most) {
      log_->event("connection_refused", "more than " + std::to_string(connections_at_most) + " connections");
      continue;
    }
    ++connections_;
    spawn(serve(std::move(socket)), "a submitter's connection", [this](const std::string& failure) {
      --connections_;
      if (!failure.empty()) log_->event("connection_failed", failure);
    });
  }
}

awaitable<void> Service::serve(tcp::socket socket) {
  const channel::Known known = [this](const base::PublicKey& key) { return requests_.known(key); };
  const auto connection = co_await channel::accept_pinned(std::move(socket), configuration_.tls, known,
                                                          steady_clock::now() + handshake_at_most, log_);
  struct Open {
    std::set<channel::Connection*>& set;
    channel::Connection* connection;
    ~Open() { set.erase(connection); }
  } open{open_, connection.get()};
  open_.insert(connection.get());
  co_await requests_.serve(connection);
}

}  // namespace cloister::coordinator

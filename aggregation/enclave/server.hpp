#pragma once
// The aggregator's process without its main: listens, knows its peers by the charter's keys, holds each to its role,
// and has one run at a time. All of it lives on one single-threaded io_context; sums and reductions have one pool
// thread.

#include <boost/asio/io_context.hpp>
#include <boost/asio/thread_pool.hpp>

#include "aggregation/enclave/run_driver.hpp"

namespace cloister::enclave {

struct ServerOptions {
  std::size_t slots = 4;                  ///< updates that are staged in memory at a time
  std::function<Time()> now = base::now;  ///< the host's clock: decides liveness only (docs/threat-model.md)
  std::function<std::chrono::steady_clock::time_point()> steady = std::chrono::steady_clock::now;
};

class Server {
 public:
  /// Binds the launch document's host and port (0: any). Error unavailable: the address is taken. `tee` outlives the
  /// server.
  static Result<std::unique_ptr<Server>> make(boost::asio::io_context& io, Tee& tee, Instance instance,
                                              std::shared_ptr<base::Log> log, ServerOptions options = {});
  ~Server();

  /// Serves until end(), the launcher's LaunchEnd, the launch's duration, the TEE's end, or a launcher's link that was
  /// lost for longer than its grant. A run that is under way then has failed, and its peers are told why. Gives the
  /// reason.
  awaitable<std::string> serve();
  void end(std::string reason);

  std::uint16_t port() const;
  const Instance& instance() const { return *instance_; }
  std::size_t connections() const { return open_; }

 private:
  struct Peer {
    LinkPtr link;
    bool greeted = false;  ///< its ParticipantHello was taken
  };
  Server(boost::asio::io_context& io, Tee& tee, Instance instance, Plan plan, boost::asio::ip::tcp::acceptor acceptor,
         std::shared_ptr<base::Log> log, ServerOptions options);

  awaitable<void> accept_all();
  awaitable<void> watch();
  bool make_room();
  awaitable<void> session(boost::asio::ip::tcp::socket socket);
  awaitable<void> read(LinkPtr link);
  awaitable<void> launcher(LinkPtr link);
  awaitable<void> coordinator(LinkPtr link);
  awaitable<void> participant(LinkPtr link);
  awaitable<void> run_order(LinkPtr link, messages::RunOrder message);
  awaitable<ModelPtr> receive_model(LinkPtr link, std::uint64_t length, bool keep);
  void between_runs(const LinkPtr& link, const channel::Frame& frame);

  std::optional<std::string> owner_of(const base::PublicKey& key) const;
  attest::Decision judge_peer(const std::string& owner, const attest::Claims* claims) const;
  attest::Decision judge_run(const attest::RunOrder& order) const;
  void take_grant(const messages::Grant& message);
  bool granted() const;
  void begin_run(attest::RunOrder order, ModelPtr model);
  void refuse(LinkPtr link, attest::Decision decision, std::string reason, bool retry = false);
  void report_to_launcher(std::string state, std::string reason);
  void take_withdrawal(const std::string& owner, View statement);
  void join(const LinkPtr& link);
  void leave(const LinkPtr& link);

  boost::asio::io_context& io_;
  Tee& tee_;
  std::shared_ptr<const Instance> instance_;
  std::shared_ptr<const Plan> plan_;
  boost::asio::ip::tcp::acceptor acceptor_;
  std::shared_ptr<base::Log> log_;
  ServerOptions options_;
  boost::asio::thread_pool pool_{1};
  channel::EnclaveIdentity identity_;
  std::chrono::milliseconds patience_;  ///< the charter's channel deadline
  std::chrono::steady_clock::time_point started_;

  std::map<std::string, Peer> participants_;
  LinkPtr launcher_;
  Bytes grant_;
  std::optional<Time> grant_until_;
  bool grant_told_ = false;  ///< what the run was told last
  bool ordering_ = false;    ///< an order's model is on its way
  CoordinatorFeed feed_;
  base::Sha256 order_{};  ///< of the run that the feed tells of
  std::shared_ptr<RunDriver> run_;
  std::vector<std::uint64_t> runs_;           ///< numbers that this instance has used
  std::map<std::string, Bytes> withdrawals_;  ///< by owner, seen between runs

  /// A connection whose peer has not proven a key of the charter yet. The copy of its descriptor ends it from outside.
  class Unproven {
   public:
    explicit Unproven(int socket);
    Unproven(const Unproven&) = delete;
    ~Unproven();
    void cut() const;

   private:
    int copy_;
  };
  std::map<std::uint64_t, Unproven> unproven_;  ///< by order of arrival
  std::uint64_t arrivals_ = 0;
  std::size_t open_ = 0;
  std::chrono::steady_clock::time_point turned_away_{};  ///< the last time that a connection was not taken
  std::optional<std::string> ended_;
  boost::asio::steady_timer end_signal_, drained_;
};

}  // namespace cloister::enclave

#pragma once
// A hospital's node: keeps connected to the study's aggregator, lets the gate judge what is offered, charges the
// ledger, has the trainer work, and signs receipts as a witness. It drives protocols/round's Participant; every durable
// step of that machine is on disk before the next one is begun. After a restart it goes on where ledger and records
// say.

#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/thread_pool.hpp>
#include <exception>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "participant/clock.hpp"
#include "participant/config.hpp"
#include "participant/formats.hpp"
#include "participant/gate.hpp"
#include "participant/link.hpp"
#include "participant/model_file.hpp"
#include "participant/run_files.hpp"
#include "participant/store.hpp"
#include "participant/withdrawal.hpp"

namespace cloister::participant {

struct NodeOptions {
  Config config;
  std::uint32_t runs = 0;                      ///< end after as many runs have ended; 0: never
  bool once = false;                           ///< end at the first refusal instead of trying again
  std::optional<attest::Attester> attester{};  ///< when node and trainer run in a TEE of their own
  protocols::channel::VerifyEvidence verify = attest::verify_evidence;
  std::function<Time()> clock = base::now;  ///< the wall clock
  std::function<std::chrono::nanoseconds()> passed = time_passed;
  std::optional<std::uint16_t> port{};  ///< instead of the charter's; what answers there must prove itself all the same
  std::chrono::milliseconds first_pause{200}, longest_pause{5000}, refused_pause{10000};  ///< link.hpp
};

/// Why run() returned.
struct NodeEnd {
  enum class Kind { done, failed, denied, stopped } kind = Kind::stopped;
  std::string reason;
};

/// Lives on one single-threaded executor. Must outlive its run().
class Node {
 public:
  /// Loads and checks charter, policy, keys and ledger (which it holds while it lives). Errors name what is wrong with
  /// which.
  static Result<std::unique_ptr<Node>> open(NodeOptions options, boost::asio::any_io_executor executor,
                                            std::shared_ptr<base::Log> log);
  ~Node();

  boost::asio::awaitable<NodeEnd> run();
  /// Ends run() at its next step: a signal's handler may call it through the executor.
  void stop(std::string reason);

  const Ledger& ledger() const { return *ledger_; }

 private:
  using Steps = protocols::round::ParticipantSteps;
  struct Loaded;
  Node(NodeOptions options, Loaded loaded, boost::asio::any_io_executor executor, std::shared_ptr<base::Log> log);

  // node.cpp: what happens
  boost::asio::awaitable<void> handle(Happening& happening);
  boost::asio::awaitable<void> on(Opened& opened);
  boost::asio::awaitable<void> on(Closed& closed);
  boost::asio::awaitable<void> on(Received& received);
  boost::asio::awaitable<void> on(TaskDone& done);
  boost::asio::awaitable<void> on(TaskFailed& failed);
  boost::asio::awaitable<void> on(DeadlineCame& came);
  boost::asio::awaitable<void> on(FilesChanged& changed);
  boost::asio::awaitable<void> on(StopAsked& asked);
  boost::asio::awaitable<void> on_data(View bytes);
  boost::asio::awaitable<void> on_offer(const protocols::messages::Offer& offer);
  protocols::channel::EnclaveExpectation expectation();
  attest::Decision gate(const protocols::round::OfferedTask& offered);
  bool order_allowed(const attest::RunOrder& order);
  bool begin_run(std::uint64_t run);
  void resume();
  boost::asio::awaitable<void> watch_folders();
  boost::asio::awaitable<void> check_withdrawal();
  void check_succession();
  Time judging_time();
  void say_clock(std::chrono::seconds jump, Time seen);
  boost::asio::awaitable<void> ensure_trainer(const attest::Settings& settings);
  boost::asio::awaitable<void> task(std::uint64_t number, protocols::round::RunTask asked);
  void spawn(boost::asio::awaitable<void> child, boost::asio::cancellation_slot slot = {});

  // node_steps.cpp: what the round's machine wants done
  boost::asio::awaitable<void> perform(Steps steps);
  void perform_local(const protocols::round::ParticipantStep& step);
  boost::asio::awaitable<void> send(const protocols::round::Message& message);
  Result<void> charge(const protocols::round::Charge& step);
  Result<void> store(const protocols::round::StoreUpdate& step);
  Result<void> sign(const protocols::round::SignReceipt& step);
  Result<void> keep(const protocols::round::Keep& step);
  /// Counts what is sent again after a cut, and tells the aggregator in the transfer's header.
  protocols::round::Message counted(const protocols::round::Message& message);
  Result<Steps> need_model(const protocols::round::NeedModel& step);
  Steps model_arrived();
  boost::asio::awaitable<Steps> send_update(const protocols::round::SendUpdate& step);
  boost::asio::awaitable<Result<StoredUpdate>> put_aside(RoundId id, View update, std::uint64_t weight);
  void run_task(const protocols::round::RunTask& step);
  void stop_task();
  void end_run(const protocols::round::Ended& step);
  void set_deadline(const protocols::round::SetDeadline& step);
  void on_refused(const protocols::round::Refused& step);
  void publish(const protocols::round::Publish& step);
  boost::asio::awaitable<void> give_up(const Error& error, std::uint32_t round);
  boost::asio::awaitable<void> decline(Error error, std::uint32_t round);
  RoundId round_id(std::uint32_t round) const { return {charter_->digest, machine_->run(), round}; }

  NodeOptions options_;
  std::shared_ptr<const Clock> clock_;
  boost::asio::any_io_executor executor_;
  std::shared_ptr<base::Log> log_;
  std::shared_ptr<const attest::Charter> charter_;
  std::optional<base::Sha256> allowed_order_;  ///< digest of the last run order that was judged and allowed
  base::PrivateKey tls_, witness_;
  std::unique_ptr<Ledger> ledger_;
  UpdateStore updates_;
  RunFiles files_;
  Formats formats_;
  base::Sha256 trainer_digest_{};

  Inbox inbox_;
  Link link_;
  boost::asio::cancellation_signal hang_up_;  ///< ends a dial that is under way
  protocols::channel::ConnectionPtr connection_;
  std::optional<Array<32>> host_data_;  ///< of the grant in force
  std::optional<protocols::round::Participant> machine_;
  std::optional<StoredWithdrawal> withdrawal_;
  bool clock_off_ = false;  ///< said once

  ModelFile model_;
  struct Incoming {
    base::Sha256 digest{};
    std::uint64_t left = 0;
  };
  std::optional<Incoming> incoming_;  ///< DATA frames of a model that are under way
  struct Uploaded {
    RoundId round;
    std::uint64_t up_to = 0;     ///< bytes of that round's update that were ever given to a connection
    std::uint64_t repeated = 0;  ///< of the transfer under way
  } uploaded_;
  std::uint64_t repeated_in_ = 0;  ///< bytes of the present model that the aggregator sent again
  base::PublicKey receipt_key_;    ///< of the instance on the open connection

  std::shared_ptr<Trainer> trainer_;
  std::optional<std::uint64_t> trainer_run_;  ///< whose settings it was started with
  std::string trainer_failure_;
  std::uint64_t task_ = 0;              ///< number of the task under way, or of the last one
  std::string task_kind_;               ///< of it
  std::optional<StoredUpdate> answer_;  ///< in the store, not yet recorded
  struct Timer {
    std::uint64_t setting = 0;
    std::unique_ptr<boost::asio::steady_timer> timer;
  };
  std::map<std::string, Timer, std::less<>> timers_;
  std::uint64_t settings_ = 0;

  std::uint32_t runs_ended_ = 0;
  std::string failed_run_;  ///< why the last run that was not done ended
  std::optional<NodeEnd> end_;

  std::unique_ptr<boost::asio::posix::stream_descriptor> watch_;
  int children_ = 0;  ///< coroutines of ours that still run
  std::exception_ptr failure_;
  boost::asio::steady_timer quiet_;     ///< cancelled when one of them ends
  boost::asio::thread_pool worker_{1};  ///< for passes over a whole update
};

}  // namespace cloister::participant

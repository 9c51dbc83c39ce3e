#pragma once
// One run: feeds protocols/round's aggregator machine with what the links, the pool and the timers report, and does its
// steps. All rules of a round are the machine's; all sums are the reducer's. What is here is order, memory and time.

#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <deque>

#include "aggregation/enclave/coordinator_feed.hpp"
#include "aggregation/enclave/instance.hpp"
#include "aggregation/enclave/reducer.hpp"
#include "protocols/round/aggregator.hpp"

namespace cloister::enclave {

namespace round = protocols::round;
using ModelPtr = std::shared_ptr<const aggregation::ModelFile>;

/// What a run needs of the server. The callbacks are called on the server's strand.
struct RunContext {
  boost::asio::any_io_executor executor;  ///< the server's strand
  boost::asio::any_io_executor pool;      ///< one thread: its order of work is the order of the steps
  std::shared_ptr<const Instance> instance;
  std::shared_ptr<const Plan> plan;
  std::shared_ptr<base::Log> log;
  std::size_t slots = 4;                                  ///< updates that are staged in memory at a time
  std::function<LinkPtr(const std::string& owner)> link;  ///< of a data owner that is connected and allowed, or null
  std::function<void(const LinkPtr&, std::string reason)> refuse;     ///< tell this peer why and close
  std::function<void(std::string state, std::string reason)> report;  ///< to the launcher
  CoordinatorFeed* feed = nullptr;                                    ///< outlives the run
};

/// Lives on the server's strand. Keeps answering participants after its end, so that one who was away hears how it
/// went.
class RunDriver : public std::enable_shared_from_this<RunDriver> {
 public:
  /// Judges nothing: the caller has judged the order. Errors: the machine's and the reducer's.
  static Result<std::shared_ptr<RunDriver>> create(RunContext context, attest::RunOrder order, ModelPtr model,
                                                   std::vector<Bytes> withdrawals);
  ~RunDriver();

  /// Begins the first round. `greeted`: owners whose connection is open and whose hello was taken before this run.
  void start(const std::vector<std::string>& greeted, bool grant);

  void connected(const std::string& owner);
  void disconnected(const std::string& owner);
  void on_frame(const std::string& owner, const channel::Frame& frame);
  /// Are data frames of this owner under way?
  bool receiving(const std::string& owner) const { return incoming_.contains(owner); }
  void grant(bool valid);
  void cancel(std::string reason);
  /// An internal failure: the run ends as failed, with its reason to everybody.
  void fail(std::string reason);

  bool finished() const { return machine_.finished(); }
  std::uint64_t run() const { return machine_.run(); }
  std::vector<Bytes> withdrawals() const { return machine_.withdrawals(); }

 private:
  /// DATA frames that are on their way from an owner.
  struct Incoming {
    std::uint32_t round = 0;
    std::uint64_t left = 0;
    bool swallow = false;  ///< nobody wants them any more
  };
  struct Traffic {
    std::uint64_t in = 0, out = 0;
    std::uint64_t repeated = 0;  ///< of both: bytes that were on their way before a cut and went again after it
  };
  /// How much of which model was ever given to an owner's connections.
  struct Sent {
    base::Sha256 model{};
    std::uint64_t up_to = 0;
  };
  struct Whole {
    std::string owner;
    std::uint32_t round = 0;
  };
  template <class Work, class Then>
  void in_pool(Work work, Then then);

  RunDriver(RunContext context, round::Aggregator machine, Reducer reducer);
  void apply(round::AggregatorSteps steps);
  template <class Event>
  void tell(Event event);  ///< an input of the machine whose failure ends the run

  void act(round::SendTo& step);
  void act(round::SendMissed& step);
  void act(round::SendModel& step);
  void act(round::BeginTask& step);
  void act(round::OpenSlot& step);
  void act(round::Receive& step);
  void act(round::Swallow& step);
  void act(round::DropSlot& step);
  void act(round::Add& step);
  void act(round::Reduce& step);
  void act(round::SetDeadline& step);
  void act(round::ClearDeadline& step);
  void act(round::Report& step);
  void act(round::Record& step);
  void act(round::PublishResult& step);
  void act(round::Refuse& step);
  void act(round::LogRefusal& step);
  void act(round::Finish& step);

  ModelPtr file_of(const base::Sha256& digest) const;
  std::size_t slots(const std::string& task) const;
  void on_data(const std::string& owner, View bytes);
  void forget(const std::string& owner);
  void resumed(const std::string& owner, std::string_view what, std::uint64_t offset, std::uint64_t repeated);
  void complete_next();
  void completed(const Whole& whole, Result<base::Sha256> digest);
  void reduced(std::uint32_t round, Result<Reduced> reduced);
  void show_status();
  void show_soon();
  void show_progress();
  void refuse_update(const std::string& owner, std::uint32_t round, const Error& error);

  RunContext context_;
  round::Aggregator machine_;
  std::shared_ptr<Reducer> reducer_;  ///< the pool's
  std::unique_ptr<Uploads> uploads_;
  ModelPtr model_;       ///< the file on offer
  ModelPtr next_model_;  ///< reduced, not yet committed
  std::string task_;
  std::deque<round::AggregatorStep> todo_;
  bool acting_ = false;
  std::deque<Whole> whole_;
  bool completing_ = false;
  std::map<std::string, Incoming> incoming_;
  std::map<std::string, Traffic> traffic_;
  std::map<std::string, Sent> sent_;
  std::map<std::string, std::uint64_t> said_repeated_;  ///< of the Transfer that came last, by owner
  std::map<std::string, std::uint64_t> frames_;         ///< DATA frames of this round, by owner
  std::map<std::string, std::unique_ptr<boost::asio::steady_timer>> deadlines_;
  std::chrono::steady_clock::time_point offered_, shown_;
  boost::asio::steady_timer show_timer_;
  bool to_show_ = false;  ///< the timer runs
  std::optional<base::Sha256> published_model_;
};

}  // namespace cloister::enclave

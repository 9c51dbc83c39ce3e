#pragma once
// One study's runs, one after the other: launch an instance when a run waits, give it the order and the initial model,
// follow it to its end, keep the instance for the next run, end it when it has been idle.
//
//   queued ──▶ launching ──▶ running ──▶ done | failed | cancelled
//                 │ nobody has the order yet: tried again, also after a restart
//                              │ the order may have left: only its own instance can go on; when that is gone the run
//                              has failed
//
// Coroutines of one io_context. A driver outlives its run(); stop() makes run() return soon and leaves the instance as
// it is.

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "coordinator/config.hpp"
#include "coordinator/follower.hpp"
#include "coordinator/instance.hpp"
#include "coordinator/notice.hpp"
#include "coordinator/peers.hpp"

namespace cloister::coordinator {

/// What watchers wait for: the store has a new event, or a run's live status changed.
struct Board {
  struct Live {
    std::uint64_t version = 0;
    std::string json;
  };
  Notice notice;
  std::map<RunId, Live> live;
  bool stopping = false;  ///< watchers leave

  void status(const RunId& run, std::string json) {
    Live& entry = live[run];
    ++entry.version;
    entry.json = std::move(json);
    notice.raise();
  }
};

class Driver {
 public:
  Driver(boost::asio::any_io_executor executor, const StudyFiles& study, Store& store, Peers& peers, Board& board,
         std::shared_ptr<base::Log> log, std::chrono::milliseconds instance_idle);
  Driver(const Driver&) = delete;
  Driver& operator=(const Driver&) = delete;

  /// Until stop(). Throws only what ends the coordinator: a disk or database that fails.
  awaitable<void> run();
  void stop();

  /// A run was queued.
  void wake() { changed_.raise(); }
  /// Another charter's run wants the address at which this one's instance listens: an idle instance ends now.
  void make_room() {
    make_room_ = true;
    changed_.raise();
  }
  /// A queued or launching run ends at once; a running one when its enclave says so, or has not said so in time. False
  /// when it had ended. `by`: who asks.
  bool cancel(const RunId& id, const std::string& by, const std::string& reason);

  const attest::Charter& charter() const { return study_.charter; }

 private:
  struct Cancel {
    std::uint64_t run = 0;
    std::string reason;
  };

  awaitable<void> perform(Run run);
  /// To `running` with the order on its way; false when it ended before that.
  awaitable<bool> start(Run run);
  awaitable<void> ready(std::uint64_t run);
  awaitable<void> follow(RunId id, bool told);
  awaitable<void> attach(const Run& run, bool with_model);
  awaitable<void> send_model(channel::ConnectionPtr connection);
  awaitable<End> listen(Follower& follower, bool& heard);
  awaitable<channel::Frame> hear(channel::ConnectionPtr connection, const Follower& follower, bool& heard);
  awaitable<void> send_cancel(std::uint64_t run);
  awaitable<void> enforce_cancel(std::uint64_t run);
  awaitable<void> give_up_instance(std::string reason);
  awaitable<void> idle();
  awaitable<void> pause(std::chrono::milliseconds at_most);
  void finish(const RunId& id, RunState state, const std::string& reason);
  void event(const RunId& id, const std::string& json);
  std::shared_ptr<Instance> make_instance();
  std::string launcher_text() const;
  bool cancelled(std::uint64_t run) const { return cancel_ && cancel_->run == run; }
  std::chrono::milliseconds patience() const { return 2 * charter().manifest.channel_deadline; }

  boost::asio::any_io_executor executor_;
  const StudyFiles& study_;
  Store& store_;
  Peers& peers_;
  Board& board_;
  std::shared_ptr<base::Log> log_;
  std::chrono::milliseconds idle_;
  Notice changed_;
  bool stopping_ = false;
  bool make_room_ = false;
  std::uint64_t current_ = 0;     ///< the run that is being performed, or 0
  std::optional<Cancel> cancel_;  ///< of the current run
  std::shared_ptr<Instance> instance_;
};

}  // namespace cloister::coordinator

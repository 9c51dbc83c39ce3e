#pragma once
// Everything that a round is made of besides the machines (links, disks, slots, timers, children) as one flat value,
// and all that can happen to it next. What must hold is asserted at the step that could break it.

#include <cstring>

#include "tests/protocols/round/exhaustive/machines.hpp"

namespace cloister::tests::exhaustive {

/// How often each fault may come in one execution.
struct Faults {
  std::uint8_t cuts = 0;     ///< a link breaks: what is under way may still be read, nothing more goes in
  std::uint8_t crashes = 0;  ///< kill -9 of a participant before or after any step; its disk stays
  std::uint8_t haste = 0;    ///< a deadline fires although something else could still happen
  std::uint8_t wire = 0;     ///< a frame is lost, doubled or overtakes the next: no TCP, a hostile relay
  std::uint8_t deaths = 0;   ///< of the aggregator
  std::uint8_t forks = 0;    ///< the enclave's host runs a second copy of it from any moment on
  std::uint8_t seconds = 0;  ///< a second instance, with another receipt key, serves the same run
  std::uint8_t power = 0;    ///< a participant's machine loses its power: what was not synced is gone
  std::uint8_t amnesia = 0;  ///< a participant crashes and loses its disk
  std::uint8_t replays = 0;  ///< participant 0 sends any frame that was ever seen, instead of its machine's
};

/// What is broken on purpose, so that the search can be seen to find it.
enum class Mutation {
  none,
  adds_twice,             ///< an Add is done twice
  adds_without_close,     ///< an update is added once more after the round closed
  acknowledges_unsynced,  ///< the signature is written, not synced
  acknowledges_unstored,  ///< the acknowledgement leaves before the signature is durable
  forgets_its_disk,       ///< a crash loses record and ledger
  offers_uncharged,       ///< the ledger is not written
  forgets_the_update,     ///< bytes stored, not the record: trained again after a crash
  commits_early,          ///< the next model leaves with the round's own receipt
  sets_no_deadline,       ///< the aggregator's deadlines are not armed
  never_dials_again,      ///< a participant does not come back after a cut
  answers_no_answer,      ///< the aggregator hangs up at every Accept, and no deadline ends that
  needs_one_more,         ///< a round wants one witness more than it has
};

struct Queue {
  std::uint8_t size = 0;
  std::array<Id, 30> items{};
};

/// A participant: process, disk, its end of the link.
struct Site {
  std::uint32_t machine = 0;  ///< 0: its process is down
  // On disk: it survives a crash; what is `synced` survives a power cut too
  struct Journal {
    Id record = 0, served = 0;
    std::array<Id, most_rounds> charged{}, signed_{};  ///< the ledger: offer, receipt by round
  };
  Journal disk{}, synced{};
  Id update = 0;  ///< the stored update's bytes
  // Of the process
  Id model = 0;      ///< the file that it holds or is receiving
  Id receiving = 0;  ///< of which file, 0: none
  Id task = 0;       ///< the model that its child trains on
  std::uint8_t model_bytes = 0, receiving_left = 0, task_round = 0, timers = 0, ended = 0;  ///< ended: 1 done, 2 not
  // The link: to which instance (1, 2), which ends are open, whether what is sent now still arrives
  std::uint8_t instance = 0, near_open = 0, far_open = 0, alive = 0;
  // What never goes back, for the invariants
  std::uint8_t trained = 0, lost_disk = 0, replayed = 0;
  std::array<Id, most_rounds> announced{}, acknowledged{}, acknowledged_second{}, kept{};
  std::uint8_t heard = 0, spurned = 0;  ///< on this connection; a connection ended without a word of the run
  std::uint8_t model_broken = 0, power_cut = 0;
};

/// An aggregator with its caller's slots and sums.
struct Instance {
  std::uint32_t machine = 0;  ///< 0: none, or dead
  std::array<Id, most_sites> slot{};
  Id sum = 0;
  std::array<Id, most_rounds> receipts{}, models{};  ///< committed; what each round's reduction gave
  std::array<std::uint8_t, most_sites> slot_bytes{}, slot_broken{}, expecting{}, left{}, opening{}, staging{};
  std::array<std::uint8_t, most_rounds> added{}, closed{};  ///< who was added; who the closed round counts
  std::uint8_t timers = 0, reducing = 0, finished = 0, round = 0, key = 0, born = 0;
  std::uint8_t pad[2] = {0, 0};
};

struct State {
  std::array<Site, most_sites> sites{};
  std::array<Instance, 2> instances{};
  Faults left{};
  std::uint8_t pad[2] = {0, 0};
  std::array<Queue, most_sites> up{}, down{};
};

static_assert(std::has_unique_object_representations_v<Site>);
static_assert(std::has_unique_object_representations_v<Instance>);

struct Action {
  enum class Kind : std::uint8_t {
    to_aggregator,
    to_participant,
    task_done,
    dial,
    near_notices,
    far_notices,
    restart,
    slot_open,
    staged,
    reduced,
    aggregator_deadline,
    participant_deadline,
    // faults
    cut,
    crash,
    power_cut,
    lose_disk,
    lose_frame,
    double_frame,
    swap_frames,
    die,
    fork,
    second,
    replay,
  };
  Kind kind = Kind::dial;
  std::uint8_t site = 0;      ///< or instance
  std::uint8_t crash_at = 0;  ///< 1 + the step before which the participant is killed; 0: it is not
  std::uint8_t hasty = 0;     ///< a deadline that could not wait
  Id argument = 0;
};

struct Options {
  Faults faults{};
  Mutation mutation = Mutation::none;
  bool greeted = false;  ///< all are connected and greeted since before the run
};

class World {
 public:
  World(Machines& machines, Options options) : machines_(machines), options_(options) {}

  State initial();
  /// All that can happen in `state`. Empty: the end.
  std::vector<Action> actions(const State& state);
  /// What `action` makes of `state`, and what it broke (empty: nothing).
  State apply(const State& state, const Action& action, std::string& broken);
  /// What must hold where nothing can happen any more.
  std::string at_the_end(const State& state);
  std::string text(const State& state, const Action& action) const;
  /// Deadlines that run in `state` and are not set anew while they run: what lasts for ever under one of them does not.
  std::uint16_t running(const State& state) const;
  /// Replays choose among the frames that are known now.
  void remember_frames() { frames_ = machines_.items(); }

  static std::string pack(const State& state);
  static State unpack(const std::string& bytes);

 private:
  bool polite() const;  ///< nobody misbehaves: machines have nothing to refuse
  void ordinary(const State& s, std::vector<Action>& out);
  void with_crashes(const State& s, std::vector<Action>& out);
  void faults(const State& s, std::vector<Action>& out, bool quiet);
  void deadlines(const State& s, std::vector<Action>& out, bool hasty);
  void do_action(const Action& action);

  // One step under way: s_ changes
  void participant(std::size_t i, Input input);
  void perform(std::size_t i, std::vector<Act> acts);
  bool durable(std::size_t i, const Act& act);
  bool boundary(std::size_t i);
  void crash(std::size_t i);
  static void lose_disk(Site& site);
  void close_near(std::size_t i);
  void give_up(std::size_t i, std::uint8_t of_round);
  void send_up(std::size_t i, Id item);
  void leaves(std::size_t i, const Item& item);
  void need_model(std::size_t i, const Act& act, std::vector<Act>& more);
  void deliver_down(std::size_t i);
  void data_down(std::size_t i, const Item& item);
  void dial(std::size_t i, std::size_t k);

  void aggregator(std::size_t k, Input input);
  void perform_aggregator(std::size_t k, const std::vector<Act>& acts);
  void send_down(std::size_t k, std::size_t i, Id item);
  void shows(std::size_t k, const Item& item);
  void deliver_up(std::size_t i);
  void data_up(std::size_t k, std::size_t i, const Item& item);
  void add(std::size_t k, const Act& act);
  void commit(std::size_t k, const Act& act);
  void drop_slot(Instance& n, std::size_t i);

  void fail(std::string what) {
    if (broken_.empty()) broken_ = std::move(what);
  }
  void push(Queue& queue, Id item);

  Machines& machines_;
  Options options_;
  std::size_t frames_ = 0;
  State s_;
  std::string broken_;
  int crash_in_ = -1;  ///< boundaries until the crash, -1: none
  std::uint8_t boundaries_ = 0;
};

}  // namespace cloister::tests::exhaustive

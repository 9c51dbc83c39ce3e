#include "tests/protocols/round/exhaustive/search.hpp"

#include <algorithm>
#include <chrono>
#include <deque>

namespace cloister::tests::exhaustive {

namespace {

struct Hash {
  std::uint64_t a = 0, b = 0;
  bool operator==(const Hash&) const = default;
};

std::uint64_t mixed(std::uint64_t h) {
  h ^= h >> 33;
  h *= 0xFF51AFD7ED558CCDU;
  h ^= h >> 33;
  h *= 0xC4CEB9FE1A85EC53U;
  return h ^ h >> 33;
}

Hash hash(const std::string& bytes) {
  Hash h{0x243F6A8885A308D3U, 0x13198A2E03707344U};
  for (std::size_t at = 0; at < bytes.size(); at += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data() + at, std::min<std::size_t>(8, bytes.size() - at));
    h.a = mixed(h.a ^ word);
    h.b = mixed(h.b + word * 0x9E3779B97F4A7C15U);
  }
  return {mixed(h.a ^ bytes.size()), h.b};
}

/// Numbers for hashes, in the order of their coming: open addressing, doubled when half full.
class Seen {
 public:
  /// The number, and whether it is new.
  std::pair<std::uint32_t, bool> add(const Hash& h) {
    if (hashes_.size() * 2 >= cells_.size()) grow();
    std::size_t at = h.a & (cells_.size() - 1);
    while (cells_[at] != 0) {
      if (hashes_[cells_[at] - 1] == h) return {cells_[at] - 1, false};
      at = (at + 1) & (cells_.size() - 1);
    }
    hashes_.push_back(h);
    cells_[at] = static_cast<std::uint32_t>(hashes_.size());
    return {cells_[at] - 1, true};
  }

 private:
  void grow() {
    cells_.assign(std::max<std::size_t>(1024, cells_.size() * 2), 0);
    for (std::size_t i = 0; i < hashes_.size(); ++i) {
      std::size_t at = hashes_[i].a & (cells_.size() - 1);
      while (cells_[at] != 0) at = (at + 1) & (cells_.size() - 1);
      cells_[at] = static_cast<std::uint32_t>(i + 1);
    }
  }
  std::vector<Hash> hashes_;
  std::vector<std::uint32_t> cells_;
};

class Search {
 public:
  Search(Machines& machines, const Options& options, const Bounds& bounds)
      : machines_(machines), world_(machines_, options), bounds_(bounds) {
    world_.remember_frames();
  }

  Found run();

 private:
  struct Step {
    std::uint32_t before = 0;
    Action action;
  };

  bool out_of_bounds() const {
    if (bounds_.states != 0 && found_.states >= bounds_.states) return true;
    return bounds_.seconds > 0 && found_.states % 1024 == 0 && elapsed() > bounds_.seconds;
  }
  double elapsed() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - began_).count(); }
  void expand(std::uint32_t number, const State& state);
  void tell(std::uint32_t number, std::string broken);
  /// A state that comes back without end. (Each fault is counted down, so that no cycle contains one.)
  std::optional<std::uint32_t> on_a_cycle() const;

  Machines& machines_;
  World world_;
  Bounds bounds_;
  Found found_;
  std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
  Seen seen_;
  std::vector<Step> steps_;
  std::deque<std::string> frontier_;
  std::vector<std::uint32_t> targets_;
  std::vector<std::size_t> first_;  ///< of each state's edges
  std::vector<std::uint16_t> running_;
};

void Search::expand(std::uint32_t number, const State& state) {
  const std::vector<Action> actions = world_.actions(state);
  if (actions.empty()) {
    ++found_.ends;
    if (std::string broken = world_.at_the_end(state); !broken.empty()) tell(number, std::move(broken));
  }
  for (const Action& action : actions) {
    std::string broken;
    const State next = world_.apply(state, action, broken);
    ++found_.transitions;
    std::string bytes = World::pack(next);
    const auto [to, fresh] = seen_.add(hash(bytes));
    if (fresh) steps_.push_back({number, action});
    if (bounds_.cycles) targets_.push_back(to);
    if (!broken.empty()) return tell(to, std::move(broken));
    if (fresh) frontier_.push_back(std::move(bytes));
  }
}

void Search::tell(std::uint32_t number, std::string broken) {
  if (!found_.broken.empty()) return;
  found_.broken = std::move(broken);
  std::vector<Action> way;
  for (std::uint32_t at = number; at != 0; at = steps_[at].before) way.push_back(steps_[at].action);
  State state = world_.initial();
  for (auto action = way.rbegin(); action != way.rend(); ++action) {
    found_.trace.push_back(world_.text(state, *action));
    std::string ignored;
    state = world_.apply(state, *action, ignored);
  }
}

/// Tarjan's components, without recursion. A component in which no deadline runs throughout holds an endless execution
/// that no deadline ends; one in which some deadline does is left when it fires.
std::optional<std::uint32_t> Search::on_a_cycle() const {
  const std::size_t n = steps_.size();
  constexpr std::uint32_t none = 0xFFFFFFFF;
  std::vector<std::uint32_t> index(n, none), low(n, 0), open, way;
  std::vector<std::size_t> edge(n, 0);
  std::vector<bool> is_open(n, false);
  std::uint32_t next = 0;
  const auto enter = [&](std::uint32_t i) {
    index[i] = low[i] = next++;
    edge[i] = first_[i];
    open.push_back(i);
    way.push_back(i);
    is_open[i] = true;
  };
  for (enter(0); !way.empty();) {  // every state can be reached from the first
    const std::uint32_t i = way.back();
    if (edge[i] < first_[i + 1U]) {
      const std::uint32_t to = targets_[edge[i]++];
      if (index[to] == none)
        enter(to);
      else if (is_open[to])
        low[i] = std::min(low[i], index[to]);
      continue;
    }
    way.pop_back();
    if (!way.empty()) low[way.back()] = std::min(low[way.back()], low[i]);
    if (low[i] != index[i]) continue;
    std::uint16_t running = 0xFFFF;
    std::size_t size = 0;
    for (std::uint32_t member = none; member != i; ++size) {
      member = open.back();
      open.pop_back();
      is_open[member] = false;
      running = static_cast<std::uint16_t>(running & running_[member]);
    }
    const bool itself = std::find(targets_.begin() + static_cast<std::ptrdiff_t>(first_[i]),
                                  targets_.begin() + static_cast<std::ptrdiff_t>(first_[i + 1U]),
                                  i) != targets_.begin() + static_cast<std::ptrdiff_t>(first_[i + 1U]);
    if ((size > 1 || itself) && running == 0) return i;
  }
  return std::nullopt;
}

Found Search::run() {
  frontier_.push_back(World::pack(world_.initial()));
  seen_.add(hash(frontier_.front()));
  steps_.push_back({});
  std::size_t level_ends = 1;
  for (std::uint32_t number = 0; !frontier_.empty() && found_.broken.empty(); ++number) {
    if (out_of_bounds()) break;
    if (number == level_ends) ++found_.depth, level_ends = steps_.size();
    const State state = World::unpack(frontier_.front());
    frontier_.pop_front();
    first_.push_back(targets_.size());
    running_.push_back(world_.running(state));
    ++found_.states;
    expand(number, state);
  }
  first_.push_back(targets_.size());
  found_.complete = frontier_.empty() && found_.broken.empty();
  if (found_.complete && bounds_.cycles)
    if (const auto state = on_a_cycle()) tell(*state, "an execution that never ends: this state comes back by itself");
  found_.machine_states = machines_.participant_states() + machines_.aggregator_states();
  found_.computed = machines_.computed();
  found_.seconds = elapsed();
  return found_;
}

}  // namespace

Found search(std::size_t sites, std::uint32_t rounds, const Options& options, const Bounds& bounds) {
  Machines machines(sites, rounds);
  // The frames to replay are those of all runs without a fault.
  if (options.faults.replays > 0) Search(machines, {}, {}).run();
  return Search(machines, options, bounds).run();
}

}  // namespace cloister::tests::exhaustive

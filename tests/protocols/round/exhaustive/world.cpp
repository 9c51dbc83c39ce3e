#include "tests/protocols/round/exhaustive/world.hpp"

#include <fmt/format.h>

namespace cloister::tests::exhaustive {

using Kind = Action::Kind;

// --- States as bytes -------------------------------------------------------------------------------------------------

std::string World::pack(const State& s) {
  constexpr std::size_t head = offsetof(State, up);
  std::string out(reinterpret_cast<const char*>(&s), head);
  for (const auto* queues : {&s.up, &s.down})
    for (const Queue& q : *queues) {
      out.push_back(static_cast<char>(q.size));
      out.append(reinterpret_cast<const char*>(q.items.data()), q.size * sizeof(Id));
    }
  return out;
}

State World::unpack(const std::string& bytes) {
  constexpr std::size_t head = offsetof(State, up);
  State s;
  std::memcpy(reinterpret_cast<char*>(&s), bytes.data(), head);
  std::size_t at = head;
  for (auto* queues : {&s.up, &s.down})
    for (Queue& q : *queues) {
      q.size = static_cast<std::uint8_t>(bytes[at++]);
      std::memcpy(q.items.data(), bytes.data() + at, q.size * sizeof(Id));
      at += q.size * sizeof(Id);
    }
  return s;
}

// --- What can happen -------------------------------------------------------------------------------------------------

bool World::polite() const {
  const Faults& f = options_.faults;
  return f.wire == 0 && f.forks == 0 && f.seconds == 0 && f.amnesia == 0 && f.replays == 0;
}

State World::initial() {
  s_ = State{};
  broken_.clear();
  crash_in_ = -1;
  s_.left = options_.faults;
  s_.instances[0].machine = machines_.aggregator(0);
  s_.instances[0].born = 1;
  for (std::size_t i = 0; i < machines_.sites(); ++i) {
    Site& site = s_.sites[i];
    Input boot{Input::Kind::boot, static_cast<std::uint8_t>(i), 0, 0};
    site.machine = machines_.participant(0, boot).machine;
    if (!options_.greeted) continue;
    site.instance = site.near_open = site.far_open = site.alive = 1;
    aggregator(0, {Input::Kind::joined, static_cast<std::uint8_t>(i), 0, 0});
    participant(i, {Input::Kind::joined, static_cast<std::uint8_t>(i), machines_.key(0), 0});
  }
  aggregator(0, {Input::Kind::start, 0, 0, 0});
  return s_;
}

void World::ordinary(const State& s, std::vector<Action>& out) {
  for (std::uint8_t i = 0; i < machines_.sites(); ++i) {
    const Site& site = s.sites[i];
    if (site.far_open && s.up[i].size > 0 && s.instances[site.instance - 1U].machine != 0)
      out.push_back({Kind::to_aggregator, i, 0, 0, 0});
    if (site.machine != 0 && site.near_open && s.down[i].size > 0) out.push_back({Kind::to_participant, i, 0, 0, 0});
    if (site.machine != 0 && site.task_round != 0) out.push_back({Kind::task_done, i, 0, 0, 0});
    if (site.near_open && !site.alive) out.push_back({Kind::near_notices, i, 0, 0, 0});
    if (site.far_open && !site.alive) out.push_back({Kind::far_notices, i, 0, 0, 0});
    if (site.machine == 0) out.push_back({Kind::restart, i, 0, 0, 0});
    // Who is let in and thrown out again and again dials for so long that its deadline comes.
    if (!polite() && site.machine != 0 && site.spurned && site.timers & return_timer)
      out.push_back({Kind::participant_deadline, i, 0, 0, return_timer});
    const bool comes = options_.mutation != Mutation::never_dials_again || site.instance == 0;
    if (site.machine != 0 && !site.near_open && site.ended == 0 && comes)
      for (std::uint8_t k = 0; k < 2; ++k)
        if (s.instances[k].machine != 0) out.push_back({Kind::dial, i, 0, 0, k});
  }
  for (std::uint8_t k = 0; k < 2; ++k) {
    const Instance& n = s.instances[k];
    if (n.machine == 0) continue;
    for (Id i = 0; i < machines_.sites(); ++i) {
      if (n.opening[i] != 0) out.push_back({Kind::slot_open, k, 0, 0, i});
      if (n.staging[i] != 0) out.push_back({Kind::staged, k, 0, 0, i});
    }
    if (n.reducing != 0) out.push_back({Kind::reduced, k, 0, 0, 0});
  }
}

/// A crash at each step of what a participant does next, and while it does nothing.
void World::with_crashes(const State& s, std::vector<Action>& out) {
  const std::size_t n = out.size();
  for (std::size_t at = 0; at < n; ++at) {
    Action a = out[at];
    const bool acts = a.kind == Kind::to_participant || a.kind == Kind::task_done || a.kind == Kind::near_notices ||
                      a.kind == Kind::dial;
    if (!acts) continue;
    std::string ignored;
    boundaries_ = 0;
    apply(s, a, ignored);
    for (std::uint8_t k = 1, end = boundaries_; k <= end; ++k) {
      a.crash_at = k;
      out.push_back(a);
    }
  }
  for (std::uint8_t i = 0; i < machines_.sites(); ++i)
    if (s.sites[i].machine != 0 && s.sites[i].ended == 0) out.push_back({Kind::crash, i, 0, 0, 0});
}

void World::faults(const State& s, std::vector<Action>& out, bool quiet) {
  if (s.left.crashes > 0) with_crashes(s, out);
  for (std::uint8_t i = 0; i < machines_.sites(); ++i) {
    const Site& site = s.sites[i];
    if (s.left.cuts > 0 && site.alive) out.push_back({Kind::cut, i, 0, 0, 0});
    if (s.left.power > 0 && site.machine != 0 && site.ended == 0) out.push_back({Kind::power_cut, i, 0, 0, 0});
    if (s.left.amnesia > 0 && site.machine != 0 && i < 1 + options_.faults.amnesia / 2U)
      out.push_back({Kind::lose_disk, i, 0, 0, 0});
    if (s.left.wire > 0)
      for (Id way = 0; way < 2; ++way) {
        const Queue& q = way == 0 ? s.up[i] : s.down[i];
        for (Id at = 0; at < q.size; ++at) {
          const Id argument = static_cast<Id>(way << 8 | at);
          out.push_back({Kind::lose_frame, i, 0, 0, argument});
          out.push_back({Kind::double_frame, i, 0, 0, argument});
          if (at + 1 < q.size) out.push_back({Kind::swap_frames, i, 0, 0, argument});
        }
      }
  }
  if (s.left.haste > 0 && !quiet) deadlines(s, out, true);
  for (std::uint8_t k = 0; k < 2; ++k)
    if (s.left.deaths > 0 && s.instances[k].machine != 0) out.push_back({Kind::die, k, 0, 0, 0});
  const bool alone = s.instances[1].born == 0 && s.instances[0].machine != 0;
  if (s.left.forks > 0 && alone && !s.instances[0].finished) out.push_back({Kind::fork, 0, 0, 0, 0});
  if (s.left.seconds > 0 && s.instances[1].born == 0) out.push_back({Kind::second, 0, 0, 0, 0});
  if (s.left.replays > 0 && s.sites[0].alive)
    for (std::size_t item = 1; item < frames_; ++item) out.push_back({Kind::replay, 0, 0, 0, static_cast<Id>(item)});
}

void World::deadlines(const State& s, std::vector<Action>& out, bool hasty) {
  const std::size_t before = out.size();
  const auto add = [&](Kind kind, std::uint8_t who, std::uint8_t timers) {
    for (Id bit = 1; bit <= 4; bit = static_cast<Id>(bit << 1))
      if (timers & bit) out.push_back({kind, who, 0, static_cast<std::uint8_t>(hasty ? 1 : 0), bit});
  };
  for (std::uint8_t k = 0; k < 2; ++k)
    if (s.instances[k].machine != 0) add(Kind::aggregator_deadline, k, s.instances[k].timers);
  // A participant waits a channel's deadline longer than a round lasts: where nothing else happens, the aggregator's
  // fire first.
  if (!hasty && out.size() > before) return;
  for (std::uint8_t i = 0; i < machines_.sites(); ++i)
    if (s.sites[i].machine != 0) add(Kind::participant_deadline, i, s.sites[i].timers);
}

std::vector<Action> World::actions(const State& s) {
  std::vector<Action> out;
  ordinary(s, out);
  const bool quiet = out.empty();
  if (quiet) deadlines(s, out, false);
  const bool over = out.empty();
  if (!over) faults(s, out, quiet);
  return out;
}

State World::apply(const State& state, const Action& action, std::string& broken) {
  s_ = state;
  broken_.clear();
  crash_in_ = action.crash_at == 0 ? -1 : action.crash_at - 1;
  if (action.crash_at != 0) --s_.left.crashes;
  if (action.hasty) --s_.left.haste;
  do_action(action);
  broken = std::move(broken_);
  return s_;
}

void World::do_action(const Action& a) {
  const std::size_t i = a.site;
  const auto timer = static_cast<std::uint8_t>(a.argument);
  switch (a.kind) {
    case Kind::to_aggregator:
      return deliver_up(i);
    case Kind::to_participant:
      return deliver_down(i);
    case Kind::task_done: {
      Site& site = s_.sites[i];
      const std::uint8_t of_round = site.task_round;
      // Training twice gives two updates: nothing may depend on the child doing the same again.
      const Id update = machines_.derived(fmt::format("update of {} round {}", i, of_round), site.task, site.trained);
      if (site.trained < 3) ++site.trained;
      site.task_round = 0, site.task = 0;
      return participant(i, {Input::Kind::task_done, a.site, update, of_round});
    }
    case Kind::dial:
      return dial(i, a.argument);
    case Kind::near_notices:
      if (!s_.sites[i].heard) s_.sites[i].spurned = 1;
      s_.sites[i].near_open = 0;
      s_.down[i] = {};
      s_.sites[i].receiving = 0, s_.sites[i].receiving_left = 0;
      return participant(i, {Input::Kind::disconnected, a.site, 0, 0});
    case Kind::far_notices: {
      const std::size_t k = s_.sites[i].instance - 1U;
      s_.sites[i].far_open = 0;
      s_.up[i] = {};
      s_.instances[k].expecting[i] = s_.instances[k].left[i] = 0;
      return aggregator(k, {Input::Kind::disconnected, a.site, 0, 0});
    }
    case Kind::restart: {
      Site& site = s_.sites[i];
      site.machine = machines_.participant(0, {Input::Kind::boot, a.site, site.disk.record, 0}).machine;
      if (site.disk.record != 0) participant(i, {Input::Kind::disconnected, a.site, 0, 0});  // an unfinished run
      return;
    }
    case Kind::slot_open: {
      Instance& n = s_.instances[i];
      const std::uint8_t of_round = n.opening[a.argument];
      n.opening[a.argument] = 0;
      return aggregator(
          i, {Input::Kind::slot_open, static_cast<std::uint8_t>(a.argument), of_round, n.slot_bytes[a.argument]});
    }
    case Kind::staged: {
      Instance& n = s_.instances[i];
      const std::uint8_t of_round = n.staging[a.argument];
      n.staging[a.argument] = 0;
      const bool whole = !n.slot_broken[a.argument] && n.slot_bytes[a.argument] == update_length;
      const Id digest = whole ? n.slot[a.argument] : machines_.derived("broken", 0, 0);
      return aggregator(i, {Input::Kind::staged, static_cast<std::uint8_t>(a.argument), digest, of_round});
    }
    case Kind::reduced: {
      Instance& n = s_.instances[i];
      const std::uint8_t of_round = n.reducing;
      n.reducing = 0;
      const Id model = machines_.derived("model", n.sum, of_round);
      n.models[of_round - 1U] = model;
      return aggregator(i, {Input::Kind::reduced, 0, model, of_round});
    }
    case Kind::aggregator_deadline:
      s_.instances[i].timers = static_cast<std::uint8_t>(s_.instances[i].timers & ~timer);
      return aggregator(i, {Input::Kind::deadline, 0, timer, 0});
    case Kind::participant_deadline:
      s_.sites[i].timers = static_cast<std::uint8_t>(s_.sites[i].timers & ~timer);
      return participant(i, {Input::Kind::deadline, a.site, timer, 0});
    case Kind::cut:
      --s_.left.cuts;
      s_.sites[i].alive = 0;
      return;
    case Kind::crash:
      --s_.left.crashes;
      return crash(i);
    case Kind::power_cut:
      --s_.left.power;
      crash(i);
      s_.sites[i].disk = s_.sites[i].synced;
      s_.sites[i].update = 0;
      s_.sites[i].power_cut = 1;
      return;
    case Kind::lose_disk: {
      --s_.left.amnesia;
      crash(i);
      lose_disk(s_.sites[i]);
      s_.sites[i].lost_disk = 1;
      return;
    }
    case Kind::lose_frame:
    case Kind::double_frame:
    case Kind::swap_frames: {
      --s_.left.wire;
      Queue& q = (a.argument >> 8) == 0 ? s_.up[i] : s_.down[i];
      const std::size_t at = a.argument & 0xFFU;
      if (a.kind == Kind::swap_frames) return std::swap(q.items[at], q.items[at + 1]);
      if (a.kind == Kind::double_frame) {
        push(q, 0);
        std::memmove(&q.items[at + 1], &q.items[at], (q.size - at - 1U) * sizeof(Id));
        return;
      }
      std::memmove(&q.items[at], &q.items[at + 1], (q.size - at - 1U) * sizeof(Id));
      q.items[--q.size] = 0;
      return;
    }
    case Kind::die: {
      --s_.left.deaths;
      Instance& n = s_.instances[i];
      for (std::size_t j = 0; j < machines_.sites(); ++j)
        if (s_.sites[j].instance == i + 1 && s_.sites[j].far_open)
          s_.sites[j].alive = s_.sites[j].far_open = 0, s_.up[j] = {};
      const auto receipts = n.receipts;  // what was committed stays so
      n = Instance{};
      n.receipts = receipts;
      n.born = 1;
      return;
    }
    case Kind::fork: {
      --s_.left.forks;
      s_.instances[1] = s_.instances[0];
      for (std::size_t j = 0; j < machines_.sites(); ++j) {
        const bool open = s_.sites[j].instance == 1 && s_.sites[j].far_open;
        s_.instances[1].expecting[j] = s_.instances[1].left[j] = 0;
        if (open) aggregator(1, {Input::Kind::disconnected, static_cast<std::uint8_t>(j), 0, 0});
      }
      return;
    }
    case Kind::second:
      --s_.left.seconds;
      s_.instances[1].machine = machines_.aggregator(1);
      s_.instances[1].born = s_.instances[1].key = 1;
      return aggregator(1, {Input::Kind::start, 0, 0, 0});
    case Kind::replay:
      --s_.left.replays;
      s_.sites[0].replayed = 1;
      return push(s_.up[0], a.argument);
  }
}

void World::push(Queue& q, Id item) {
  if (q.size == q.items.size()) return fail("a link holds more frames than this search has room for");
  q.items[q.size++] = item;
}

// --- The end ---------------------------------------------------------------------------------------------------------

std::string World::at_the_end(const State& s) {
  const Faults& f = options_.faults;
  bool harmless = polite() && f.haste == 0 && f.deaths == 0;
  for (std::size_t k = 0; k < 2; ++k) {
    const Instance& n = s.instances[k];
    if (n.machine != 0 && !n.finished)
      return fmt::format("the aggregator waits in round {} with no deadline armed: the run never ends", n.round);
    if (harmless && k == 0 && n.finished != 1)
      return "cuts and crashes alone, and the run failed: they may cost time, nothing else";
  }
  for (std::size_t i = 0; i < machines_.sites(); ++i) {
    const Site& site = s.sites[i];
    // Who never heard of the run waits for one, as a service does.
    const bool began = site.disk.record != 0 || site.near_open;
    if (site.ended == 0 && began)
      return fmt::format("participant {} waits with no deadline armed: the run never ends for it", i);
    if (harmless && site.ended != 1) return fmt::format("participant {} did not end as done", i);
    for (std::size_t r = 0; r < machines_.rounds(); ++r)
      if (harmless && site.kept[r] != s.instances[0].receipts[r])
        return fmt::format("participant {} did not keep the committed receipt of round {}", i, r + 1);
  }
  return {};
}

std::uint16_t World::running(const State& s) const {
  std::uint16_t out = 0;
  for (std::size_t k = 0; k < 2; ++k) out = static_cast<std::uint16_t>(out | s.instances[k].timers << (3 * k));
  for (std::size_t i = 0; i < machines_.sites(); ++i)
    if (s.sites[i].timers & return_timer) out = static_cast<std::uint16_t>(out | 64U << i);
  return out;
}

std::string World::text(const State& s, const Action& a) const {
  constexpr const char* names[] = {"the aggregator reads",
                                   "participant reads",
                                   "child done",
                                   "dials",
                                   "notices the cut",
                                   "its cut is noticed",
                                   "restarts",
                                   "slot open",
                                   "staged",
                                   "reduced",
                                   "aggregator's deadline",
                                   "participant's deadline",
                                   "the link breaks",
                                   "is killed",
                                   "loses its power",
                                   "is killed and loses its disk",
                                   "a frame is lost",
                                   "a frame is doubled",
                                   "a frame overtakes",
                                   "the aggregator dies",
                                   "the enclave is forked",
                                   "a second instance starts",
                                   "replays"};
  std::string out = fmt::format("{} {}", a.site, names[static_cast<std::size_t>(a.kind)]);
  if (a.kind == Kind::to_aggregator) out += " " + machines_.text(s.up[a.site].items[0]);
  if (a.kind == Kind::to_participant) out += " " + machines_.text(s.down[a.site].items[0]);
  if (a.kind == Kind::replay) out += " " + machines_.text(a.argument);
  if (a.kind == Kind::dial || a.kind >= Kind::slot_open) out += fmt::format(" ({})", a.argument);
  if (a.crash_at != 0) out += fmt::format(", killed before step {}", a.crash_at);
  return out;
}

}  // namespace cloister::tests::exhaustive

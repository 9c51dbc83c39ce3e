// The participants' side of the world: what participant/node does with the machine's steps.

#include <deque>
#include <fmt/format.h>

#include "tests/protocols/round/exhaustive/world.hpp"

namespace cloister::tests::exhaustive {

using Kind = Act::Kind;

void World::participant(std::size_t i, Input input) {
  const Reaction& reaction = machines_.participant(s_.sites[i].machine, input);
  s_.sites[i].machine = reaction.machine;
  perform(i, reaction.acts);
}

/// A place where the process may be killed: true when it was, here.
bool World::boundary(std::size_t i) {
  ++boundaries_;
  if (crash_in_ != 0) {
    if (crash_in_ > 0) --crash_in_;
    return false;
  }
  crash_in_ = -1;
  crash(i);
  return true;
}

void World::crash(std::size_t i) {
  Site& site = s_.sites[i];
  site.machine = 0;
  site.model = site.receiving = site.task = 0;
  site.model_bytes = site.model_broken = site.receiving_left = site.task_round = site.timers = site.ended = 0;
  site.heard = site.spurned = 0;
  site.near_open = site.alive = 0;  // what it had sent may still arrive
  s_.down[i] = {};
  if (options_.mutation == Mutation::forgets_its_disk) lose_disk(site);
}

void World::lose_disk(Site& site) {
  site.disk = site.synced = {};
  site.update = 0;
}

void World::close_near(std::size_t i) {
  s_.sites[i].alive = 0;
  s_.down[i] = {};
}

/// A record that the disk or the ledger refuses: the machine is made anew from what is on disk, and the aggregator
/// told.
void World::give_up(std::size_t i, std::uint8_t of_round) {
  Site& site = s_.sites[i];
  if (polite()) return fail(fmt::format("the ledger of participant {} refuses what its machine wants", i));
  site.task = 0, site.task_round = 0, site.timers = 0;
  site.machine =
      machines_.participant(0, {Input::Kind::boot, static_cast<std::uint8_t>(i), site.disk.record, 0}).machine;
  messages::Decline decline;
  decline.set_round(of_round);
  decline.set_reason("ledger");
  send_up(i, machines_.item(round::Message(decline)));
  if (site.near_open && site.alive)
    participant(
        i, {Input::Kind::joined, static_cast<std::uint8_t>(i), machines_.key(s_.instances[site.instance - 1U].key), 0});
}

void World::perform(std::size_t i, std::vector<Act> acts) {
  std::deque<Act> queue(acts.begin(), acts.end());
  Site& site = s_.sites[i];
  while (!queue.empty() && broken_.empty()) {
    const Act act = queue.front();
    queue.pop_front();
    std::vector<Act> more;
    switch (act.kind) {
      case Kind::send:
        if (boundary(i)) return;
        leaves(i, machines_.item(act.item));
        send_up(i, act.item);
        break;
      case Kind::charge:
      case Kind::store_update:
      case Kind::sign_receipt:
      case Kind::keep: {
        const std::uint32_t machine = site.machine;
        if (!durable(i, act)) return give_up(i, act.round);
        if (site.machine != machine) return;  // killed in the middle
        break;
      }
      case Kind::need_model:
        need_model(i, act, more);
        break;
      case Kind::receive_model:
        site.receiving = act.digest;
        site.receiving_left = static_cast<std::uint8_t>(act.length - act.offset);
        break;
      case Kind::run_task:
        if (act.digest != site.model || site.model_bytes != model_length)
          fail(fmt::format("participant {} trains on a model that it does not hold", i));
        site.task = act.digest;
        site.task_round = act.round;
        break;
      case Kind::stop_task:
        site.task = 0, site.task_round = 0;
        break;
      case Kind::send_update:
        if (site.update == 0) {  // its bytes went with the power
          const Reaction& lost = machines_.participant(
              site.machine, {Input::Kind::update_lost, static_cast<std::uint8_t>(i), 0, act.round});
          site.machine = lost.machine;
          more = lost.acts;
          break;
        }
        for (std::uint8_t at = act.offset; at < act.offset + act.length;) {
          if (boundary(i)) return;
          const auto length = static_cast<std::uint8_t>(std::min<int>(chunk, act.offset + act.length - at));
          send_up(i, machines_.data(site.update, at, length));
          at = static_cast<std::uint8_t>(at + length);
        }
        break;
      case Kind::refused:
        if (polite() && act.item != 0) {
          const std::string why = base::text(machines_.bytes(act.item));
          if (!why.starts_with("update of round"))  // late is no fault of anybody
            fail(fmt::format("participant {} refuses an honest aggregator: {}", i, why));
        }
        break;
      case Kind::disconnect:
        if (polite() && !act.flag)
          fail(fmt::format("participant {} hangs up on an honest aggregator: {}", i,
                           base::text(machines_.bytes(act.item))));
        close_near(i);
        break;
      case Kind::set_deadline:
        site.timers = static_cast<std::uint8_t>(site.timers | act.timer);
        break;
      case Kind::clear_deadline:
        site.timers = static_cast<std::uint8_t>(site.timers & ~act.timer);
        break;
      case Kind::ended:
        site.ended = act.flag ? 1 : 2;
        if (!act.flag && machines_.bytes(act.item).empty()) fail("an end without a reason");
        for (std::size_t r = 0; act.flag && r < machines_.rounds(); ++r)
          if (site.kept[r] == 0) fail(fmt::format("participant {} is done without round {}", i, r + 1));
        break;
      default:
        break;  // publish: a committed value, checked by the machine against the receipt it kept
    }
    queue.insert(queue.end(), more.begin(), more.end());
  }
}

/// Ledger, then files, each durable before the next: docs/decisions.md, "Durable steps come in their order".
bool World::durable(std::size_t i, const Act& act) {
  Site& site = s_.sites[i];
  const std::size_t r = act.round - 1U;
  const Mutation m = options_.mutation;
  const auto once = [](Id& place, Id value) {  // the ledger: the same again is fine, another is refused
    if (place != 0 && place != value) return false;
    place = value;
    return true;
  };
  if (boundary(i)) return true;
  switch (act.kind) {
    case Kind::charge:
      if (!once(site.disk.served, act.item)) return false;
      if (m != Mutation::offers_uncharged && !once(site.disk.charged[r], act.digest)) return false;
      break;
    case Kind::store_update:
      site.update = act.digest;
      if (boundary(i)) return true;
      if (m == Mutation::forgets_the_update) {
        site.synced = site.disk;
        return true;
      }
      break;
    case Kind::sign_receipt:
      if (m == Mutation::acknowledges_unstored) return true;
      if (!once(site.disk.signed_[r], act.digest)) return false;
      break;
    default:  // keep
      if (m != Mutation::acknowledges_unstored && !once(site.disk.signed_[r], act.digest)) return false;
      if (site.kept[r] != 0 && site.kept[r] != act.digest && !site.lost_disk)
        fail(fmt::format("participant {} keeps two committed receipts of round {}", i, act.round));
      site.kept[r] = act.digest;
      for (std::size_t j = 0; j < machines_.sites(); ++j)
        if (s_.sites[j].kept[r] != 0 && s_.sites[j].kept[r] != act.digest)
          fail(
              fmt::format("round {} has two answers: participants {} and {} keep different receipts", act.round, i, j));
      break;
  }
  if (boundary(i)) return true;
  site.disk.record = act.record;
  const bool syncs = act.kind == Kind::store_update || act.kind == Kind::sign_receipt;  // docs/formats.md, the ledger
  if (syncs && m != Mutation::acknowledges_unsynced) site.synced = site.disk;
  return true;
}

void World::send_up(std::size_t i, Id item) {
  if (s_.sites[i].alive && s_.sites[i].near_open) push(s_.up[i], item);
}

/// Whatever a message says must be durable where it was written first.
void World::leaves(std::size_t i, const Item& item) {
  Site& site = s_.sites[i];
  if (item.round == 0 || item.round > most_rounds) return;
  const std::size_t r = item.round - 1U;
  const RecordFacts& record = machines_.record(site.synced.record);
  if (item.type == messages::ACCEPT) {
    // Nothing leaves for it alone: it may be lost with the power, not with the process.
    if (site.disk.charged[r] == 0 || machines_.record(site.disk.record).answered < item.round)
      fail(fmt::format("Accept leaves participant {} before the task is charged", i));
  }
  if (item.type == messages::UPDATE) {
    if (site.synced.charged[r] == 0)
      fail(fmt::format("an update leaves participant {} before its charge is synced", i));
    const bool held = site.update == item.digest || site.power_cut;
    if (record.stored != item.round || record.update != item.digest || !held)
      fail(fmt::format("participant {} announces an update of round {} that is not stored", i, item.round));
    if (site.announced[r] != 0 && site.announced[r] != item.digest && !site.lost_disk &&
        options_.mutation != Mutation::forgets_its_disk)
      fail(fmt::format("participant {} announces a second update of round {}", i, item.round));
    site.announced[r] = item.digest;
  }
  if (item.type == messages::ACKNOWLEDGE) {
    if (site.synced.signed_[r] != item.digest || record.receipts[r] != item.digest)
      fail(fmt::format("participant {} acknowledges a receipt of round {} that it has not stored", i, item.round));
    if (site.acknowledged[r] != 0 && site.acknowledged[r] != item.digest) {
      if (!site.lost_disk) fail(fmt::format("participant {} signs two receipts of round {}", i, item.round));
      site.acknowledged_second[r] = item.digest;
    } else {
      site.acknowledged[r] = item.digest;
    }
  }
}

void World::need_model(std::size_t i, const Act& act, std::vector<Act>& more) {
  Site& site = s_.sites[i];
  if (site.model != act.digest) site.model = act.digest, site.model_bytes = site.model_broken = 0;
  const auto of = static_cast<std::uint8_t>(i);
  const bool whole = site.model_bytes == model_length && !site.model_broken;
  const Reaction& reaction = machines_.participant(
      site.machine,
      {whole ? Input::Kind::model_ready : Input::Kind::fetch, of, act.digest, whole ? Id{0} : Id{site.model_bytes}});
  site.machine = reaction.machine;
  more = reaction.acts;
}

void World::deliver_down(std::size_t i) {
  Queue& q = s_.down[i];
  const Id id = q.items[0];
  std::memmove(&q.items[0], &q.items[1], (q.size - 1U) * sizeof(Id));
  q.items[--q.size] = 0;
  const Item& item = machines_.item(id);
  if (item.type == messages::DATA) return data_down(i, item);
  s_.sites[i].heard = 1;
  s_.sites[i].spurned = 0;
  participant(i, {Input::Kind::message, static_cast<std::uint8_t>(i), id, 0});
}

void World::data_down(std::size_t i, const Item& item) {
  Site& site = s_.sites[i];
  const auto of = static_cast<std::uint8_t>(i);
  if (site.receiving == 0 || item.length > site.receiving_left)
    return participant(i, {Input::Kind::unexpected, of, 0, 0});
  site.receiving_left = static_cast<std::uint8_t>(site.receiving_left - item.length);
  const bool wanted = site.receiving == site.model;
  if (wanted) {
    // Bytes of another file or place make a model that does not have its digest.
    if (item.digest != site.model || item.offset != site.model_bytes) site.model_broken = 1;
    site.model_bytes = static_cast<std::uint8_t>(site.model_bytes + item.length);
  }
  if (site.receiving_left > 0) return;
  const Id digest = site.receiving;
  site.receiving = 0;
  if (!wanted) return;
  const bool holds = site.model_bytes == model_length && !site.model_broken;
  if (!holds) site.model = 0, site.model_bytes = site.model_broken = 0;
  participant(i, {holds ? Input::Kind::model_ready : Input::Kind::model_broken, of, digest, 0});
}

void World::dial(std::size_t i, std::size_t k) {
  Site& site = s_.sites[i];
  const auto of = static_cast<std::uint8_t>(i);
  if (site.far_open) {  // a second connection of an owner replaces the first
    const std::size_t before = site.instance - 1U;
    site.far_open = 0;
    s_.instances[before].expecting[i] = s_.instances[before].left[i] = 0;
    aggregator(before, {Input::Kind::disconnected, of, 0, 0});
  }
  s_.up[i] = {};
  s_.down[i] = {};
  site.receiving = 0, site.receiving_left = 0;
  site.instance = static_cast<std::uint8_t>(k + 1);
  site.near_open = site.far_open = site.alive = 1;
  site.heard = 0;
  aggregator(k, {Input::Kind::connected, of, 0, 0});
  participant(i, {Input::Kind::connected, of, machines_.key(s_.instances[k].key), 0});
}

}  // namespace cloister::tests::exhaustive

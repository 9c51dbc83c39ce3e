// The aggregator's side of the world: what aggregation/enclave does with the machine's steps.

#include <fmt/format.h>

#include "tests/protocols/round/exhaustive/world.hpp"

namespace cloister::tests::exhaustive {

using Kind = Act::Kind;

void World::aggregator(std::size_t k, Input input) {
  if (s_.instances[k].machine == 0) return;
  const Reaction& reaction = machines_.aggregator(s_.instances[k].machine, input);
  s_.instances[k].machine = reaction.machine;
  perform_aggregator(k, reaction.acts);
}

void World::perform_aggregator(std::size_t k, const std::vector<Act>& acts) {
  Instance& n = s_.instances[k];
  const Mutation m = options_.mutation;
  for (const Act& act : acts) {
    if (!broken_.empty()) return;
    const std::size_t i = act.site;
    switch (act.kind) {
      case Kind::send:
        shows(k, machines_.item(act.item));
        send_down(k, i, act.item);
        break;
      case Kind::send_model: {
        bool committed = act.digest == machines_.initial_model();
        for (std::size_t r = 0; r < machines_.rounds(); ++r)
          committed = committed || (n.receipts[r] != 0 && n.models[r] == act.digest);
        if (!committed) fail("a model leaves before its round is committed");
        send_down(k, i, act.item);
        for (std::uint8_t at = act.offset; at < model_length;) {
          const auto length = static_cast<std::uint8_t>(std::min<int>(chunk, model_length - at));
          send_down(k, i, machines_.data(act.digest, at, length));
          at = static_cast<std::uint8_t>(at + length);
        }
        aggregator(k, {Input::Kind::model_sent, act.site, 0, 0});
        break;
      }
      case Kind::begin_task:
        n.round = act.round;
        n.sum = 0;
        n.slot = {};
        n.slot_bytes = n.slot_broken = {};
        break;
      case Kind::open_slot:
        if (n.slot[i] != act.digest) n.slot[i] = act.digest, n.slot_bytes[i] = n.slot_broken[i] = 0;
        n.opening[i] = act.round;
        break;
      case Kind::receive:
        n.expecting[i] = act.length == 0 ? 0 : act.round;
        n.left[i] = act.length;
        if (act.length == 0) n.staging[i] = act.round;  // everything was there before the cut
        break;
      case Kind::swallow:
        n.expecting[i] = act.length == 0 ? 0 : 255;
        n.left[i] = act.length;
        break;
      case Kind::drop_slot:
        drop_slot(n, i);
        break;
      case Kind::add:
        add(k, act);
        if (m == Mutation::adds_twice) add(k, act);
        break;
      case Kind::reduce:
        if (act.members != n.added[act.round - 1U])
          fail(fmt::format("round {} closes over {:b}, added were {:b}", act.round, act.members,
                           n.added[act.round - 1U]));
        n.closed[act.round - 1U] = act.members;
        n.reducing = act.round;
        if (m == Mutation::adds_without_close) {
          Act late = act;
          late.site = 0;
          add(k, late);
        }
        break;
      case Kind::set_deadline:
        if (m != Mutation::sets_no_deadline && m != Mutation::answers_no_answer)
          n.timers = static_cast<std::uint8_t>(n.timers | act.timer);
        break;
      case Kind::clear_deadline:
        n.timers = static_cast<std::uint8_t>(n.timers & ~act.timer);
        break;
      case Kind::record:
        commit(k, act);
        break;
      case Kind::publish_result:
        if (n.receipts[act.round - 1U] == 0) fail("a result is published before its round is committed");
        break;
      case Kind::refuse:
        if (polite())
          fail(fmt::format("the aggregator refuses honest participant {}: {}", i,
                           base::text(machines_.bytes(act.item))));
        s_.sites[i].alive = 0;
        s_.up[i] = {};
        break;
      case Kind::finish:
        n.finished = act.flag ? 1 : 2;
        if (!act.flag && machines_.bytes(act.item).empty()) fail("an end without a reason");
        break;
      default:
        break;
    }
  }
}

void World::send_down(std::size_t k, std::size_t i, Id item) {
  const Site& site = s_.sites[i];
  if (site.instance == k + 1 && site.far_open && site.alive && site.near_open) push(s_.down[i], item);
}

/// Nothing that a round gave, not even the next round's offer, is shown before the round has its witnesses.
void World::shows(std::size_t k, const Item& item) {
  const Instance& n = s_.instances[k];
  const auto committed = [&](std::uint8_t of_round) { return of_round == 0 || n.receipts[of_round - 1U] != 0; };
  if (item.type == messages::OFFER && !committed(static_cast<std::uint8_t>(item.round - 1)))
    fail(fmt::format("round {} is offered before the round before it is committed", item.round));
  if ((item.type == messages::COMMITTED || item.type == messages::MISSED_RECEIPTS) && !committed(item.round))
    fail(fmt::format("round {} is shown as committed, and is not", item.round));
  if (item.type == messages::RUN_END && item.done && !committed(static_cast<std::uint8_t>(machines_.rounds())))
    fail("the run is shown as done before its last round is committed");
  if (item.type == messages::RECEIPT && item.members != n.closed[item.round - 1U])
    fail(fmt::format("the receipt of round {} names {:b}, added were {:b}", item.round, item.members,
                     n.closed[item.round - 1U]));
  if (item.type == messages::RECEIPT && options_.mutation == Mutation::commits_early && n.models[item.round - 1U] != 0)
    perform_aggregator(k, {Act{.kind = Kind::send_model, .item = 1, .digest = n.models[item.round - 1U]}});
}

void World::add(std::size_t k, const Act& act) {
  Instance& n = s_.instances[k];
  const std::size_t i = act.site;
  std::uint8_t& added = n.added[act.round - 1U];
  if (n.closed[act.round - 1U] != 0) fail(fmt::format("an update is added to round {} after it closed", act.round));
  if (added & 1U << i) fail(fmt::format("the update of participant {} is added twice in round {}", i, act.round));
  if (n.slot_bytes[i] != update_length || n.slot_broken[i])
    fail(fmt::format("the update of participant {} is added before it is whole", i));
  if (polite() && s_.sites[i].announced[act.round - 1U] != n.slot[i])
    fail(fmt::format("what is added for participant {} is not what it announced", i));
  added = static_cast<std::uint8_t>(added | 1U << i);
  // The sum does not depend on the order of its parts.
  const Id part = machines_.derived("part", n.slot[i], static_cast<std::uint8_t>(i));
  Bytes sum = n.sum == 0 ? Bytes(32, 0) : machines_.bytes(n.sum);
  for (std::size_t b = 0; b < 32; ++b) sum[b] = static_cast<std::uint8_t>(sum[b] ^ machines_.bytes(part)[b]);
  n.sum = machines_.name(sum);
  n.slot[i] = 0;
  n.slot_bytes[i] = n.slot_broken[i] = 0;
}

void World::drop_slot(Instance& n, std::size_t i) {
  n.slot[i] = 0;
  n.slot_bytes[i] = n.slot_broken[i] = 0;
  if (n.expecting[i] != 0) n.expecting[i] = 255;
}

void World::commit(std::size_t k, const Act& act) {
  Instance& n = s_.instances[k];
  const std::size_t r = act.round - 1U;
  std::uint32_t signed_ = 0;
  for (std::size_t i = 0; i < machines_.sites(); ++i) {
    const Site& site = s_.sites[i];
    const bool own = site.acknowledged[r] == act.digest || site.acknowledged_second[r] == act.digest;
    if (own || (i == 0 && options_.faults.replays > 0)) ++signed_;  // who replays may sign what it likes
  }
  if (options_.mutation == Mutation::needs_one_more) --signed_;
  if (signed_ < machines_.witnesses())
    fail(fmt::format("round {} commits with {} witnesses of {}", act.round, signed_, machines_.witnesses()));
  n.receipts[r] = act.digest;
  const Instance& other = s_.instances[1 - k];
  if (other.receipts[r] != 0 && other.receipts[r] != act.digest)
    fail(fmt::format("round {} has two answers, each with its quorum", act.round));
}

void World::deliver_up(std::size_t i) {
  Queue& q = s_.up[i];
  const Id id = q.items[0];
  std::memmove(&q.items[0], &q.items[1], (q.size - 1U) * sizeof(Id));
  q.items[--q.size] = 0;
  const std::size_t k = s_.sites[i].instance - 1U;
  const Item& item = machines_.item(id);
  if (item.type == messages::DATA) return data_up(k, i, item);
  if (item.type == messages::ACCEPT && options_.mutation == Mutation::answers_no_answer) {
    s_.sites[i].alive = 0;
    s_.up[i] = {};
    return;
  }
  aggregator(k, {Input::Kind::message, static_cast<std::uint8_t>(i), id, 0});
}

void World::data_up(std::size_t k, std::size_t i, const Item& item) {
  Instance& n = s_.instances[k];
  if (n.expecting[i] == 0 || item.length > n.left[i]) {
    n.expecting[i] = n.left[i] = 0;
    return aggregator(k, {Input::Kind::data_unexpected, static_cast<std::uint8_t>(i), 0, 0});
  }
  n.left[i] = static_cast<std::uint8_t>(n.left[i] - item.length);
  const std::uint8_t of_round = n.expecting[i];
  if (n.left[i] == 0) n.expecting[i] = 0;
  if (of_round == 255) return;  // swallowed
  if (item.digest != n.slot[i] || item.offset != n.slot_bytes[i]) n.slot_broken[i] = 1;
  n.slot_bytes[i] = static_cast<std::uint8_t>(n.slot_bytes[i] + item.length);
  if (n.left[i] == 0) n.staging[i] = of_round;
}

}  // namespace cloister::tests::exhaustive

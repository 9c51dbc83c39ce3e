// What the round's machine wants done, step by step in its order. A step that must be durable is on disk before the
// next begins.
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <deque>
#include <fmt/format.h>

#include "aggregation/model.hpp"
#include "participant/node.hpp"

namespace cloister::participant {

namespace asio = boost::asio;
namespace round = protocols::round;
namespace messages = protocols::messages;
using asio::awaitable;
using std::chrono::steady_clock;

namespace {

constexpr std::size_t upload_block = 256 << 10;

template <class T>
const T* as(const round::ParticipantStep& step) {
  return std::get_if<T>(&step);
}

awaitable<void> send_stored(protocols::channel::Connection& to, const StoredBytes& update, std::uint64_t offset,
                            std::uint64_t length) {
  Bytes piece(std::min<std::uint64_t>(upload_block, length));
  while (length > 0) {
    const std::span<std::uint8_t> part(piece.data(), std::min<std::uint64_t>(piece.size(), length));
    if (auto read = update.read(offset, part); !read) throw Exception(read.error());
    co_await to.send_data(part);
    offset += part.size();
    length -= part.size();
  }
}

}  // namespace

// A connection that breaks meanwhile takes only the sending away: what is durable is still done, and the link reports
// the end.
awaitable<void> Node::send(const round::Message& message) {
  if (!connection_) co_return;
  const protocols::channel::ConnectionPtr connection = connection_;
  try {
    const auto deadline = steady_clock::now() + charter_->manifest.channel_deadline;
    co_await with_deadline(connection->send(round::type(message), round::protobuf(message)), deadline,
                           "the aggregator taking a message");
  } catch (const Exception&) {
    connection->close();
  }
}

awaitable<void> Node::perform(Steps steps) {
  std::deque<round::ParticipantStep> queue(std::make_move_iterator(steps.begin()),
                                           std::make_move_iterator(steps.end()));
  while (!queue.empty() && !end_) {
    const round::ParticipantStep step = std::move(queue.front());
    queue.pop_front();
    Steps more;
    Result<void> durable;
    std::uint32_t number = 0;
    if (const auto* s = as<round::Send>(step)) {
      const round::Message message = counted(s->message);
      co_await send(message);
    } else if (const auto* charged = as<round::Charge>(step)) {
      durable = charge(*charged);
      number = charged->round;
    } else if (const auto* stored = as<round::StoreUpdate>(step)) {
      durable = store(*stored);
      number = stored->round;
    } else if (const auto* signed_ = as<round::SignReceipt>(step)) {
      durable = sign(*signed_);
      number = signed_->round;
    } else if (const auto* kept = as<round::Keep>(step)) {
      durable = keep(*kept);
      number = kept->round;
    } else if (const auto* need = as<round::NeedModel>(step)) {
      auto answered = need_model(*need);
      if (answered)
        more = std::move(*answered);
      else
        durable = answered.error();
    } else if (const auto* update = as<round::SendUpdate>(step)) {
      more = co_await send_update(*update);
    } else {
      perform_local(step);
    }
    if (!durable) {
      co_await give_up(durable.error(), number);
      co_return;
    }
    queue.insert(queue.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
  }
}

void Node::perform_local(const round::ParticipantStep& step) {
  if (const auto* receive = as<round::ReceiveModel>(step)) {
    incoming_ = Incoming{receive->digest, receive->length - receive->offset};
  } else if (const auto* run = as<round::RunTask>(step)) {
    run_task(*run);
  } else if (as<round::StopTask>(step) != nullptr) {
    stop_task();
  } else if (const auto* set = as<round::SetDeadline>(step)) {
    set_deadline(*set);
  } else if (const auto* clear = as<round::ClearDeadline>(step)) {
    timers_.erase(clear->name);
  } else if (const auto* refused = as<round::Refused>(step)) {
    on_refused(*refused);
  } else if (const auto* published = as<round::Publish>(step)) {
    publish(*published);
  } else if (const auto* ended = as<round::Ended>(step)) {
    end_run(*ended);
  } else if (const auto* disconnect = as<round::Disconnect>(step)) {
    log_->event("disconnected", "the aggregator broke the protocol: " + disconnect->reason,
                {{"reason", disconnect->reason}});
    if (connection_) connection_->close();
  }
}

// --- Durable
// -------------------------------------------------------------------------------------------------------------------

Result<void> Node::charge(const round::Charge& step) {
  const RoundId id = round_id(step.round);
  const Charge charge{
      id, charter_->manifest.study, step.task, step.record.offer, step.record.order, step.record.withdrawn};
  if (auto charged = ledger_->charge(charge, *step.record.receipt_key); !charged) return charged;
  log_->event("charged", fmt::format("run {} round {}: {} charged to the ledger", id.run, id.round, step.task),
              {{"run", id.run}, {"round", id.round}, {"task", step.task}, {"train_round", step.train_round}});
  return {};
}

Result<void> Node::store(const round::StoreUpdate& step) {
  if (!answer_) return base::unavailable("node", "no update to store");
  const RoundId id = round_id(step.round);
  const std::optional<StoredUpdate> stored = std::exchange(answer_, std::nullopt);
  if (stored->digest != step.digest || stored->length != step.length)
    return base::untrusted("node", "the update that was stored is not the one that is about to be announced");
  if (auto recorded = ledger_->record_update(id, *stored); !recorded) return recorded;
  log_->event(
      "stored",
      fmt::format("run {} round {}: update of {} stored, now announced", id.run, id.round,
                  base::size_text(stored->length)),
      {{"run", id.run}, {"round", id.round}, {"bytes", stored->length}, {"update", base::digest_text(stored->digest)}});
  return {};
}

Result<void> Node::sign(const round::SignReceipt& step) {
  const auto receipt = round::SignedReceipt::parse(step.receipt);
  if (!receipt) return receipt.error();
  const RoundId id = round_id(step.round);
  const auto recorded = ledger_->sign_receipt(id, receipt->digest, step.receipt, *step.record.receipt_key);
  if (!recorded) return recorded;
  log_->event("signed", fmt::format("run {} round {}: receipt signed as a witness", id.run, id.round),
              {{"run", id.run}, {"round", id.round}, {"receipt", base::digest_text(receipt->digest)}});
  return {};
}

Result<void> Node::keep(const round::Keep& step) {
  const RoundId id = round_id(step.round);
  const auto receipt = round::SignedReceipt::parse(step.committed.receipt);
  if (!receipt) return receipt.error();
  // Of a run that this witness no longer serves, what the others committed is not recorded as its own word.
  const bool left = ledger_->state().successor(id.charter) && !ledger_->state().begun(id.of());
  const auto& acknowledgements = step.committed.acknowledgements;
  if (!left)
    if (auto kept = ledger_->commit(id, receipt->digest, step.committed.receipt, acknowledgements); !kept) return kept;
  updates_.remove(id);
  log_->event("committed",
              fmt::format("run {} round {} committed: {} of {} hospitals contributed", id.run, id.round,
                          receipt->receipt.contributors(), receipt->receipt.members.size()),
              {{"run", id.run},
               {"round", id.round},
               {"task", receipt->receipt.task},
               {"receipt", base::digest_text(receipt->digest)},
               {"contributors", receipt->receipt.contributors()}});
  return {};
}

// What a ledger forbids is this round's refusal; a ledger or disk that cannot be written is this node's end: nothing
// may be answered that is not recorded.
awaitable<void> Node::give_up(const Error& error, std::uint32_t number) {
  machine_.reset();
  timers_.clear();
  stop_task();
  if (error.kind == Error::Kind::denied) {
    co_await decline(error, number);
    resume();
    if (machine_ && connection_) co_await perform(machine_->joined(receipt_key_));
  } else {
    end_ = NodeEnd{NodeEnd::Kind::failed, "cannot record what was asked for: " + error.text()};
  }
}

awaitable<void> Node::decline(Error error, std::uint32_t number) {
  attest::Decision d;
  d.add({false, charter_->policy(options_.config.owner)->owner_text(), "ledger",
         "nothing that contradicts what is recorded", error.text(), "order a new run"});
  attest::log_refusals(*log_, d, fmt::format("offer of round {}", number));
  messages::Decline m;
  m.set_round(number);
  m.set_reason(d.refusals().front().text());
  *m.add_findings() = round::to_message(d.refusals().front());
  const round::Message wrapped = std::move(m);
  co_await send(wrapped);
  if (options_.once) end_ = NodeEnd{NodeEnd::Kind::denied, error.text()};
}

// --- Model and update
// ----------------------------------------------------------------------------------------------------------

Result<Node::Steps> Node::need_model(const round::NeedModel& step) {
  // The charter's schema says how long a model is: no other length is worth the room.
  if (step.length != aggregation::model_length(formats_.at("train").schema)) return machine_->model_broken(step.digest);
  if (model_.digest() != step.digest) repeated_in_ = 0;
  if (auto wanted = model_.want(step.digest, step.length); !wanted) return wanted.error();
  if (model_.holds()) return machine_->model_ready(step.digest);
  if (model_.received() == step.length) {
    if (auto again = model_.restart(); !again) return again.error();
  }
  return machine_->fetch(step.digest, model_.received());
}

// What the trainer wrote becomes this node's own on another thread, so that the connection is served meanwhile.
awaitable<Result<StoredUpdate>> Node::put_aside(RoundId id, View update, std::uint64_t weight) {
  // A coroutine of its own for the pool: everything that it refers to outlives it, since it is awaited here.
  auto work = [](UpdateStore& store, RoundId of, View bytes,
                 std::uint64_t w) -> awaitable<std::optional<Result<StoredUpdate>>> {
    co_return store.put(of, bytes, w);
  };
  auto stored = co_await asio::co_spawn(worker_, work(updates_, id, update, weight), asio::use_awaitable);
  co_return std::move(*stored);
}

round::Message Node::counted(const round::Message& message) {
  const auto* transfer = std::get_if<messages::Transfer>(&message);
  if (transfer == nullptr) return message;
  const RoundId id = round_id(machine_->record().stored);
  if (uploaded_.round != id) uploaded_ = {id, 0, 0};
  uploaded_.repeated = uploaded_.up_to > transfer->offset() ? uploaded_.up_to - transfer->offset() : 0;
  messages::Transfer out = *transfer;
  out.set_repeated(uploaded_.repeated);
  return out;
}

awaitable<Node::Steps> Node::send_update(const round::SendUpdate& step) {
  const round::ParticipantRecord& record = machine_->record();
  const RoundId id = round_id(step.round);
  const auto update = updates_.get(id, {record.update, record.update_length, record.weight});
  if (!update) co_return machine_->update_lost(step.round, update.error().text());
  if (!connection_) co_return Steps{};
  const protocols::channel::ConnectionPtr connection = connection_;
  const std::uint64_t before = connection->bytes_sent();
  const std::uint64_t repeated = uploaded_.repeated;
  // What the socket took: a little more than the update's bytes, for TLS adds its own.
  const auto count = [&] {
    const std::uint64_t given = std::min(step.length, connection->bytes_sent() - before);
    if (uploaded_.round == id) uploaded_.up_to = std::max(uploaded_.up_to, step.offset + given);
  };
  try {
    const auto deadline = steady_clock::now() + charter_->manifest.round_deadline;
    co_await with_deadline(send_stored(*connection, *update, step.offset, step.length), deadline,
                           "the aggregator taking an update");
    count();
    log_->event("uploaded",
                fmt::format("run {} round {}: {} sent{}", id.run, id.round, base::size_text(step.length),
                            repeated == 0 ? "" : fmt::format(", {} of it again", base::size_text(repeated))),
                {{"run", id.run},
                 {"round", id.round},
                 {"bytes", step.length},
                 {"offset", step.offset},
                 {"repeated", repeated}});
  } catch (const Exception&) {
    count();
    connection->close();  // the link reports it; the next connection resumes
  }
  co_return Steps{};
}

// --- The rest
// ------------------------------------------------------------------------------------------------------------------

void Node::run_task(const round::RunTask& step) {
  task_kind_ = step.offered.task;
  log_->event("task_started",
              fmt::format("run {} round {}: {} in the trainer", machine_->run(), step.offered.round, step.offered.task),
              {{"run", machine_->run()}, {"round", step.offered.round}, {"task", step.offered.task}});
  spawn(task(++task_, step));
}

// The contract has no word for "stop": the child ends, and the next task gets a new one.
void Node::stop_task() {
  ++task_;
  answer_.reset();
  if (trainer_) trainer_->stop();
  trainer_.reset();
}

void Node::set_deadline(const round::SetDeadline& step) {
  Timer& t = timers_[step.name];
  t.setting = ++settings_;
  t.timer = std::make_unique<asio::steady_timer>(executor_, step.after);
  t.timer->async_wait([this, name = step.name, setting = t.setting](boost::system::error_code e) {
    if (!e) inbox_.push(DeadlineCame{name, setting});
  });
}

void Node::on_refused(const round::Refused& step) {
  attest::log_refusals(*log_, step.decision, fmt::format("run {}: {}", machine_->run(), step.about));
  if (step.equivocation)
    log_->event("equivocation",
                fmt::format("run {}: the aggregator gave two contents under one number ({}); tell the other owners",
                            machine_->run(), step.about),
                {{"run", machine_->run()}, {"about", step.about}});
  if (options_.once) end_ = NodeEnd{NodeEnd::Kind::denied, step.decision.explain()};
}

void Node::publish(const round::Publish& step) {
  const RoundId id = round_id(step.round);
  if (const auto saved = files_.save_result(id, step.kind, step.value); !saved) {
    log_->event("result_lost", saved.error().text());
    return;
  }
  log_->event("published", fmt::format("run {} round {}: the cohort's {} received", id.run, id.round, step.kind),
              {{"run", id.run},
               {"round", id.round},
               {"kind", step.kind},
               {"digest", base::digest_text(base::sha256(step.value))}});
}

void Node::end_run(const round::Ended& step) {
  const RunId id{charter_->digest, machine_->run()};
  const std::string outcome(round::name(step.outcome));
  if (const auto recorded = ledger_->end_run(id, outcome, step.reason); !recorded) {
    end_ = NodeEnd{NodeEnd::Kind::failed, recorded.error().text()};
    return;
  }
  updates_.remove_run(id);
  stop_task();
  log_->event("run_ended", fmt::format("run {} {}{}{}", id.run, outcome, step.reason.empty() ? "" : ": ", step.reason),
              {{"run", id.run}, {"outcome", outcome}, {"reason", step.reason}});
  ++runs_ended_;
  if (step.outcome != round::Outcome::done) failed_run_ = fmt::format("run {} {}: {}", id.run, outcome, step.reason);
  if (options_.runs == 0 || runs_ended_ < options_.runs) return;
  end_ = failed_run_.empty()
             ? NodeEnd{NodeEnd::Kind::done,
                       fmt::format("{} ended", runs_ended_ == 1 ? "1 run" : fmt::format("{} runs", runs_ended_))}
             : NodeEnd{NodeEnd::Kind::failed, failed_run_};
}

}  // namespace cloister::participant

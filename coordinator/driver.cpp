#include "coordinator/driver.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/system/system_error.hpp>
#include <fstream>

#include "base/deadline.hpp"

namespace cloister::coordinator {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

constexpr milliseconds first_pause{250}, longest_pause{15'000};

/// Asking again can help: a peer that is not there, a grant that has just run out. A policy's no stays no.
bool may_pass(const Error& error) {
  return error.kind == Error::Kind::unavailable || error.kind == Error::Kind::expired;
}

std::string run_text(std::uint64_t run) {
  return "run " + std::to_string(run);
}

}  // namespace

Driver::Driver(boost::asio::any_io_executor executor, const StudyFiles& study, Store& store, Peers& peers, Board& board,
               std::shared_ptr<base::Log> log, milliseconds instance_idle)
    : executor_(std::move(executor)),
      study_(study),
      store_(store),
      peers_(peers),
      board_(board),
      log_(std::move(log)),
      idle_(instance_idle) {}

void Driver::stop() {
  stopping_ = true;
  if (instance_) instance_->close();
  changed_.raise();
}

void Driver::event(const RunId& id, const std::string& json) {
  store_.add_event(id, json, base::now());
  board_.notice.raise();
}

std::shared_ptr<Instance> Driver::make_instance() {
  Instance::Tell tell;
  tell.state = [this](const std::string& instance, const std::string& state) {
    log_->event("instance_" + state, "the launcher says that instance " + instance + " is " + state,
                {{"instance", instance}});
    if (current_ != 0) event({charter().digest, current_}, instance_event(instance, state));
  };
  tell.ended = [this] { changed_.raise(); };
  return std::make_shared<Instance>(charter(), store_, peers_, log_, std::move(tell));
}

awaitable<void> Driver::pause(milliseconds at_most) {
  co_await changed_.after(changed_.version(), steady_clock::now() + at_most);
}

awaitable<void> Driver::run() {
  while (!stopping_) {
    std::vector<Run> waiting = store_.unfinished(charter().digest);
    if (waiting.empty()) {
      co_await idle();
      continue;
    }
    // At most one is running, and a coordinator that was killed finds it here again; it goes first.
    auto next =
        std::find_if(waiting.begin(), waiting.end(), [](const Run& run) { return run.state == RunState::running; });
    Run run = next == waiting.end() ? waiting.front() : *next;
    co_await perform(std::move(run));
  }
}

awaitable<void> Driver::idle() {
  const std::uint64_t seen = changed_.version();
  if (!instance_ && store_.living_instances(charter().digest).empty()) {
    co_await changed_.after(seen, steady_clock::time_point::max());
    co_return;
  }
  if (!make_room_ && co_await changed_.after(seen, steady_clock::now() + idle_)) co_return;
  const std::string why = std::exchange(make_room_, false) ? "idle, and another charter's run wants its address"
                                                           : "idle for " + base::text(idle_);
  co_await give_up_instance(why);
}

awaitable<void> Driver::give_up_instance(std::string reason) {
  const auto instance = instance_ ? std::exchange(instance_, nullptr) : make_instance();
  co_await instance->end(std::move(reason));
  instance->close();
}

void Driver::finish(const RunId& id, RunState state, const std::string& reason) {
  if (!store_.move(id, state, reason, ended_event(state, reason), base::now())) return;
  log_->event("run_ended", run_text(id.run) + " " + std::string(name(state)) + (reason.empty() ? "" : ": " + reason),
              {{"run", id.run}, {"state", name(state)}, {"reason", reason}});
  board_.live.erase(id);
  board_.notice.raise();
}

awaitable<void> Driver::perform(Run run) {
  current_ = run.id.run;
  cancel_.reset();
  if (!run.cancel.empty()) cancel_ = Cancel{run.id.run, run.cancel};
  std::optional<Error> failure;
  try {
    const bool told = run.state == RunState::running;
    bool given = told;
    if (!given) given = co_await start(run);
    if (given) co_await follow(run.id, told);
  } catch (const Exception& e) {
    failure = e.error();
  } catch (const boost::system::system_error& e) {
    failure = base::unavailable("network", e.what());
  }
  current_ = 0;
  changed_.raise();
  if (!failure || stopping_) co_return;
  const bool by_wish = cancelled(run.id.run);
  finish(run.id, by_wish ? RunState::cancelled : RunState::failed, by_wish ? cancel_->reason : failure->text());
  // Nobody's word is left that the instance is idle, or it has just been refused.
  co_await give_up_instance(run_text(run.id.run) + " ended without it: " + failure->text());
}

/// An instance that the launcher has granted and an attested link to it, now or with patience.
awaitable<void> Driver::ready(std::uint64_t run) {
  if (!instance_ || instance_->ended() || !instance_->linked()) {
    if (instance_) instance_->close();
    instance_ = make_instance();
    co_await instance_->launch(run_text(run));
  }
  co_await instance_->enclave();
  co_await instance_->renew_if_due();  // of an instance that was idle: before it gets order and weights
}

awaitable<bool> Driver::start(Run run) {
  if (run.state == RunState::queued) {
    if (!store_.move(run.id, RunState::launching, "", launching_event(), base::now())) co_return false;
    board_.notice.raise();
  }
  log_->event("run_launching", run_text(run.id.run) + " waits for an instance", {{"run", run.id.run}});
  const auto until = steady_clock::now() + charter().manifest.round_deadline;
  milliseconds wait = first_pause;
  for (;;) {
    if (stopping_ || ended(store_.run(run.id)->state)) co_return false;
    std::string reason;
    try {
      co_await ready(run.id.run);
      break;
    } catch (const Exception& e) {
      if (!may_pass(e.error())) throw;
      reason = e.error().text();
    }
    if (steady_clock::now() + wait > until)
      throw Exception(base::unavailable(
          "aggregator", "no instance within " + base::text(charter().manifest.round_deadline) + "; last: " + reason));
    event(run.id, waiting_event(reason, wait));
    log_->event("instance_waited_for", reason, {{"run", run.id.run}, {"again_ms", wait.count()}});
    co_await pause(wait);
    wait = std::min(2 * wait, longest_pause);
  }
  const auto connection = co_await instance_->enclave();
  const bool simulated = connection->peer_claims() && connection->peer_claims()->simulated;
  // From here on the run is spent: what is stored now decides, after a kill, who may go on with it.
  if (!store_.start(run.id, connection->record(), simulated, started_event(connection->record(), simulated),
                    base::now()))
    co_return false;
  board_.notice.raise();
  log_->event("run_started", run_text(run.id.run) + " is given to the aggregator" + (simulated ? " (simulated)" : ""),
              {{"run", run.id.run}});
  co_return true;
}

awaitable<void> Driver::send_model(channel::ConnectionPtr connection) {
  const milliseconds at_most = charter().manifest.channel_deadline;
  messages::Transfer transfer;
  transfer.set_what("model");
  transfer.set_digest(charter().manifest.initial_model.data(), charter().manifest.initial_model.size());
  transfer.set_length(study_.model_length);
  co_await with_deadline(connection->send(messages::TRANSFER, transfer), steady_clock::now() + at_most,
                         "sending the initial model");
  std::ifstream file(study_.initial_model, std::ios::binary);
  Bytes block(channel::data_cap);
  std::uint64_t left = study_.model_length;
  while (left != 0) {
    const auto n = static_cast<std::size_t>(std::min<std::uint64_t>(left, block.size()));
    if (!file.read(reinterpret_cast<char*>(block.data()), static_cast<std::streamsize>(n)))
      throw Exception(base::untrusted(study_.initial_model, "it became shorter since the coordinator started"));
    co_await with_deadline(connection->send_data(View(block).first(n)), steady_clock::now() + at_most,
                           "sending the initial model");
    left -= n;
  }
}

/// The order with the initial model, or the order alone: "I am back, go on telling me of this run".
awaitable<void> Driver::attach(const Run& run, bool with_model) {
  if (!instance_) instance_ = make_instance();
  const auto connection = co_await instance_->enclave();
  if (connection->record() != run.record)
    throw Exception(base::untrusted("aggregator", "the instance that was given " + run_text(run.id.run) +
                                                      " is gone, another one answers at its address; submit again"));
  const auto deadline = steady_clock::now() + charter().manifest.channel_deadline;
  messages::RunOrder order;
  order.set_order(run.order.data(), run.order.size());
  order.set_model_length(with_model ? study_.model_length : 0);
  co_await with_deadline(connection->send(messages::RUN_ORDER, order), deadline, "sending the run order");
  if (with_model) co_await send_model(connection);
  if (cancelled(run.id.run)) co_await send_cancel(run.id.run);
  log_->event(with_model ? "order_sent" : "attached_again",
              run_text(run.id.run) + (with_model ? ": order and model are sent" : ": following again"),
              {{"run", run.id.run}});
}

/// The next frame; evidence that has become too old is asked for again first, but not in the middle of a model.
awaitable<channel::Frame> Driver::hear(channel::ConnectionPtr connection, const Follower& follower, bool& heard) {
  // The enclave speaks at every change of a round's state, so it is never silent for longer than a round.
  const auto speaks_by = steady_clock::now() + charter().manifest.round_deadline + patience();
  const std::string renewal = "renewal", word = "aggregator: word of the run";
  for (;;) {
    try {
      if (!follower.receiving()) co_await instance_->renew_if_due();
    } catch (const Exception& e) {
      heard =
          heard || e.error().kind == Error::Kind::denied;  // our own no, not the enclave's that it knows no such run
      throw;
    }
    const bool renews = !follower.receiving() && instance_->renew_at() < speaks_by;
    const auto deadline = renews ? instance_->renew_at() : speaks_by;
    const std::string& what = renews ? renewal : word;
    try {
      co_return co_await with_deadline(connection->receive(), deadline, what);
    } catch (const Exception& e) {
      if (e.error().where != renewal) throw;
    }
  }
}

awaitable<End> Driver::listen(Follower& follower, bool& heard) {
  const auto connection = co_await instance_->enclave();
  for (;;) {
    const channel::Frame frame = co_await hear(connection, follower, heard);
    if (frame.type == messages::REFUSAL) {
      const auto refused = channel::parse<messages::Refusal>(frame);
      throw Exception(refusal("aggregator", refused.reason(), refused.findings(), refused.retry()));
    }
    heard = true;
    const std::uint32_t before = follower.round();
    auto result = follower.on(frame, base::now());
    if (!result) throw Exception(result.error());
    if (follower.round() != before)
      log_->event("round_committed", "round " + std::to_string(follower.round()) + " is committed",
                  {{"round", follower.round()}});
    if (*result) co_return **result;
  }
}

/// An enclave that is gone together with its launcher's link: the machine, or the launcher, is what people look at
/// first.
std::string Driver::launcher_text() const {
  if (!instance_ || instance_->launcher_lost().empty()) return "";
  return "; the launcher's link is lost too: " + instance_->launcher_lost();
}

awaitable<void> Driver::follow(RunId id, bool told) {
  const Run run = *store_.run(id);
  Follower follower(
      charter(), store_, run, [this] { board_.notice.raise(); },
      [this, id](std::string json) { board_.status(id, std::move(json)); });
  bool with_model = !told;      // only the instance with this record can have it, or still lack it
  bool known = run.round != 0;  // it has said something of this run
  auto until = steady_clock::now() + patience();
  milliseconds wait = first_pause;
  for (;;) {
    std::string cut;
    bool heard = false;
    try {
      co_await attach(run, with_model);
      with_model = false;
      const End end = co_await listen(follower, heard);
      co_return finish(id, end.state, end.reason);
    } catch (const Exception& e) {
      // An instance that was told nothing before the cut or the kill says so: it gets the whole order.
      const bool unknown = e.error().kind == Error::Kind::denied && !known && !heard && !with_model && told;
      if (!unknown && !may_pass(e.error())) throw;
      if (unknown) with_model = true;
      cut = e.error().text();
    } catch (const boost::system::system_error& e) {
      cut = e.what();
    }
    follower.cut();
    if (stopping_) co_return;
    if (instance_ && instance_->ended())
      throw Exception(base::unavailable("aggregator", "its instance ended: " + *instance_->ended()));
    if (instance_) instance_->cut_enclave();
    if (cancelled(id.run)) throw Exception(base::unavailable("aggregator", "cancelled without its word: " + cut));
    if (heard) until = steady_clock::now() + patience(), wait = first_pause, known = true;
    told = true;
    if (steady_clock::now() + wait > until)
      throw Exception(base::unavailable(
          "aggregator", "it is gone; no answer for " + base::text(patience()) + ", last: " + cut + launcher_text()));
    event(id, attached_event(cut));
    log_->event("aggregator_link_cut", cut, {{"run", id.run}, {"again_ms", wait.count()}});
    co_await pause(wait);
    wait = std::min(2 * wait, longest_pause);
  }
}

bool Driver::cancel(const RunId& id, const std::string& by, const std::string& reason) {
  const std::string why = "cancelled by " + by + (reason.empty() ? "" : ": " + reason);
  if (!store_.ask_cancel(id, why, cancel_event(by, reason), base::now())) return false;
  board_.notice.raise();
  log_->event("cancel_asked", run_text(id.run) + " " + why, {{"run", id.run}, {"by", by}, {"reason", reason}});
  if (store_.run(id)->state != RunState::running) {
    finish(id, RunState::cancelled, why);
    changed_.raise();
    return true;
  }
  if (current_ == id.run) {
    cancel_ = Cancel{id.run, why};
    boost::asio::co_spawn(executor_, enforce_cancel(id.run), [log = log_](std::exception_ptr failure) {
      try {
        if (failure) std::rethrow_exception(failure);
      } catch (const std::exception& e) {
        log->event("cancel_not_sent", e.what());
      }
    });
  }
  return true;
}

awaitable<void> Driver::send_cancel(std::uint64_t run) {
  messages::RunCancel cancel;
  cancel.set_run(run);
  cancel.set_reason(cancel_->reason);
  const auto connection = co_await instance_->enclave();
  co_await with_deadline(connection->send(messages::RUN_CANCEL, cancel),
                         steady_clock::now() + charter().manifest.channel_deadline, "sending the cancellation");
}

/// The enclave ends the run and says so; one that does not is left alone, and follow() ends the run without its word.
awaitable<void> Driver::enforce_cancel(std::uint64_t run) {
  const auto until = steady_clock::now() + patience();
  std::exception_ptr failure;
  try {
    if (instance_) co_await send_cancel(run);
  } catch (...) {
    failure = std::current_exception();
  }
  while (!failure && current_ == run && !stopping_)
    if (!co_await changed_.after(changed_.version(), until)) break;
  if (current_ == run && !stopping_ && instance_) instance_->cut_enclave();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace cloister::coordinator

#include "participant/node.hpp"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <filesystem>
#include <fmt/format.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "aggregation/model.hpp"
#include "base/file.hpp"
#include "participant/node_loaded.hpp"
#include "participant/succession.hpp"
#include "protocols/launch/checks.hpp"

namespace cloister::participant {

namespace asio = boost::asio;
namespace fs = std::filesystem;
namespace messages = protocols::messages;
namespace round = protocols::round;
using asio::awaitable;
using std::chrono::steady_clock;

namespace {

constexpr std::chrono::seconds trainer_start{60};  // loading libtorch on a busy machine
constexpr int task_attempts = 2;                   // of a task whose trainer dies

messages::ParticipantHello idle_hello(const std::optional<StoredWithdrawal>& withdrawal) {
  messages::ParticipantHello hello;
  if (withdrawal) hello.set_withdrawal(base::text(withdrawal->statement));
  return hello;
}

}  // namespace

Node::Node(NodeOptions options, Loaded loaded, asio::any_io_executor executor, std::shared_ptr<base::Log> log)
    : options_(std::move(options)),
      clock_(std::move(loaded.clock)),
      executor_(executor),
      log_(std::move(log)),
      charter_(std::move(loaded.charter)),
      tls_(std::move(loaded.tls)),
      witness_(std::move(loaded.witness)),
      ledger_(std::move(loaded.ledger)),
      updates_(std::move(loaded.updates)),
      files_(std::move(loaded.files)),
      formats_(std::move(loaded.formats)),
      trainer_digest_(loaded.trainer),
      inbox_(executor),
      link_(executor,
            LinkOptions{.to = {charter_->manifest.aggregator_host,
                               options_.port.value_or(charter_->manifest.aggregator_port), options_.config.proxy},
                        .tls = tls_,
                        .expected = expectation(),
                        .attester = options_.attester,
                        .deadline = charter_->manifest.channel_deadline,
                        .renew = charter_->policy(options_.config.owner)->aggregator.renew,
                        .first_pause = options_.first_pause,
                        .longest_pause = options_.longest_pause,
                        .refused_pause = options_.refused_pause},
            inbox_, log_),
      withdrawal_(std::move(loaded.withdrawal)),
      model_(std::move(loaded.model)),
      quiet_(executor, steady_clock::time_point::max()) {}

Node::~Node() {
  worker_.join();
}

Result<std::unique_ptr<Node>> Node::open(NodeOptions options, asio::any_io_executor executor,
                                         std::shared_ptr<base::Log> log) {
  Result<Loaded> loaded =
      Loaded::load(options.config, std::make_shared<const Clock>(options.clock, options.passed), *log);
  if (!loaded) return loaded.error();
  return std::unique_ptr<Node>(new Node(std::move(options), std::move(*loaded), executor, std::move(log)));
}

// This owner's judgement of an enclave, before anything is said to it (docs/how-it-works.md).
protocols::channel::EnclaveExpectation Node::expectation() {
  protocols::channel::EnclaveExpectation out;
  out.charter = charter_->digest;
  out.check_grant = [this](View grant, View record) -> Result<Bytes> {
    const auto checked = protocols::launch::verify_grant(*charter_, grant, record, clock_->now());
    if (!checked) return checked.error();
    host_data_ = checked->host_data;
    return base::copy(base::view(checked->platform));
  };
  out.tls_key = protocols::launch::tls_key;
  out.judge = [this](const attest::Claims& claims) {
    attest::Study study{.charter = *charter_, .at = judging_time()};
    study.host_data = host_data_;
    attest::Decision d = attest::still_founded(*charter_, study.at);
    d.add(attest::judge(&claims, study, *charter_->policy(options_.config.owner)));
    return d;
  };
  out.verify = options_.verify;
  return out;
}

// Charter and policy are judged at no time before the last task that the ledger charged: over a restart, too, a clock
// that was put back makes nothing valid that was over. A grant is judged without the ledger: it is minutes long, and a
// clock that was wrong at an earlier start must not keep the node out once it is right.
Time Node::judging_time() {
  const std::chrono::seconds jump = clock_->jump();
  const Time seen = ledger_->state().seen;
  const bool off = jump.count() != 0 || clock_->now() + Clock::tolerated < seen;
  if (off != std::exchange(clock_off_, off)) say_clock(jump, seen);
  return std::max(clock_->now(), seen);
}

void Node::say_clock(std::chrono::seconds jump, Time seen) {
  const Time wall = options_.clock();
  const auto about = std::chrono::round<std::chrono::minutes>(std::chrono::abs(jump));
  std::string what = "the clock is right again";
  if (jump.count() > 0)
    what = fmt::format("the clock was put forward by {}: what is over by it is refused until it is put right",
                       base::text(about));
  else if (jump.count() < 0)
    what = fmt::format("the clock was put back by {}: validity is judged by the time that has passed, {}",
                       base::text(about), base::text(clock_->now()));
  else if (clock_off_)
    what = fmt::format(
        "the ledger has charged a task at {}, which this clock has not reached: validity is judged at "
        "that time",
        base::text(seen));
  log_->event(clock_off_ ? "clock_off" : "clock_right", fmt::format("{} (it says {})", what, base::text(wall)),
              {{"clock", base::text(wall)}, {"seconds", jump.count()}, {"ledger", base::text(seen)}});
}

attest::Decision Node::gate(const round::OfferedTask& offered) {
  const auto& claims = connection_->peer_claims();
  attest::Decision d =
      judge_task(offered, {.charter = *charter_,
                           .owner = options_.config.owner,
                           .at = judging_time(),
                           .claims = claims ? &*claims : nullptr,
                           .host_data = host_data_,
                           .ledger = ledger_->state(),
                           .trainer = trainer_digest_,
                           .train_records = trainer_ ? trainer_->records().train : 0,
                           .withdrawn = withdrawal_.has_value(),
                           .order_allowed = allowed_order_ == base::sha256(offered.order.serialize())});
  d.add({trainer_ != nullptr, charter_->policy(options_.config.owner)->owner_text(), "trainer", "a trainer that starts",
         trainer_ ? "it runs" : trainer_failure_,
         "see `cloister participant doctor` and the trainer's log at this hospital"});
  return d;
}

// Two signatures, and the same answer for every round of a run: the charter does not change.
bool Node::order_allowed(const attest::RunOrder& order) {
  const base::Sha256 digest = base::sha256(order.serialize());
  if (allowed_order_ == digest) return true;
  if (!attest::judge_order(order, *charter_).allowed()) return false;
  allowed_order_ = digest;
  return true;
}

// --- The main loop
// -----------------------------------------------------------------------------------------------------------

void Node::spawn(awaitable<void> child, asio::cancellation_slot slot) {
  ++children_;
  const auto ended = [this](std::exception_ptr failure) {
    --children_;
    if (failure && !failure_) {
      failure_ = failure;
      inbox_.push(StopAsked{"an internal failure"});
    }
    quiet_.cancel();
  };
  if (slot.is_connected())
    asio::co_spawn(executor_, std::move(child), asio::bind_cancellation_slot(slot, ended));
  else
    asio::co_spawn(executor_, std::move(child), ended);
}

awaitable<NodeEnd> Node::run() {
  log_->event("start",
              fmt::format("study {}, data set {}; privacy unit \"none\": no differential privacy protects this study",
                          charter_->manifest.study, ledger_->state().data_set),
              {{"owner", options_.config.owner},
               {"charter", base::digest_text(charter_->digest)},
               {"study", charter_->manifest.study},
               {"ledger", ledger_->path()},
               {"privacy", charter_->policy(options_.config.owner)->data()->privacy_unit}});
  check_succession();
  if (!end_) resume();
  if (!end_ && machine_) co_await perform(machine_->disconnected());
  if (!end_) {
    spawn(link_.run(), hang_up_.slot());
    spawn(watch_folders());
  }
  while (!end_) {
    Happening happening = co_await inbox_.next();
    co_await handle(happening);
    link_.set_idle(!machine_ || machine_->finished() || machine_->state() == "waiting for an offer");
  }
  link_.stop();
  hang_up_.emit(asio::cancellation_type::terminal);
  stop_task();
  timers_.clear();
  if (watch_) watch_->close();
  while (children_ > 0) {
    boost::system::error_code ignored;
    co_await quiet_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
  }
  if (failure_) std::rethrow_exception(failure_);
  log_->event("end", end_->reason, {{"reason", end_->reason}});
  co_return *end_;
}

void Node::stop(std::string reason) {
  inbox_.push(StopAsked{std::move(reason)});
}

awaitable<void> Node::handle(Happening& happening) {
  co_await std::visit([this](auto& what) { return on(what); }, happening);
}

awaitable<void> Node::on(Opened& opened) {
  connection_ = opened.connection;
  incoming_.reset();
  const auto& claims = connection_->peer_claims();
  log_->set_simulated(claims && claims->simulated);
  log_->event("connected",
              fmt::format("connected to the aggregator{}", claims && claims->simulated ? " in a SIMULATED TEE" : ""),
              {{"measurement", claims ? base::hex(claims->measurement) : ""},
               {"platform", claims ? claims->platform_text() : ""}});
  receipt_key_ = protocols::launch::Record::parse(connection_->record()).value().receipt;
  if (machine_ && !machine_->finished()) {
    co_await perform(machine_->connected(receipt_key_));
  } else {
    const round::Message hello = idle_hello(withdrawal_);
    co_await send(hello);
  }
}

awaitable<void> Node::on(Closed& closed) {
  const bool was_open = std::exchange(connection_, nullptr) != nullptr;
  incoming_.reset();
  if (was_open && machine_) co_await perform(machine_->disconnected());
  if (closed.refused && options_.once) end_ = NodeEnd{NodeEnd::Kind::denied, closed.reason};
}

awaitable<void> Node::on(DeadlineCame& came) {
  const auto timer = timers_.find(came.name);
  if (timer == timers_.end() || timer->second.setting != came.setting) co_return;
  timers_.erase(timer);
  if (machine_) co_await perform(machine_->deadline(came.name));
}

awaitable<void> Node::on(StopAsked& asked) {
  end_ = NodeEnd{NodeEnd::Kind::stopped, asked.reason};
  co_return;
}

awaitable<void> Node::on(FilesChanged&) {
  check_succession();
  co_await check_withdrawal();
}

// Durable in the ledger before it is acted on: the file beside the key may go, the agreement does not.
void Node::check_succession() {
  const auto agreed = agreed_successor(options_.config.witness_key, charter_->digest);
  if (!agreed) {
    log_->event("succession_broken", agreed.error().text());
    return;
  }
  if (!*agreed || ledger_->state().agreed.contains(charter_->digest)) return;
  if (const auto recorded = ledger_->agree(charter_->digest, **agreed); !recorded) {
    end_ = NodeEnd{NodeEnd::Kind::failed, "cannot record the succession: " + recorded.error().text()};
    return;
  }
  log_->event("succession",
              fmt::format("this hospital's witness has signed {}: no new run under the charter {} from now on; one "
                          "that has begun may finish",
                          base::digest_text(**agreed), base::digest_text(charter_->digest)),
              {{"charter", base::digest_text(charter_->digest)}, {"successor", base::digest_text(**agreed)}});
}

awaitable<void> Node::check_withdrawal() {
  auto stored = load_withdrawal(options_.config.ledger_folder, *charter_);
  if (!stored) {
    log_->event("withdrawal_broken", stored.error().text());
    co_return;
  }
  const bool same = stored->has_value() == withdrawal_.has_value() &&
                    (!withdrawal_ || (*stored)->statement == withdrawal_->statement);
  if (same) co_return;
  withdrawal_ = std::move(*stored);
  if (!withdrawal_) {
    log_->event("withdrawal_taken_back",
                "the withdrawal was taken back; an instance that has seen it goes on without this hospital");
    co_return;
  }
  log_->event("withdrawn", "this hospital withdraws from the study: the next round runs without it",
              {{"reason", withdrawal_->reason}});
  if (machine_ && !machine_->finished()) {
    co_await perform(machine_->withdraw(withdrawal_->statement));
  } else if (connection_) {
    messages::Withdraw message;
    message.set_statement(base::text(withdrawal_->statement));
    const round::Message wrapped = std::move(message);
    co_await send(wrapped);
  }
}

// The command line writes withdrawals and agreements to a succession; no polling.
awaitable<void> Node::watch_folders() {
  const fs::path keys = fs::absolute(options_.config.witness_key).parent_path();
  const int fd = ::inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  bool watched = fd >= 0;
  for (const std::string& folder : {options_.config.ledger_folder, keys.string()})
    watched = watched && ::inotify_add_watch(fd, folder.c_str(), IN_MOVED_TO | IN_CREATE | IN_DELETE) >= 0;
  if (!watched) {
    if (fd >= 0) ::close(fd);
    log_->event("watch_failed",
                "a withdrawal will be noticed at the next start only, and a succession with the next new run: the "
                "folders cannot be watched");
    co_return;
  }
  watch_ = std::make_unique<asio::posix::stream_descriptor>(executor_, fd);
  alignas(inotify_event) char events[4096];
  for (;;) {
    boost::system::error_code e;
    co_await watch_->async_read_some(asio::buffer(events), asio::redirect_error(asio::use_awaitable, e));
    if (e) co_return;  // closed at the node's end
    inbox_.push(FilesChanged{});
  }
}

// --- Frames
// ------------------------------------------------------------------------------------------------------------------

awaitable<void> Node::on(Received& received) {
  if (!connection_) co_return;
  if (received.frame.type == messages::DATA) {
    co_await on_data(received.frame.payload);
    co_return;
  }
  Result<round::Message> message = round::parse_message(received.frame.type, received.frame.payload);
  if (!message) {
    const std::string what = message.error().text();
    if (machine_) co_await perform(machine_->unexpected(what));
    if (!machine_) connection_->close();
    co_return;
  }
  if (const auto* transfer = std::get_if<messages::Transfer>(&*message)) repeated_in_ += transfer->repeated();
  if (const auto* offer = std::get_if<messages::Offer>(&*message)) {
    co_await on_offer(*offer);
    co_return;
  }
  // A receipt may be of a run that this hospital knows nothing of yet: it signs as a witness all the same.
  if (const auto run = round::run_of(*message);
      run && (!machine_ || (machine_->finished() && machine_->run() != *run))) {
    if (const LedgerRun* known = ledger_->state().run({charter_->digest, *run});
        known != nullptr && !known->outcome.empty())
      co_return;
    if (!begin_run(*run)) co_return;
    co_await perform(machine_->joined(receipt_key_));
  }
  if (machine_) co_await perform(machine_->on(*message));
}

awaitable<void> Node::on_offer(const messages::Offer& offer) {
  const auto order = attest::RunOrder::parse(base::view(offer.order()));
  if (!order) {
    const round::Message message = offer;
    if (machine_) co_await perform(machine_->on(message));
    if (!machine_) connection_->close();
    co_return;
  }
  log_->event(
      "offer", fmt::format("run {} round {}: {} offered", order->run, offer.round(), offer.task()),
      {{"run", order->run}, {"round", offer.round()}, {"task", offer.task()}, {"train_round", offer.train_round()}});
  if (const LedgerRun* known = ledger_->state().run({charter_->digest, order->run});
      known != nullptr && !known->outcome.empty()) {
    const Error ended = base::denied(
        fmt::format("run {}", order->run),
        fmt::format("the run has ended here ({}: {}); its number is used once", known->outcome, known->reason));
    co_await decline(ended, offer.round());
    co_return;
  }
  if (!machine_ || (machine_->finished() && machine_->run() != order->run)) {
    if (!begin_run(order->run)) co_return;
    co_await perform(machine_->joined(receipt_key_));
  }
  const auto settings = attest::complete_settings(charter_->manifest, order->settings);
  if (settings && machine_ && machine_->run() == order->run && order_allowed(*order))
    co_await ensure_trainer(*settings);
  const round::Message message = offer;
  if (machine_ && connection_) co_await perform(machine_->on(message));
}

awaitable<void> Node::on_data(View bytes) {
  if (!incoming_ || bytes.size() > incoming_->left) {
    if (machine_) co_await perform(machine_->unexpected("DATA that no Transfer announced"));
    co_return;
  }
  incoming_->left -= bytes.size();
  const bool wanted = incoming_->digest == model_.digest();  // else the machine wants another by now: swallowed
  if (wanted) {
    if (auto written = model_.append(bytes); !written) {
      co_await give_up(written.error(), 0);
      co_return;
    }
  }
  if (incoming_->left > 0) co_return;
  incoming_.reset();
  if (!wanted || !machine_) co_return;
  Steps steps = model_arrived();
  co_await perform(std::move(steps));
}

Node::Steps Node::model_arrived() {
  const base::Sha256 digest = model_.digest();
  const bool holds = model_.holds();
  log_->event("downloaded",
              holds ? fmt::format("model of {} received", base::size_text(model_.length()))
                    : "the model that came has another digest",
              {{"bytes", model_.length()}, {"model", base::digest_text(digest)}, {"repeated", repeated_in_}});
  return holds ? machine_->model_ready(digest) : machine_->model_broken(digest);
}

// --- Runs and tasks
// ------------------------------------------------------------------------------------------------------------

void Node::resume() {
  const auto run = unfinished_run(ledger_->state(), charter_->digest);
  if (!run) return;
  if (!begin_run(*run)) return;
  log_->event("resumed", fmt::format("run {} goes on where it was before the restart", *run), {{"run", *run}});
}

bool Node::begin_run(std::uint64_t run) {
  check_succession();  // not only when told: an agreement that is on disk holds for every run that begins after it
  if (end_) return false;
  stop_task();
  timers_.clear();
  round::ParticipantSetup setup{.owner = options_.config.owner,
                                .charter = charter_,
                                .run = run,
                                .witness_key = witness_,
                                .shapes = shapes(formats_),
                                .gate = [this](const round::OfferedTask& offered) { return gate(offered); },
                                .withdrawal = withdrawal_ ? withdrawal_->statement : Bytes{},
                                .receipt_of = [this, run](std::uint32_t number) -> std::optional<base::Sha256> {
                                  const LedgerRound* known = ledger_->state().round({charter_->digest, run, number});
                                  return known == nullptr ? std::nullopt : known->receipt;
                                }};
  machine_.emplace(std::move(setup), record_of(ledger_->state(), {charter_->digest, run}));
  return true;
}

// Before the gate is asked: the weight that it judges is what the trainer counts.
awaitable<void> Node::ensure_trainer(const attest::Settings& settings) {
  if (trainer_ && trainer_run_ == machine_->run()) co_return;
  trainer_.reset();
  const Config& c = options_.config;
  TrainerOptions o;
  o.sandbox.program = c.trainer;
  o.sandbox.digest = charter_->manifest.trainer;
  o.sandbox.error_file = (fs::path(c.ledger_folder) / "trainer.stderr").string();
  o.sandbox.readable = c.trainer_readable;
  o.sandbox.limits.memory = c.trainer_memory;
  o.sandbox.limits.cpu = c.trainer_cpu;
  o.sandbox.required = c.isolation_required;
  o.data_file = c.data_file;
  o.owner = c.owner;
  o.manifest = charter_->manifest.text;
  o.settings = settings;
  o.model_file = model_.path();
  for (const auto& [task, format] : formats_)
    o.update_capacity = std::max<std::size_t>(o.update_capacity, format.schema.bytes());
  try {
    const auto deadline = steady_clock::now() + trainer_start;
    trainer_ = co_await Trainer::start(o, deadline, log_);
    trainer_run_ = machine_->run();
    trainer_failure_.clear();
  } catch (const Exception& e) {
    trainer_failure_ = e.what();
    log_->event("trainer_failed", e.what(), {{"reason", std::string(e.what())}});
  }
}

awaitable<void> Node::task(std::uint64_t number, round::RunTask asked) {
  const std::uint32_t n = asked.offered.round;
  const auto deadline = steady_clock::now() + asked.offered.deadline;
  std::string failure;
  for (int attempt = 1; attempt <= task_attempts; ++attempt) {
    std::shared_ptr<Trainer> trainer;
    try {
      co_await ensure_trainer(asked.offered.settings);  // it may have been stopped with an earlier task
      trainer = trainer_;
      if (!trainer) throw Exception(base::unavailable("trainer", trainer_failure_));
      TaskRequest request;
      request.task = asked.offered.task;
      request.round = n;
      request.model_bytes = asked.model ? model_.length() : 0;
      request.statistics = asked.statistics;
      TaskAnswer answer = co_await trainer->run(request, deadline);
      inbox_.push(TaskDone{number, n, std::move(answer)});
      co_return;
    } catch (const Exception& e) {
      failure = e.what();
    }
    // Somebody killed it, or the system did: the task is asked of another one. An answer that is wrong stays wrong.
    if (number != task_ || !trainer || !trainer->died()) break;
    log_->event("trainer_died", fmt::format("run {} round {}: {}", machine_->run(), n, failure),
                {{"run", machine_->run()}, {"round", n}, {"attempt", attempt}, {"reason", failure}});
    trainer_.reset();
  }
  inbox_.push(TaskFailed{number, n, failure});
}

awaitable<void> Node::on(TaskDone& done) {
  if (done.task != task_ || !machine_ || machine_->finished()) co_return;
  const std::string kind = task_kind_;
  const auto minimum = minimum_count(kind, charter_->manifest, *charter_->policy(options_.config.owner)->data());
  const std::shared_ptr<Trainer> owner = trainer_;  // of the answer's memory
  View update = done.answer.update;
  Bytes checked;
  if (minimum > 0) {
    const Bytes copy = base::copy(update);  // the child may write its memory while the counts are looked at
    Result<Bytes> counted = apply_minimum_count(kind, formats_.at(kind), minimum, copy);
    if (!counted) {
      trainer_.reset();
      const std::string reason = counted.error().text();
      co_await perform(machine_->task_failed(done.round, reason));
      co_return;
    }
    checked = std::move(*counted);
    update = checked;
  }
  const Result<StoredUpdate> stored = co_await put_aside(round_id(done.round), update, done.answer.weight);
  if (!stored) {
    co_await give_up(stored.error(), done.round);
    co_return;
  }
  answer_ = *stored;
  log_->event("task_done",
              fmt::format("run {} round {}: {} done, {} to send", machine_->run(), done.round, kind,
                          base::size_text(stored->length)),
              {{"run", machine_->run()}, {"round", done.round}, {"task", kind}, {"bytes", stored->length}});
  co_await perform(machine_->task_done(done.round, stored->digest, stored->length, stored->weight));
}

awaitable<void> Node::on(TaskFailed& failed) {
  if (failed.task != task_ || !machine_ || machine_->finished()) co_return;
  trainer_.reset();  // a new child for the next task
  co_await perform(machine_->task_failed(failed.round, failed.reason));
}

}  // namespace cloister::participant

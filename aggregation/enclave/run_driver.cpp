#include "aggregation/enclave/run_driver.hpp"

#include <boost/asio/post.hpp>
#include <fmt/format.h>

#include "aggregation/enclave/sealed_log.hpp"

namespace cloister::enclave {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto progress_interval = std::chrono::milliseconds(500);
// A status costs time for each data owner, here and at the coordinator: of many owners it is shown less often.
constexpr auto status_interval = std::chrono::milliseconds(50), long_status_interval = std::chrono::milliseconds(500);
constexpr std::size_t many_owners = round::Aggregator::status_members;
// Updates that wait for the sum stay in memory as long as all of them together are no more than this: a sealed file for
// each would cost more than they are.
constexpr std::uint64_t small_updates = 64 << 20;
// A sealed upload remembers each frame's end and tag: frames of a byte would cost many times the update. An honest peer
// sends them by the hundred KiB, and a few short ones where a cut link resumes.
constexpr std::uint64_t spare_frames = 1024, bytes_per_frame = 1024;

// From here on an update stands in memory only where that leaves the aggregator at three models.
constexpr std::uint64_t large_update = 256 << 20;
constexpr std::size_t slots_of_large = 2;

// What an error of the staging means to people. The engine names tensor, element and check, never a value.
attest::Finding finding_of(const Error& error) {
  constexpr std::string_view wanted = "wanted ", found = ", found ";
  attest::Finding out{.met = false,
                      .owner = "charter",
                      .requirement = error.where,
                      .wanted = "an update that holds what it announced",
                      .found = error.what,
                      .remedy = "mend the trainer; the sum is as it was"};
  const std::size_t w = error.what.find(wanted), f = error.what.rfind(found);
  if (w == std::string::npos || f == std::string::npos || f < w) return out;
  if (w > 2) out.requirement += ": " + error.what.substr(0, w - 2);
  out.wanted = error.what.substr(w + wanted.size(), f - w - wanted.size());
  out.found = error.what.substr(f + found.size());
  return out;
}

}  // namespace

RunDriver::RunDriver(RunContext context, round::Aggregator machine, Reducer reducer)
    : context_(std::move(context)),
      machine_(std::move(machine)),
      reducer_(std::make_shared<Reducer>(std::move(reducer))),
      offered_(Clock::now()),
      show_timer_(context_.executor) {}

RunDriver::~RunDriver() = default;

Result<std::shared_ptr<RunDriver>> RunDriver::create(RunContext context, attest::RunOrder order, ModelPtr model,
                                                     std::vector<Bytes> withdrawals) {
  const Instance& instance = *context.instance;
  const auto settings = attest::complete_settings(instance.charter->manifest, order.settings);
  if (!settings) return settings.error();
  auto reducer = Reducer::make(context.plan, instance.charter->manifest, *settings, model);
  if (!reducer) return reducer.error();
  auto machine = round::Aggregator::create({.charter = instance.charter,
                                            .order = std::move(order),
                                            .receipt_key = instance.receipt,
                                            .leaf_secret = base::random_array<32>(),
                                            .evidence = base::sha256(instance.evidence),
                                            .simulated = instance.claims.simulated,
                                            .kernel_set = std::string(reducer->kernel_set()),
                                            .shapes = context.plan->shapes(),
                                            .model_length = model->size(),
                                            .withdrawals = std::move(withdrawals),
                                            .history = std::make_shared<SealedHistory>()});
  if (!machine) return machine.error();
  std::shared_ptr<RunDriver> driver(new RunDriver(std::move(context), std::move(*machine), std::move(*reducer)));
  driver->model_ = std::move(model);
  return driver;
}

// --- Inputs ----------------------------------------------------------------------------------------------------------

template <class Event>
void RunDriver::tell(Event event) {
  try {
    apply(event());
  } catch (const std::exception& e) {
    acting_ = false;
    todo_.clear();
    fail(std::string("the enclave failed: ") + e.what());
  }
}

void RunDriver::start(const std::vector<std::string>& greeted, bool grant_valid) {
  tell([&] { return machine_.grant(grant_valid); });  // first: without a grant not even round 1 is offered
  tell([&] { return machine_.start(); });
  for (const auto& owner : greeted) tell([&] { return machine_.joined(owner); });
}

void RunDriver::connected(const std::string& owner) {
  tell([&] { return machine_.connected(owner); });
}

void RunDriver::disconnected(const std::string& owner) {
  incoming_.erase(owner);
  tell([&] { return machine_.disconnected(owner); });
}

void RunDriver::on_frame(const std::string& owner, const channel::Frame& frame) {
  if (frame.type == messages::DATA) return on_data(owner, frame.payload);
  const auto message = round::parse_message(frame.type, frame.payload);
  if (message)
    if (const auto* transfer = std::get_if<messages::Transfer>(&*message))
      said_repeated_[owner] = std::min(transfer->repeated(), transfer->length());
  tell([&] { return message ? machine_.on(owner, *message) : machine_.unexpected(owner, message.error().text()); });
}

void RunDriver::on_data(const std::string& owner, View bytes) {
  const auto it = incoming_.find(owner);
  if (it == incoming_.end() || bytes.size() > it->second.left)
    return tell([&] { return machine_.data_unexpected(owner); });
  if (bytes.empty() || ++frames_[owner] > spare_frames + context_.plan->shapes().at(task_).length / bytes_per_frame)
    return tell([&] { return machine_.unexpected(owner, "DATA in too many or empty frames"); });
  Incoming& incoming = it->second;
  incoming.left -= bytes.size();
  traffic_[owner].in += bytes.size();
  const std::uint32_t round = incoming.round;
  const bool wanted = !incoming.swallow && uploads_;
  if (wanted) {
    if (const auto taken = uploads_->feed(owner, bytes); !taken) {
      incoming.swallow = true;
      refuse_update(owner, round, taken.error());
    }
  }
  // The machine's answer may have changed what is on its way.
  const auto now = incoming_.find(owner);
  if (now != incoming_.end() && now->second.left == 0) incoming_.erase(now);
  // A refused update may have ended the run, and with it the uploads.
  if (wanted && uploads_ && uploads_->whole(owner)) {
    whole_.push_back({owner, round});
    complete_next();
  }
  show_progress();
}

void RunDriver::grant(bool valid) {
  tell([&] { return machine_.grant(valid); });
}

void RunDriver::cancel(std::string reason) {
  tell([&] { return machine_.cancel(std::move(reason)); });
}

void RunDriver::fail(std::string reason) {
  if (finished()) return;
  context_.log->event("run_failing", reason, {{"run", run()}});
  apply(machine_.fail(std::move(reason)));
}

// --- Steps -----------------------------------------------------------------------------------------------------------

// A step may lead to the next input; its steps then wait until the present ones are done, so that order holds.
void RunDriver::apply(round::AggregatorSteps steps) {
  for (auto& step : steps) todo_.push_back(std::move(step));
  if (acting_) return;
  acting_ = true;
  while (!todo_.empty()) {
    round::AggregatorStep step = std::move(todo_.front());
    todo_.pop_front();
    std::visit([this](auto& s) { act(s); }, step);
  }
  acting_ = false;
}

// Runs `work` on the pool and `then` with its result on the strand. Work that throws ends the run.
template <class Work, class Then>
void RunDriver::in_pool(Work work, Then then) {
  boost::asio::post(context_.pool, [self = shared_from_this(), work = std::move(work),
                                    then = std::move(then)]() mutable {
    try {
      auto result = work(*self->reducer_);
      boost::asio::post(self->context_.executor, [self, then = std::move(then), result = std::move(result)]() mutable {
        try {
          then(std::move(result));
        } catch (const std::exception& e) {
          self->fail(std::string("the enclave failed: ") + e.what());
        }
      });
    } catch (const std::exception& e) {
      boost::asio::post(self->context_.executor,
                        [self, what = std::string(e.what())] { self->fail("the engine failed: " + what); });
    }
  });
}

void RunDriver::act(round::SendTo& step) {
  const LinkPtr link = context_.link(step.owner);
  if (!link) return;
  // One message for all whom it goes to: what waits in a link's queue is a pointer to it.
  const std::shared_ptr<const google::protobuf::MessageLite> shared(step.message, &round::protobuf(*step.message));
  link->send(round::type(*step.message), shared);
}

void RunDriver::act(round::SendMissed& step) {
  const LinkPtr link = context_.link(step.owner);
  if (!link) return;
  link->series([weak = weak_from_this(), step]() mutable -> Result<std::optional<Link::Outgoing>> {
    const auto self = weak.lock();
    if (!self || step.from >= step.to) return std::optional<Link::Outgoing>();
    auto missed = self->machine_.missed(step.owner, step.from, step.to);
    if (!missed) return missed.error();
    step.from += static_cast<std::uint32_t>(missed->committed_size());
    if (missed->committed_size() == 0) return base::unavailable("history", "a committed round is not there");
    Link::Outgoing out;
    out.type = messages::MISSED_RECEIPTS;
    out.message = std::make_shared<messages::MissedReceipts>(std::move(*missed));
    return std::optional(std::move(out));
  });
}

void RunDriver::act(round::SendModel& step) {
  const LinkPtr link = context_.link(step.owner);
  if (!link) return;
  // One model at a time for each peer: whoever asks again before it has this one makes us send without end.
  if (link->streams() > 0) return context_.refuse(link, "asked for the model while it is on its way");
  const ModelPtr file = file_of(step.digest);
  if (!file || step.offset > file->size()) return fail("the model that was asked for is not the one on offer");
  messages::Transfer header;
  header.set_what("model");
  header.set_digest(step.digest.data(), step.digest.size());
  header.set_length(file->size());
  header.set_offset(step.offset);
  Sent& sent = sent_[step.owner];
  if (sent.model != step.digest) sent = {step.digest, 0};
  header.set_repeated(sent.up_to > step.offset ? sent.up_to - step.offset : 0);
  if (step.offset > 0 || header.repeated() > 0) resumed(step.owner, "model", step.offset, header.repeated());
  link->stream(std::move(header), source_of(file),
               [weak = weak_from_this(), owner = step.owner, digest = step.digest, at = step.offset,
                left = file->size() - step.offset](std::size_t n) mutable {
                 const auto self = weak.lock();
                 if (!self) return;
                 self->traffic_[owner].out += n;
                 at += n;
                 if (Sent& had = self->sent_[owner]; had.model == digest) had.up_to = std::max(had.up_to, at);
                 self->show_progress();
                 if ((left -= n) == 0) self->tell([&] { return self->machine_.model_sent(owner); });
               });
}

// The machine names only a model that its receipt's witnesses have committed, or the charter's initial one.
ModelPtr RunDriver::file_of(const base::Sha256& digest) const {
  if (digest == model_->digest()) return model_;
  return next_model_ && digest == next_model_->digest() ? next_model_ : nullptr;
}

// Beside the model stand the updates in slots; the sum's words take the place of two of them (reducer.hpp).
std::size_t RunDriver::slots(const std::string& task) const {
  const std::uint64_t length = context_.plan->formats.at(task)->schema.bytes();
  if (length > large_update) return std::min(context_.slots, slots_of_large);
  return std::max<std::size_t>(context_.slots, static_cast<std::size_t>(small_updates / length));
}

void RunDriver::act(round::BeginTask& step) {
  offered_ = Clock::now();
  traffic_.clear();
  frames_.clear();
  whole_.clear();
  task_ = step.task;
  for (auto& [owner, incoming] : incoming_) incoming.swallow = true;
  uploads_ = std::make_unique<Uploads>(context_.plan->formats.at(step.task), slots(step.task), model_->pages());
  // The round before is committed now, so its model may be shown.
  if (next_model_ && step.model == next_model_->digest()) model_ = std::exchange(next_model_, nullptr);
  context_.log->event("round_offered", "round " + std::to_string(step.round) + ": " + step.task,
                      {{"run", run()}, {"round", step.round}, {"task", step.task}, {"cohort", step.cohort.size()}});
  in_pool([task = step.task](Reducer& reducer) { return reducer.begin(task); },
          [self = shared_from_this()](Result<void> begun) {
            if (!begun) self->fail(begun.error().text());
          });
}

void RunDriver::act(round::OpenSlot& step) {
  const auto offset = uploads_->open(step.owner, step.digest);
  if (!offset) return refuse_update(step.owner, step.round, offset.error());
  tell([&] { return machine_.slot_open(step.owner, step.round, *offset); });
}

void RunDriver::act(round::Receive& step) {
  incoming_[step.owner] = {.round = step.round, .left = step.length, .swallow = false};
  const std::uint64_t repeated = std::min(said_repeated_[step.owner], step.length);
  if (step.offset > 0 || repeated > 0) resumed(step.owner, "update", step.offset, repeated);
}

void RunDriver::act(round::Swallow& step) {
  incoming_[step.owner] = {.round = 0, .left = step.length, .swallow = true};
}

// A transfer goes on where the other side has bytes up to; what was under way at the cut goes a second time.
void RunDriver::resumed(const std::string& owner, std::string_view what, std::uint64_t offset, std::uint64_t repeated) {
  traffic_[owner].repeated += repeated;
  context_.log->event("transfer_resumed",
                      fmt::format("{}: {} goes on at byte {}; {} bytes are sent again", owner, what, offset, repeated),
                      {{"run", run()}, {"owner", owner}, {"what", what}, {"offset", offset}, {"repeated", repeated}});
}

// What an owner has sent and is sending of this round's update is no longer wanted.
void RunDriver::forget(const std::string& owner) {
  if (uploads_) uploads_->forget(owner);
  if (const auto it = incoming_.find(owner); it != incoming_.end()) it->second.swallow = true;
}

void RunDriver::act(round::DropSlot& step) {
  forget(step.owner);
  in_pool(
      [owner = step.owner](Reducer& reducer) {
        reducer.drop(owner);
        return true;
      },
      [](bool) {});
}

void RunDriver::act(round::Add& step) {
  // Its owner may have announced and sent it a second time meanwhile: that copy counts nothing.
  forget(step.owner);
  in_pool([owner = step.owner, weight = step.weight](Reducer& reducer) { return reducer.add(owner, weight); },
          [self = shared_from_this(), owner = step.owner](Result<void> added) {
            if (!added) self->fail("adding the update of " + owner + ": " + added.error().text());
          });
}

void RunDriver::act(round::Reduce& step) {
  context_.log->event("round_closed",
                      fmt::format("round {}: closed with {} updates", step.round, step.contributors.size()),
                      {{"run", run()}, {"round", step.round}, {"contributors", step.contributors.size()}});
  // The round has closed: what is still on its way takes no memory from what is made now.
  uploads_.reset();
  whole_.clear();
  for (auto& [owner, incoming] : incoming_) incoming.swallow = true;
  in_pool([task = step.task](Reducer& reducer) { return reducer.reduce(task); },
          [self = shared_from_this(), round = step.round](Result<Reduced> result) {
            self->reduced(round, std::move(result));
          });
}

void RunDriver::act(round::SetDeadline& step) {
  auto timer = std::make_unique<boost::asio::steady_timer>(context_.executor, step.after);
  timer->async_wait([weak = weak_from_this(), name = step.name](boost::system::error_code cancelled) {
    const auto self = weak.lock();
    if (cancelled || !self) return;
    self->deadlines_.erase(name);
    self->tell([&] { return self->machine_.deadline(name); });
  });
  deadlines_[step.name] = std::move(timer);
}

void RunDriver::act(round::ClearDeadline& step) {
  deadlines_.erase(step.name);
}

void RunDriver::act(round::Report&) {
  show_soon();
}

void RunDriver::act(round::Record& step) {
  if (step.first) {
    step.record.set_instance_evidence(context_.instance->evidence.data(), context_.instance->evidence.size());
    step.record.set_record(context_.instance->record.data(), context_.instance->record.size());
  }
  context_.feed->record(std::move(step.record));
}

void RunDriver::act(round::PublishResult& step) {
  if (step.result.kind() != "model") return context_.feed->result(std::move(step.result), nullptr);
  const ModelPtr file = file_of(base::array<32>(base::view(step.result.digest())));
  if (!file) return fail("the model that is published is not there");
  published_model_ = file->digest();
  context_.feed->result(std::move(step.result), file);
}

void RunDriver::act(round::Refuse& step) {
  if (const LinkPtr link = context_.link(step.owner)) context_.refuse(link, step.reason);
}

void RunDriver::act(round::LogRefusal& step) {
  attest::log_refusals(*context_.log, step.decision, step.about);
}

void RunDriver::act(round::Finish& step) {
  show_status();
  deadlines_.clear();
  uploads_.reset();
  model_->pages()->release();
  whole_.clear();
  for (auto& [owner, incoming] : incoming_) incoming.swallow = true;
  messages::RunEnd end;
  end.set_run(run());
  end.set_outcome(std::string(round::name(step.outcome)));
  end.set_reason(step.reason);
  if (step.outcome == round::Outcome::done && published_model_)
    end.set_final_model(published_model_->data(), published_model_->size());
  context_.feed->end(std::move(end));
  context_.log->event("run_ended", step.reason, {{"run", run()}, {"outcome", round::name(step.outcome)}});
  context_.report(step.outcome == round::Outcome::done ? "done" : "failed", step.reason);
}

// --- What comes back from the pool -----------------------------------------------------------------------------------

// One at a time: an update that waited in a sealed file takes a slot of its own until it was added.
void RunDriver::complete_next() {
  if (completing_ || !uploads_) return;
  while (!whole_.empty() && !uploads_->whole(whole_.front().owner)) whole_.pop_front();  // announced anew meanwhile
  if (whole_.empty()) return;
  completing_ = true;
  Whole next = std::move(whole_.front());
  whole_.pop_front();
  auto update = std::make_shared<WholeUpdate>(uploads_->take(next.owner));
  in_pool([owner = next.owner, update](Reducer& reducer) { return reducer.complete(owner, std::move(*update)); },
          [self = shared_from_this(), next](Result<base::Sha256> digest) { self->completed(next, std::move(digest)); });
}

void RunDriver::completed(const Whole& whole, Result<base::Sha256> digest) {
  completing_ = false;
  if (digest) {
    tell([&] { return machine_.staged(whole.owner, whole.round, *digest); });
  } else {
    refuse_update(whole.owner, whole.round, digest.error());
  }
  complete_next();
}

void RunDriver::refuse_update(const std::string& owner, std::uint32_t round, const Error& error) {
  tell([&] { return machine_.stage_refused(owner, round, finding_of(error)); });
}

void RunDriver::reduced(std::uint32_t round, Result<Reduced> result) {
  if (!result) return tell([&] { return machine_.reduction_failed(round, result.error().text()); });
  round::Reduction reduction{.model = {}, .optimizer = result->optimizer, .value = std::move(result->value)};
  if (result->model) {
    next_model_ = std::move(result->model);
    reduction.model = next_model_->digest();
  }
  tell([&] { return machine_.reduced(round, std::move(reduction)); });
}

// --- Status ----------------------------------------------------------------------------------------------------------

void RunDriver::show_status() {
  messages::RunStatus status = machine_.status();
  shown_ = Clock::now();
  to_show_ = false;
  show_timer_.cancel();
  for (auto& member : *status.mutable_members()) {
    const Traffic& traffic = traffic_[member.owner()];
    member.set_bytes_in(traffic.in);
    member.set_bytes_out(traffic.out);
    member.set_bytes_repeated(traffic.repeated);
  }
  std::uint64_t in = 0, out = 0, repeated = 0;
  for (const auto& [owner, traffic] : traffic_) in += traffic.in, out += traffic.out, repeated += traffic.repeated;
  status.set_bytes_in(in);
  status.set_bytes_out(out);
  status.set_bytes_repeated(repeated);
  status.set_milliseconds(
      static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(shown_ - offered_).count()));
  context_.feed->status(std::move(status));
}

// At once, or when the interval since the last one is over: the last state is always shown.
void RunDriver::show_soon() {
  const auto interval = context_.instance->charter->manifest.data_count() > many_owners
                            ? std::chrono::milliseconds(long_status_interval)
                            : std::chrono::milliseconds(status_interval);
  if (Clock::now() - shown_ >= interval) return show_status();
  if (std::exchange(to_show_, true)) return;
  show_timer_.expires_at(shown_ + interval);
  show_timer_.async_wait([weak = weak_from_this()](boost::system::error_code cancelled) {
    const auto self = weak.lock();
    if (!cancelled && self && self->to_show_) self->show_status();
  });
}

void RunDriver::show_progress() {
  if (!finished() && Clock::now() - shown_ > progress_interval) show_status();
}

}  // namespace cloister::enclave

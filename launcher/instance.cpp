#include "launcher/instance.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <fmt/format.h>
#include <unistd.h>

#include "base/deadline.hpp"

namespace cloister::launcher {

namespace asio = boost::asio;
namespace channel = protocols::channel;
namespace messages = protocols::messages;
using std::chrono::steady_clock;

namespace {

constexpr int dial_deadlines = 6;  // a TEE needs a while to start: so many times channel.deadline
constexpr std::chrono::milliseconds first_pause{20}, longest_pause{500};
constexpr std::chrono::seconds clock_tolerated{30}, clock_asked_every{1};

// Waits until the timer fires or is cancelled; which one, the caller sees from its own state.
asio::awaitable<void> wait(asio::steady_timer& timer) {
  boost::system::error_code e;
  co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, e));
}

std::string text(std::exception_ptr e) {
  try {
    std::rethrow_exception(e);
  } catch (const std::exception& caught) {
    return caught.what();
  }
}

}  // namespace

Instance::Instance(asio::any_io_executor executor, const Tools& tools, Launch launch, Changed changed)
    : executor_(executor),
      tools_(tools),
      launch_(std::move(launch)),
      changed_(std::move(changed)),
      id_("instance-" + base::hex(View(launch_.document.nonce).first(4))),
      duration_(executor),
      kill_(executor),
      pause_(executor),
      renewal_(executor),
      conversation_(executor, steady_clock::time_point::max()) {}

void Instance::set_state(std::string state) {
  state_ = std::move(state);
  tools_.log->event("instance", fmt::format("{} is {}", id_, state_), {{"instance", id_}, {"state", state_}});
  changed_(*this);
}

void Instance::end(std::string reason) {
  if (ending_ || gone_) return;
  ending_ = true;
  reason_ = std::move(reason);
  tools_.log->event("instance_ending", fmt::format("ending {}: {}", id_, reason_),
                    {{"instance", id_}, {"reason", reason_}});
  if (!process_) return;
  process_->terminate();
  kill_.expires_after(channel_deadline());
  kill_.async_wait([self = shared_from_this()](boost::system::error_code e) {
    if (!e && !self->gone_) self->process_->kill();
  });
}

// A refused instance may be anything: it gets no time to say goodbye.
void Instance::refuse(attest::Decision decision, std::string reason) {
  attest::log_refusals(*tools_.log, decision, id_);
  decision_ = std::move(decision);
  end(std::move(reason));
  if (process_) process_->kill();
}

asio::awaitable<void> Instance::run() {
  const auto self = shared_from_this();
  auto process = TeeProcess::start(tools_.tee, launch_, tools_.work + "/aggregator.log");
  if (!process) {
    ending_ = gone_ = true;
    exit_status_ = -1;
    reason_ = process.error().text();
    co_return;
  }
  process_.emplace(std::move(*process));
  ends_ = steady_clock::now() + launch_.document.duration;
  set_state("starting");
  duration_.expires_after(launch_.document.duration);
  duration_.async_wait([self](boost::system::error_code e) {
    if (!e) self->end(fmt::format("its duration of {} is over", base::text(self->launch_.document.duration)));
  });
  conversing_ = true;
  asio::co_spawn(executor_, converse(), [self](std::exception_ptr e) {
    if (e) self->end(text(e));
    self->conversing_ = false;
    self->conversation_.cancel();
  });
  co_await wait_for_end();
}

asio::awaitable<void> Instance::wait_for_end() {
  asio::posix::stream_descriptor ended(executor_, ::dup(process_->descriptor()));
  boost::system::error_code e;
  co_await ended.async_wait(asio::posix::stream_descriptor::wait_read, asio::redirect_error(asio::use_awaitable, e));
  exit_status_ = process_->reap();
  gone_ = true;
  if (!ending_)
    reason_ = exit_status_ > 128 ? fmt::format("its TEE was killed by signal {}", exit_status_ - 128)
                                 : fmt::format("the aggregator ended by itself with status {}", exit_status_);
  for (asio::steady_timer* t : {&duration_, &kill_, &pause_, &renewal_}) t->cancel();
  if (link_) link_->close();
  while (conversing_) co_await wait(conversation_);
  tools_.log->event("instance_end", fmt::format("{} is gone: {}", id_, reason_),
                    {{"instance", id_}, {"reason", reason_}, {"exit_status", exit_status_}});
}

// The link may be cut while the instance lives on: the launcher dials again and judges again. An instance that does not
// get as far as a grant in time is ended.
asio::awaitable<void> Instance::converse() {
  answer_by_ = steady_clock::now() + dial_deadlines * channel_deadline();
  next_pause_ = first_pause;
  while (!ending_ && !gone_) {
    std::string lost;
    try {
      link_ = co_await dial();
      co_await serve(link_);
    } catch (const Exception& e) {
      // Cut or not there yet can mend; an answer that breaks the protocol cannot.
      if (e.error().kind != Error::Kind::unavailable) throw;
      lost = e.what();
    }
    renewal_.cancel();
    if (link_) std::exchange(link_, nullptr)->close();
    if (ending_ || gone_) break;
    if (steady_clock::now() >= answer_by_)
      throw Exception(base::unavailable(
          id_, fmt::format("took no grant within {}: {}", base::text(dial_deadlines * channel_deadline()), lost)));
    co_await pause();
  }
}

asio::awaitable<channel::ConnectionPtr> Instance::dial() {
  const attest::Manifest& m = launch_.charter->manifest;
  const auto until = std::min(answer_by_, steady_clock::now() + channel_deadline());
  // Named: GCC 12 destroys a braced temporary twice when it lives across a co_await.
  const channel::Endpoint to{m.aggregator_host, m.aggregator_port, {}};
  co_return co_await channel::connect_pinned(to, tools_.tls, {}, until);
}

asio::awaitable<void> Instance::pause() {
  pause_.expires_after(next_pause_);
  next_pause_ = std::min(2 * next_pause_, longest_pause);
  co_await wait(pause_);
}

attest::Decision Instance::judge(const channel::Connection& link, View record, View evidence) {
  const Judged judged = tools_.agent.judge_instance(launch_, record, evidence, link.peer_key(), tools_.clock());
  attest::Decision out = judged.decision;
  // One start has one record: another one under the same nonce would be a second answer.
  if (!record_.empty())
    out.add({base::equal(record_, record), tools_.agent.owner() + " (compute)", "instance.record",
             base::digest_text(base::sha256(record_)), base::digest_text(base::sha256(record)),
             "an instance keeps its record for its life"});
  if (!out.allowed()) return out;
  record_ = base::copy(record);
  claims_ = judged.claims;
  return out;
}

asio::awaitable<void> Instance::serve(channel::ConnectionPtr link) {
  const auto first =
      co_await with_deadline(link->receive(), steady_clock::now() + channel_deadline(), id_ + ": its instance record");
  if (first.type != messages::INSTANCE)
    throw Exception(base::malformed(
        id_, fmt::format("wanted Instance first, found a frame of type {}", static_cast<int>(first.type))));
  const auto instance = channel::parse<messages::Instance>(first);
  attest::Decision decision = judge(*link, base::view(instance.record()), base::view(instance.evidence()));
  if (!decision.allowed()) {
    refuse(decision, "the compute owner's launcher refuses the instance: " + decision.explain());
    co_await channel::refuse(link, std::move(decision), "the launcher refuses this instance");
    co_return;
  }
  const bool again = !grant_.empty();
  if (!again) set_state("attested");
  co_await send_grant(link);
  set_state(again ? "renewed" : "granted");
  asio::co_spawn(executor_, renew(link), [self = shared_from_this()](std::exception_ptr e) {
    if (e && !self->gone_ && !self->ending_)
      self->tools_.log->event("renewal_failed", fmt::format("{}: {}", self->id_, text(e)),
                              {{"instance", self->id_}, {"reason", text(e)}});
  });
  for (;;) {  // as long as the instance lives; the process and the duration have their own watch
    const auto frame = co_await link->receive();
    if (frame.type != messages::INSTANCE_REPORT)
      throw Exception(base::malformed(
          id_, fmt::format("wanted InstanceReport, found a frame of type {}", static_cast<int>(frame.type))));
    const auto report = channel::parse<messages::InstanceReport>(frame);
    tools_.log->event("instance_report", fmt::format("{} says: {} {}", id_, report.state(), report.reason()),
                      {{"instance", id_}, {"state", report.state()}, {"reason", report.reason()}});
  }
}

asio::awaitable<void> Instance::send_grant(channel::ConnectionPtr link) {
  granted_at_ = tools_.clock();
  granted_ = steady_clock::now();
  const Time ends = granted_at_ + std::chrono::floor<std::chrono::seconds>(ends_ - granted_);
  grant_ = tools_.agent.grant(launch_, record_, *claims_, granted_at_, ends).serialize();
  messages::Grant message;
  message.set_grant(base::text(grant_));
  co_await with_deadline(link->send(messages::GRANT, message), steady_clock::now() + channel_deadline(),
                         id_ + ": its grant");
  answer_by_ = steady_clock::now() + tools_.agent.grant_lifetime() + dial_deadlines * channel_deadline();
  next_pause_ = first_pause;
}

std::chrono::seconds Instance::clock_jump() const {
  const auto expected = granted_at_ + std::chrono::floor<std::chrono::seconds>(steady_clock::now() - granted_);
  const std::chrono::seconds off = tools_.clock() - expected;
  return std::chrono::abs(off) > clock_tolerated ? off : std::chrono::seconds(0);
}

// A clock that is set makes the grant that was given by it wrong for everybody else: it is given anew at once.
asio::awaitable<void> Instance::until_renewal(const channel::Connection& link) {
  const auto due = granted_ + tools_.agent.grant_lifetime() / 2;
  while (!gone_ && !ending_ && link_.get() == &link && steady_clock::now() < due) {
    renewal_.expires_at(std::min(due, steady_clock::now() + clock_asked_every));
    co_await wait(renewal_);
    const std::chrono::seconds jump = clock_jump();
    if (jump.count() == 0) continue;
    tools_.log->event("clock_jumped",
                      fmt::format("this machine's clock was put {} by {}: {} gets its grant anew",
                                  jump.count() > 0 ? "forward" : "back",
                                  base::text(std::chrono::round<std::chrono::minutes>(std::chrono::abs(jump))), id_),
                      {{"instance", id_}, {"seconds", jump.count()}});
    co_return;
  }
}

// At half of a grant's life: one lost link or one slow moment then does not let it expire.
asio::awaitable<void> Instance::renew(channel::ConnectionPtr link) {
  const auto self = shared_from_this();
  for (;;) {
    co_await until_renewal(*link);
    if (gone_ || ending_ || link_ != link) co_return;
    attest::Decision decision = tools_.agent.judge_renewal(launch_, *claims_, tools_.clock());
    if (!decision.allowed()) {
      const std::string reason = "the compute owner's policy no longer allows the instance: " + decision.explain();
      co_return refuse(std::move(decision), reason);
    }
    co_await send_grant(link);
    set_state("renewed");
  }
}

}  // namespace cloister::launcher

#include "coordinator/instance.hpp"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/system/system_error.hpp>

#include "base/deadline.hpp"
#include "protocols/round/round.hpp"

namespace cloister::coordinator {

Error refusal(const std::string& who, const std::string& reason,
              const google::protobuf::RepeatedPtrField<messages::Finding>& findings, bool retry) {
  std::string what = reason;
  for (const auto& finding : findings)
    what += (what.empty() ? "" : "\n") + protocols::round::from_message(finding).text();
  if (what.empty()) what = "it gave no reason";
  return retry ? base::unavailable(who, what) : base::denied(who, what);
}

namespace {

/// A refusal that asking again can outlive: none of a policy's, or only that another instance still has the address.
bool may_pass(const messages::LaunchEnd& end) {
  return std::all_of(end.findings().begin(), end.findings().end(),
                     [](const messages::Finding& f) { return f.requirement() == "launch.address"; });
}

}  // namespace

Instance::Instance(const attest::Charter& charter, Store& store, Peers& peers, std::shared_ptr<base::Log> log,
                   Tell tell)
    : charter_(charter), store_(store), peers_(peers), log_(std::move(log)), tell_(std::move(tell)) {}

awaitable<void> Instance::launch(std::string why) {
  const attest::Manifest& manifest = charter_.manifest;
  messages::LaunchRequest request;
  const Bytes charter = charter_.serialize();
  request.set_charter(charter.data(), charter.size());
  request.set_measurement(manifest.aggregator_measurement.data(), manifest.aggregator_measurement.size());
  request.set_memory(manifest.launch_memory);
  request.set_connections(manifest.launch_connections);
  request.set_duration_ms(static_cast<std::uint64_t>(manifest.launch_duration.count()));
  request.set_why(why);

  auto link = co_await peers_.launcher(charter_, within(manifest.channel_deadline));
  co_await with_deadline(link->send(messages::LAUNCH_REQUEST, request), within(manifest.channel_deadline),
                         "launch request");
  for (;;) {
    // A machine takes its time to start; the round's deadline is the longest that anybody waits for one step.
    const auto frame = co_await with_deadline(link->receive(), within(manifest.round_deadline),
                                              "launcher: the state of the new instance");
    if (frame.type == messages::LAUNCH_END) {
      const auto end = channel::parse<messages::LaunchEnd>(frame);
      on_end(end);
      throw Exception(
          refusal("launcher " + manifest.compute_owner().owner, end.reason(), end.findings(), may_pass(end)));
    }
    if (frame.type == messages::REFUSAL) {
      const auto refused = channel::parse<messages::Refusal>(frame);
      throw Exception(
          refusal("launcher " + manifest.compute_owner().owner, refused.reason(), refused.findings(), refused.retry()));
    }
    if (frame.type != messages::LAUNCH_STATUS)
      throw Exception(
          base::malformed("launcher", "a message of type " + std::to_string(frame.type) + " for a launch request"));
    const auto status = channel::parse<messages::LaunchStatus>(frame);
    if (name_ != status.instance()) store_.add_instance(charter_.digest, status.instance(), base::now());
    name_ = status.instance();
    tell_.state(name_, status.state());
    if (status.state() == "granted" || status.state() == "renewed") break;
  }
  launcher_ = link;
  const auto executor =
      co_await boost::asio::this_coro::executor;  // named: GCC 12 destroys closures of a co_await twice
  boost::asio::co_spawn(executor, watch(link), [self = shared_from_this()](std::exception_ptr failure) {
    try {
      if (failure) std::rethrow_exception(failure);
    } catch (const std::exception& e) {
      self->launcher_lost_ = e.what();
      self->log_->event("launcher_link_cut", e.what(), {{"instance", self->name_}});
    }
  });
}

awaitable<void> Instance::watch(channel::ConnectionPtr link) {
  const auto self = shared_from_this();
  struct Unlink {
    Instance& instance;
    channel::ConnectionPtr& link;
    ~Unlink() {
      if (instance.launcher_ == link) instance.launcher_ = nullptr;
      instance.changed_.raise();
    }
  } unlink{*this, link};
  for (;;) {
    // Renewals are silent or not, but no instance outlives what the charter asks for.
    const auto longest = charter_.manifest.launch_duration + charter_.manifest.channel_deadline;
    const auto frame = co_await with_deadline(link->receive(), within(longest), "launcher: word of the instance");
    if (frame.type == messages::LAUNCH_END) {
      on_end(channel::parse<messages::LaunchEnd>(frame));
      co_return;
    }
    if (frame.type == messages::LAUNCH_STATUS)
      tell_.state(name_, channel::parse<messages::LaunchStatus>(frame).state());
  }
}

void Instance::on_end(const messages::LaunchEnd& end) {
  const Error error = refusal("", end.reason(), end.findings(), true);
  ended_ = error.what + " (exit status " + std::to_string(end.exit_status()) + ")";
  if (!end.instance().empty()) store_.end_instance(charter_.digest, end.instance(), *ended_, base::now());
  log_->event("instance_ended", *ended_, {{"instance", end.instance()}});
  cut_enclave();
  changed_.raise();
  tell_.ended();
}

awaitable<channel::ConnectionPtr> Instance::enclave() {
  if (enclave_) co_return enclave_;
  enclave_ = co_await peers_.enclave(charter_, within(charter_.manifest.channel_deadline));
  renew_at_ = within(charter_.policy(charter_.manifest.model_owner().owner)->aggregator.renew);
  co_return enclave_;
}

awaitable<void> Instance::renew_if_due() {
  const auto connection = enclave_;
  if (!connection || std::chrono::steady_clock::now() < renew_at_) co_return;
  std::optional<Error> failure;
  try {
    co_await peers_.attest_again(charter_, connection, within(charter_.manifest.channel_deadline));
  } catch (const Exception& e) {
    failure = e.error();
  }
  if (!failure) {
    renew_at_ = within(charter_.policy(charter_.manifest.model_owner().owner)->aggregator.renew);
    log_->event("attested_again", "the aggregator proved itself again", {{"instance", name_}});
    co_return;
  }
  if (enclave_ == connection) cut_enclave();
  log_->event("renewal_failed", failure->text(), {{"instance", name_}, {"reason", failure->text()}});
  // More frames on their way than are kept meanwhile: a new link is judged anew.
  if (failure->kind == Error::Kind::malformed) failure->kind = Error::Kind::unavailable;
  throw Exception(*failure);
}

void Instance::cut_enclave() {
  if (auto connection = std::exchange(enclave_, nullptr)) connection->close();
}

awaitable<void> Instance::end(std::string reason) {
  cut_enclave();
  if (ended_) co_return;
  for (const std::string& name : store_.living_instances(charter_.digest)) {
    std::string failure;
    try {
      const auto deadline = within(charter_.manifest.channel_deadline);
      auto link = launcher_;  // no co_await inside ?: or ||, which GCC 12 destroys twice
      if (!link) link = co_await peers_.launcher(charter_, deadline);
      messages::LaunchEnd end;
      end.set_instance(name);
      end.set_reason(reason);
      co_await with_deadline(link->send(messages::LAUNCH_END, end), deadline, "end of instance " + name);
      log_->event("instance_end_asked", reason, {{"instance", name}});
      if (link == launcher_) {  // watch() reads the answer
        bool in_time = true;
        while (!ended_ && launcher_ && in_time) in_time = co_await changed_.after(changed_.version(), deadline);
        if (!ended_) failure = "the launcher has not confirmed it";
      } else {
        const auto frame = co_await with_deadline(link->receive(), deadline, "launcher: the end of instance " + name);
        if (frame.type == messages::LAUNCH_END) on_end(channel::parse<messages::LaunchEnd>(frame));
        link->close();
      }
    } catch (const Exception& e) {
      failure = e.error().text();
    } catch (const boost::system::system_error& e) {
      failure = e.what();
    }
    // Not told: it stays in the list, and the next idle time asks again; its duration bounds it anyway.
    if (!failure.empty())
      log_->event("instance_end_failed", failure, {{"instance", name}});
    else
      store_.end_instance(charter_.digest, name, reason, base::now());
  }
}

void Instance::close() {
  cut_enclave();
  if (auto link = std::exchange(launcher_, nullptr)) link->close();
}

}  // namespace cloister::coordinator

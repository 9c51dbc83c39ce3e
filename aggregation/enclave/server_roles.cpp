// What each role may say to the enclave, and what the enclave does about it.

#include <fmt/format.h>

#include "aggregation/enclave/server.hpp"
#include "aggregation/model.hpp"
#include "attest/judge.hpp"
#include "base/deadline.hpp"
#include "protocols/launch/checks.hpp"

namespace cloister::enclave {
namespace {

[[noreturn]] void unexpected(const Link& link, const channel::Frame& frame, std::string_view awaited) {
  throw Exception(
      base::malformed(link.owner(), fmt::format("sent {} where {} is awaited", round::name(frame.type), awaited)));
}

}  // namespace

// --- Launcher --------------------------------------------------------------------------------------------------------

awaitable<void> Server::launcher(LinkPtr link) {
  messages::Instance instance;
  instance.set_record(instance_->record.data(), instance_->record.size());
  instance.set_evidence(instance_->evidence.data(), instance_->evidence.size());
  link->send(messages::INSTANCE, std::move(instance));
  for (;;) {
    const channel::Frame frame = co_await link->receive();
    if (frame.type == messages::GRANT) {
      take_grant(channel::parse<messages::Grant>(frame));
    } else if (frame.type == messages::LAUNCH_END) {
      end("the launcher ended it: " + channel::parse<messages::LaunchEnd>(frame).reason());
    } else {
      unexpected(*link, frame, "a grant or the launch's end");
    }
  }
}

// The enclave checks its own grant: one that no peer would accept must not make it answer peers.
void Server::take_grant(const messages::Grant& message) {
  const View bytes = base::view(message.grant());
  const auto grant = protocols::launch::verify_grant(*instance_->charter, bytes, instance_->record, options_.now());
  if (!grant) {
    attest::log_refusals(*log_,
                         protocols::launch::judge_grant(*instance_->charter, bytes, instance_->record, options_.now()),
                         "the launcher's grant");
    log_->event("grant_refused", grant.error().text());
    return;
  }
  const bool first = grant_.empty();
  grant_ = base::copy(bytes);
  grant_until_ = grant->not_after;
  log_->event(first ? "granted" : "grant_renewed", "the grant holds until " + base::text(grant->not_after),
              {{"until", base::text(grant->not_after)}});
  if (first) report_to_launcher("idle", "");
}

// By rule: an expired grant means no new offers. The host's clock can only end this too early or let peers do it.
bool Server::granted() const {
  return grant_until_ && options_.now() < *grant_until_;
}

void Server::report_to_launcher(std::string state, std::string reason) {
  if (!launcher_) return;
  messages::InstanceReport report;
  report.set_state(std::move(state));
  report.set_reason(std::move(reason));
  launcher_->send(messages::INSTANCE_REPORT, std::move(report));
}

// --- Coordinator -----------------------------------------------------------------------------------------------------

awaitable<void> Server::coordinator(LinkPtr link) {
  for (;;) {
    const channel::Frame frame = co_await link->receive();
    if (frame.type == messages::RUN_ORDER) {
      co_await run_order(link, channel::parse<messages::RunOrder>(frame));
    } else if (frame.type == messages::RUN_CANCEL) {
      const auto cancel = channel::parse<messages::RunCancel>(frame);
      if (run_ && run_->run() == cancel.run()) run_->cancel(cancel.reason());
    } else {
      unexpected(*link, frame, "a run order or a cancellation");
    }
  }
}

// docs/formats.md, "Coordinator and aggregator": with a model it orders a run, without one it asks for a run that it
// has lost sight of.
awaitable<void> Server::run_order(LinkPtr link, messages::RunOrder message) {
  const auto order = attest::RunOrder::parse(base::view(message.order()));
  if (!order) throw Exception(order.error());
  const base::Sha256 digest = base::sha256(base::view(message.order()));
  const bool known = feed_.run() == order->run && order_ == digest;
  const bool used = std::ranges::find(runs_, order->run) != runs_.end();
  const std::uint64_t length = message.model_length();
  if (!known && used) {
    attest::Decision once;
    once.add({.met = false,
              .owner = "charter",
              .requirement = "runs.number",
              .wanted = "a number that was not used",
              .found = fmt::format("run {} again, in another order or after a later run", order->run),
              .remedy = "order another run"});
    co_return refuse(link, std::move(once), fmt::format("run {} was run already", order->run));
  }
  if (length == 0) {
    if (known) co_return feed_.attach(link);
    co_return refuse(link, {}, fmt::format("run {} is not known to this instance", order->run));
  }
  const std::uint64_t wanted = aggregation::model_length(plan_->model);
  if (length != wanted)
    co_return refuse(link, {}, fmt::format("initial model: wanted {} bytes, found {}", wanted, length));
  if (!known && run_ && !run_->finished())
    co_return refuse(link, {}, fmt::format("run {} is under way; one at a time", run_->run()), true);
  // Two links of one coordinator must not both pass these checks while their models are on their way.
  if (ordering_) co_return refuse(link, {}, "another order is on its way; one at a time", true);
  ordering_ = true;
  const std::unique_ptr<bool, void (*)(bool*)> over(&ordering_, [](bool* flag) { *flag = false; });
  const ModelPtr model = co_await receive_model(link, length, !known);
  if (known) co_return feed_.attach(link);

  const attest::Decision decision = judge_run(*order);
  feed_.begin(order->run);
  order_ = digest;
  feed_.attach(link);
  std::string refused;
  if (!decision.allowed()) {
    attest::log_refusals(*log_, decision, fmt::format("run {}", order->run));
    refused = decision.explain();
  } else {
    try {
      begin_run(*order, model);
    } catch (const Exception& e) {
      refused = e.what();
    }
  }
  if (refused.empty()) co_return;
  log_->event("run_refused", refused, {{"run", order->run}});
  messages::RunEnd end;
  end.set_run(order->run);
  end.set_outcome("failed");
  end.set_reason("the enclave refused the order: " + refused);
  feed_.end(std::move(end));
}

awaitable<ModelPtr> Server::receive_model(LinkPtr link, std::uint64_t length, bool keep) {
  const auto next = [&](std::string what) {
    return with_deadline(link->receive(), std::chrono::steady_clock::now() + patience_, link->owner() + ": " + what);
  };
  const channel::Frame first = co_await next("the initial model");
  if (first.type != messages::TRANSFER) unexpected(*link, first, "the initial model's transfer");
  const auto header = channel::parse<messages::Transfer>(first);
  if (header.what() != "model" || header.length() != length || header.offset() != 0)
    throw Exception(base::malformed(link->owner(), "the transfer is not the model that the order announced"));
  const auto model = std::make_shared<aggregation::ModelFile>(plan_->model, std::make_shared<aggregation::Pages>());
  for (std::uint64_t have = 0; have < length;) {
    const channel::Frame frame = co_await next("the initial model's bytes");
    if (frame.type != messages::DATA || frame.payload.empty() || frame.payload.size() > length - have)
      unexpected(*link, frame, "the initial model's bytes");
    if (keep) model->append(frame.payload);
    have += frame.payload.size();
  }
  co_return model;
}

// By rule: `judge` runs in the enclave too, over every owner's policy, so that a coordinator cannot order what one of
// them forbids. Each owner's gate judges again.
attest::Decision Server::judge_run(const attest::RunOrder& order) const {
  const attest::Charter& charter = *instance_->charter;
  attest::Decision decision = attest::judge_order(order, charter);
  const auto settings = attest::complete_settings(charter.manifest, order.settings);
  if (!settings) return decision;  // judge_order has said why
  const auto& launch = instance_->launch;
  const attest::Study study{
      .charter = charter,
      .at = options_.now(),
      .host_data = attest::host_data_for(charter.digest, launch.serialize()),
      .settings = *settings,
      .task = {},
      .spent = {},
      .launch = attest::Launch{launch.measurement, launch.memory, launch.connections, launch.duration},
      .participant = {}};
  for (const attest::Policy& policy : charter.policies) {
    // Of many owners only what somebody refuses is kept: all findings of all of them would be a long list of yes.
    attest::Decision own = attest::judge(&instance_->claims, study, policy);
    if (own.allowed()) own.findings.resize(1);
    for (attest::Finding& finding : own.findings)
      if (!finding.met || own.allowed()) decision.add(std::move(finding));
  }
  return decision;
}

void Server::begin_run(attest::RunOrder order, ModelPtr model) {
  const std::uint64_t number = order.run;
  std::vector<Bytes> withdrawals = run_ ? run_->withdrawals() : std::vector<Bytes>();
  for (auto& [owner, statement] : std::exchange(withdrawals_, {})) withdrawals.push_back(std::move(statement));
  auto driver = RunDriver::create(
      {.executor = io_.get_executor(),
       .pool = pool_.get_executor(),
       .instance = instance_,
       .plan = plan_,
       .log = log_,
       .slots = options_.slots,
       .link =
           [this](const std::string& owner) {
             const auto it = participants_.find(owner);
             return it == participants_.end() ? nullptr : it->second.link;
           },
       .refuse = [this](const LinkPtr& link, std::string reason) { refuse(link, {}, std::move(reason)); },
       .report = [this](std::string state,
                        std::string reason) { report_to_launcher(std::move(state), std::move(reason)); },
       .feed = &feed_},
      std::move(order), std::move(model), std::move(withdrawals));
  if (!driver) throw Exception(driver.error());
  runs_.push_back(number);
  run_ = std::move(*driver);
  grant_told_ = granted();
  report_to_launcher("running", fmt::format("run {}", number));
  std::vector<std::string> greeted, new_here;
  for (const auto& [owner, peer] : participants_) (peer.greeted ? greeted : new_here).push_back(owner);
  run_->start(greeted, grant_told_);
  for (const auto& owner : new_here) run_->connected(owner);
}

// --- Participant -----------------------------------------------------------------------------------------------------

awaitable<void> Server::participant(LinkPtr link) {
  channel::Frame frame;
  for (;;) {
    co_await link->receive(frame);
    const auto it = participants_.find(link->owner());
    if (it == participants_.end() || it->second.link != link) co_return;  // replaced meanwhile
    if (link->refusing()) continue;
    if (frame.type == messages::PING) {  // a peer that asks and does not listen is closed when its queue is full
      link->send(messages::PONG, messages::Pong());
      continue;
    }
    if (!run_) {
      between_runs(link, frame);
    } else {
      run_->on_frame(link->owner(), frame);
    }
    if (frame.type == messages::PARTICIPANT_HELLO) it->second.greeted = true;
    // The buffer is reused within a transfer; after it, it would keep the end of an update that was added, and 256 KiB.
    if (frame.type == messages::DATA && !(run_ && run_->receiving(link->owner()))) frame = {};
  }
}

// Before this instance's first run there is nothing to say but hello and goodbye.
void Server::between_runs(const LinkPtr& link, const channel::Frame& frame) {
  if (frame.type == messages::PARTICIPANT_HELLO) {
    const auto hello = channel::parse<messages::ParticipantHello>(frame);
    if (!hello.withdrawal().empty()) take_withdrawal(link->owner(), base::view(hello.withdrawal()));
  } else if (frame.type == messages::WITHDRAW) {
    take_withdrawal(link->owner(), base::view(channel::parse<messages::Withdraw>(frame).statement()));
  } else {
    unexpected(*link, frame, "a hello or a withdrawal");
  }
}

void Server::take_withdrawal(const std::string& owner, View statement) {
  const auto withdrawal = round::Withdrawal::parse(statement);
  if (!withdrawal) throw Exception(withdrawal.error());
  if (withdrawal->owner != owner) throw Exception(base::denied(owner, "sent a withdrawal of " + withdrawal->owner));
  if (const auto ok = withdrawal->verify(*instance_->charter); !ok) throw Exception(ok.error());
  withdrawals_[owner] = base::copy(statement);
  log_->event("withdrawn", owner + " leaves the study", {{"owner", owner}});
}

}  // namespace cloister::enclave

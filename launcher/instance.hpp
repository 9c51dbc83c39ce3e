#pragma once
// One instance from its start to its end: process, link, evidence, grants. Lives on the launcher's one thread.

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/log.hpp"
#include "launcher/agent.hpp"
#include "launcher/tee_process.hpp"
#include "protocols/channel/channel.hpp"

namespace cloister::launcher {

/// What every instance needs of its launcher. Outlives all instances.
struct Tools {
  const Agent& agent;
  base::PrivateKey tls;
  TeeSettings tee;
  std::string work;  ///< folder with aggregator.log: what instances print, one after the other
  std::shared_ptr<base::Log> log;
  std::function<Time()> clock =
      base::now;  ///< of this machine: what grants and policies are judged by; waits are steady
};

class Instance : public std::enable_shared_from_this<Instance> {
 public:
  using Changed = std::function<void(const Instance&)>;

  /// `changed` is called at each new state; it must not block.
  Instance(boost::asio::any_io_executor executor, const Tools& tools, Launch launch, Changed changed);

  /// Starts the TEE and returns when its process is gone and reaped; the reason is in reason() then. Throws nothing.
  boost::asio::awaitable<void> run();

  /// Ends it: TERM now, and KILL after channel.deadline. Only the first call counts.
  void end(std::string reason);

  const std::string& id() const { return id_; }
  const Launch& launch() const { return launch_; }
  const std::string& state() const { return state_; }  ///< "starting", "attested", "granted", "renewed"
  const Bytes& grant() const { return grant_; }        ///< serialized; empty before the first
  bool ending() const { return ending_; }
  const std::string& reason() const { return reason_; }           ///< why it ended or is being ended
  const attest::Decision& decision() const { return decision_; }  ///< with what the policy refused, when that ended it
  int exit_status() const { return exit_status_; }

 private:
  using awaitable = boost::asio::awaitable<void>;
  std::chrono::milliseconds channel_deadline() const { return launch_.charter->manifest.channel_deadline; }
  void set_state(std::string state);
  void refuse(attest::Decision decision, std::string reason);
  awaitable wait_for_end();
  awaitable converse();
  boost::asio::awaitable<protocols::channel::ConnectionPtr> dial();
  awaitable serve(protocols::channel::ConnectionPtr link);
  awaitable pause();
  attest::Decision judge(const protocols::channel::Connection& link, View record, View evidence);
  awaitable send_grant(protocols::channel::ConnectionPtr link);
  awaitable renew(protocols::channel::ConnectionPtr link);
  awaitable until_renewal(const protocols::channel::Connection& link);
  std::chrono::seconds clock_jump() const;

  boost::asio::any_io_executor executor_;
  const Tools& tools_;
  Launch launch_;
  Changed changed_;
  std::string id_;
  std::string state_;
  Bytes record_;  // of the first answer; an instance has one
  std::optional<attest::Claims> claims_;
  Bytes grant_;
  std::chrono::steady_clock::time_point ends_{};       // by the launch's duration
  Time granted_at_{};                                  // what the clock said at the last grant,
  std::chrono::steady_clock::time_point granted_{};    // and when that was
  std::chrono::steady_clock::time_point answer_by_{};  // for the next grant; moved on by each
  std::chrono::milliseconds next_pause_{};
  std::optional<TeeProcess> process_;
  protocols::channel::ConnectionPtr link_;
  boost::asio::steady_timer duration_, kill_, pause_, renewal_, conversation_;
  bool ending_ = false, gone_ = false, conversing_ = false;
  std::string reason_;
  attest::Decision decision_;
  int exit_status_ = 0;
};

}  // namespace cloister::launcher

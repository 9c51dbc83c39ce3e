#pragma once
// A launched aggregator as the coordinator holds it: the launcher's link, which says how the instance is, and the
// attested link to the enclave. Either can be cut and dialled again without ending the instance.

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "coordinator/notice.hpp"
#include "coordinator/peers.hpp"
#include "coordinator/store.hpp"

namespace cloister::coordinator {

class Instance : public std::enable_shared_from_this<Instance> {
 public:
  struct Tell {
    std::function<void(const std::string& instance, const std::string& state)> state;  ///< what the launcher says
    std::function<void()> ended;
  };
  Instance(const attest::Charter& charter, Store& store, Peers& peers, std::shared_ptr<base::Log> log, Tell tell);

  /// Asks the launcher and waits until it has granted the instance; a living instance of this charter is given again.
  /// From then on the launcher's word is followed in the background. Throws denied (the compute owner's policy, with
  /// its findings), unavailable (no launcher, or the instance ended).
  awaitable<void> launch(std::string why);
  bool linked() const { return launcher_ != nullptr; }

  /// The open link to the enclave; dials when there is none.
  awaitable<channel::ConnectionPtr> enclave();
  /// When the evidence on that link is as old as the model owner's policy allows (aggregator.renew).
  channel::Deadline renew_at() const { return renew_at_; }
  /// Asks for evidence again when it is due; nobody else receives from the link meanwhile. A renewal that fails cuts
  /// the link: throws denied with the policy's findings, unavailable when dialling again may help.
  awaitable<void> renew_if_due();
  void cut_enclave();

  /// Tells the launcher to end every living instance of this charter; best effort, never throws but for the database.
  awaitable<void> end(std::string reason);
  /// Closes both links and leaves the instance as it is.
  void close();

  /// The launcher's word that it has ended.
  const std::optional<std::string>& ended() const { return ended_; }
  /// Why the launcher's link was lost; empty while it stands, or when there was none.
  const std::string& launcher_lost() const { return launcher_lost_; }

 private:
  awaitable<void> watch(channel::ConnectionPtr link);
  void on_end(const messages::LaunchEnd& end);
  channel::Deadline within(std::chrono::milliseconds time) const { return std::chrono::steady_clock::now() + time; }

  const attest::Charter& charter_;
  Store& store_;
  Peers& peers_;
  std::shared_ptr<base::Log> log_;
  Tell tell_;
  std::string name_;
  channel::ConnectionPtr launcher_, enclave_;
  channel::Deadline renew_at_ = channel::Deadline::max();
  std::optional<std::string> ended_;
  std::string launcher_lost_;
  Notice changed_;
};

/// The error that a Refusal or LaunchEnd stands for: denied with its findings, unavailable when asking again may help.
Error refusal(const std::string& who, const std::string& reason,
              const google::protobuf::RepeatedPtrField<messages::Finding>& findings, bool retry);

}  // namespace cloister::coordinator

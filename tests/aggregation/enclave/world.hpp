#pragma once
// A study whose enclave runs in this process, on a loopback port of its own, in a TEE that a test can break; and the
// owners that talk to it over real channels. One io_context, one thread; time is real, but every wait ends on an event.

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>

#include "aggregation/enclave/server.hpp"
#include "aggregation/model.hpp"
#include "attest/simulated/platform.hpp"
#include "tests/support/study.hpp"

namespace cloister::tests {

namespace channel = protocols::channel;
namespace messages = protocols::messages;
namespace round = protocols::round;
using channel::awaitable;

struct WorldOptions {
  std::vector<Edit> edits{};
  bool attested_participants = false;
  std::string round_deadline = "20s", channel_deadline = "5s";
  std::uint32_t connections = 16;
  std::size_t slots = 4;
  std::size_t width = 6, rows = 1;  ///< of the model's weight tensor
  std::chrono::milliseconds duration = std::chrono::hours(1);
  std::chrono::seconds patience = std::chrono::seconds(60);  ///< of World::run
  bool processes =
      false;  ///< the real cloister-aggregator under the real cloister-simulated-tee; slots are then its own
};

/// cloister-simulated-tee with the guest that it starts. Killed with the object.
class TeeProcess {
 public:
  TeeProcess(const std::string& folder, const std::string& guest, const Array<32>& host_data, View document,
             int output);
  ~TeeProcess();
  /// Its exit status, once it ended.
  std::optional<int> status();
  void kill();

 private:
  int pid_;
  std::optional<int> status_;
};

/// A waiting that a test ends.
class Event {
 public:
  explicit Event(boost::asio::io_context& io) : timer_(io, Deadline::max()) {}
  void set() {
    done_ = true;
    timer_.cancel();
  }
  bool done() const { return done_; }
  awaitable<void> wait();

 private:
  boost::asio::steady_timer timer_;
  bool done_ = false;
};

class FakeTee final : public enclave::Tee {
 public:
  FakeTee(attest::simulated::Platform platform, protocols::launch::LaunchDocument document, base::Sha256 charter);
  Result<Bytes> launch_document() override { return document; }
  Result<Bytes> evidence(const Array<64>& report_data) override;
  bool ended() const override { return gone; }

  attest::simulated::Platform platform;
  Bytes document;
  Array<48> measurement{};
  Array<32> host_data{};
  bool gone = false;
};

class World {
 public:
  explicit World(WorldOptions options = {});
  ~World();

  /// Runs everything that was spawned until `work` is done. Its exception is thrown; a world that hangs fails after a
  /// minute.
  void run(awaitable<void> work);
  /// Spawns something that lives beside; what it throws is kept in `failures`.
  void spawn(awaitable<void> work, std::string name);

  /// The launcher's link: takes the instance, grants it for `period` by the world's clock, and stays.
  awaitable<void> launch(std::chrono::seconds period = std::chrono::hours(1));
  awaitable<void> renew(std::chrono::seconds period);
  awaitable<void> tell_as_launcher(messages::MessageType type, const google::protobuf::MessageLite& message);
  void hang_up_launcher();

  channel::Endpoint endpoint() const { return {"127.0.0.1", port, ""}; }
  channel::EnclaveExpectation expectation(const std::string& owner) const;
  /// `owner`'s attested link with the key that the charter names.
  awaitable<channel::ConnectionPtr> dial(std::string owner, std::optional<attest::Attester> attester = {}) const;
  /// Lines of the enclave's log so far that hold `text`.
  std::vector<std::string> logged(std::string_view text) const;
  awaitable<void> until_logged(std::string text);

  boost::asio::io_context io{1};
  Bytes initial_model;
  base::PrivateKey platform_key = base::PrivateKey::generate();
  attest::simulated::Platform platform;
  std::map<std::string, attest::simulated::Platform> hospital_platforms;
  std::unique_ptr<Study> study;
  std::unique_ptr<FakeTee> tee;
  std::chrono::seconds clock_offset{0};  ///< of the enclave's host clock
  std::shared_ptr<base::Log> log;
  std::unique_ptr<enclave::Server> server;  ///< null with `processes`
  std::unique_ptr<TeeProcess> process;
  std::uint16_t port = 0;
  std::chrono::seconds patience;
  std::optional<std::string> ended;  ///< why the server ended
  std::vector<std::string> failures;
  std::string instance_state;  ///< the last that the launcher was told
  Event granted{io};

 private:
  Bytes grant(std::chrono::seconds period) const;
  void start_here(const WorldOptions& options);
  void start_processes();
  int log_fd_;
  std::string folder_;  ///< the platform's, with `processes`
  channel::ConnectionPtr launcher_;
  Bytes record_;
};

/// A model file of zeros.
aggregation::Model zero_model(std::size_t width, std::size_t rows = 1);

}  // namespace cloister::tests

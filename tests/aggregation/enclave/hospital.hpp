#pragma once
// A scripted hospital: protocols/round's participant machine over a real channel, with arithmetic in place of training
// and a map in place of a disk. What a cheat does is named here and nowhere in the product.

#include <set>

#include "protocols/round/participant.hpp"
#include "tests/aggregation/enclave/world.hpp"

namespace cloister::tests {

class Hospital;

struct Script {
  /// What the trainer makes of a task; default: small multiples of 2^-10 that depend on owner and round.
  std::function<void(const round::OfferedTask&, Bytes& update, std::uint64_t& weight)> change_update{};
  std::function<void(messages::Update&)> change_announcement{};  ///< of a train update
  std::function<void(Bytes&)> change_sent_bytes{};               ///< of a train update, once it was announced
  std::function<bool(const round::OfferedTask&)> never_finishes{};
  std::function<awaitable<void>(Hospital&, const round::OfferedTask&)> before_task{};
  std::function<awaitable<void>(Hospital&, const round::Message&)> on_message{};  ///< before the machine sees it
  std::optional<std::uint64_t>
      cut_upload_at{};      ///< the connection is cut after so many bytes of its first train update
  bool stays_away = false;  ///< after that cut
  std::optional<attest::Attester> attester{};
};

class Hospital {
 public:
  Hospital(World& world, std::string owner, std::uint64_t weight, Script script = {});

  /// Dials and takes part until so many runs have ended. A connection that its script cuts is dialled again.
  awaitable<void> take_part(std::uint64_t runs = 1);
  awaitable<void> send(const round::Message& message);
  awaitable<void> send_data(Bytes bytes);

  Bytes update_of(const round::OfferedTask& task) const;

  World& world;
  const std::string owner;
  const std::uint64_t weight;
  Script script;
  std::vector<std::string> refused;           ///< reasons of UpdateRefused, and of what this side refused
  std::vector<std::string> seen;              ///< names of the messages that came
  std::map<std::string, Bytes> published;     ///< kind to value, the last
  std::vector<std::uint64_t> upload_offsets;  ///< where each upload of this owner began
  std::map<std::uint32_t, round::CommittedReceipt> receipts;
  std::optional<round::Ended> ended;
  std::uint64_t model_bytes = 0;  ///< bytes of weights that came
  std::size_t connections = 0;
  std::uint64_t runs_ended = 0;

 private:
  awaitable<void> handle(channel::Frame frame);
  awaitable<void> perform(round::ParticipantSteps steps);
  awaitable<void> act(round::Send& step);
  awaitable<void> act(round::Charge& step);
  awaitable<void> act(round::NeedModel& step);
  awaitable<void> act(round::ReceiveModel& step);
  awaitable<void> act(round::RunTask& step);
  awaitable<void> act(round::StopTask& step);
  awaitable<void> act(round::StoreUpdate& step);
  awaitable<void> act(round::SendUpdate& step);
  awaitable<void> act(round::SignReceipt& step);
  awaitable<void> act(round::Keep& step);
  awaitable<void> act(round::Publish& step);
  awaitable<void> act(round::Refused& step);
  awaitable<void> act(round::Disconnect& step);
  awaitable<void> act(round::SetDeadline& step);
  awaitable<void> act(round::ClearDeadline& step);
  awaitable<void> act(round::Ended& step);
  round::Participant machine_for(std::uint64_t run) const;

  channel::ConnectionPtr link_;
  base::PublicKey receipt_key_;
  std::optional<round::Participant> machine_;
  std::map<base::Sha256, Bytes> models_;
  std::optional<round::ReceiveModel> incoming_;
  Bytes update_;  ///< "on disk"
  bool cut_ = false;
  std::string task_;
};

/// The coordinator, as it keeps what it was told.
class ScriptedCoordinator {
 public:
  explicit ScriptedCoordinator(World& w) : world(w) {}
  awaitable<void> connect();
  /// Orders the run and sends the initial model.
  awaitable<void> order(const attest::RunOrder& run);
  awaitable<void> order(const attest::RunOrder& run, Bytes model);
  /// "I am back": asks for what it missed.
  awaitable<void> ask(const attest::RunOrder& run);
  awaitable<void> cancel(std::uint64_t run, std::string reason);
  /// Listens until the run's end.
  awaitable<messages::RunEnd> until_end();
  /// Listens until `stop` says so; gives that frame's type.
  awaitable<void> until(std::function<bool()> stop);
  void cut() { link->close(); }

  World& world;
  channel::ConnectionPtr link;
  std::vector<messages::ReceiptRecord> records;
  std::map<std::string, std::vector<messages::Result>> results;  ///< by kind
  std::vector<messages::RunStatus> statuses;
  std::optional<messages::RunEnd> end;
  Bytes model;  ///< the last that was published

 private:
  awaitable<void> hear();
};

}  // namespace cloister::tests

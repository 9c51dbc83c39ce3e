#pragma once
// An aggregator and its participants in one process: real machines, in-memory links, disks that survive a crash, a
// clock that only moves when nothing else can. One seed fixes every order in which things happen.

#include <deque>
#include <functional>
#include <memory>
#include <random>
#include <set>

#include "base/encoding.hpp"
#include "protocols/round/aggregator.hpp"
#include "protocols/round/participant.hpp"
#include "tests/support/study.hpp"

namespace cloister::tests {

namespace round = protocols::round;
namespace messages = protocols::messages;

/// The study of these tests: four hospitals, a model and updates of a few bytes.
StudyOptions small_study(std::vector<Edit> edits = {});
Bytes initial_model();
round::Shapes small_shapes();
attest::Settings one_train_round();

/// What an owner's child makes of a task: 32 bytes that depend on everything it was given.
Bytes update_of(const std::string& owner, const round::OfferedTask& task, const std::optional<base::Sha256>& model);

/// One fault on the wire: at the n-th message of an owner's link (both directions, data frames too).
struct WireFault {
  enum class Kind { none, drop, repeat, reorder, cut } kind = Kind::none;
  std::string owner{};
  std::size_t at = 0;
};

/// One crash of a participant, at the n-th step that it does.
struct Crash {
  std::string owner;
  std::size_t at_step = 0;
  bool after = false;  ///< after the step was done, else before
};

struct Disk {
  std::optional<Bytes> record;
  std::optional<Bytes> update;
  std::map<base::Sha256, Bytes> models;
  Bytes partial;  ///< of a model
  std::vector<std::pair<std::uint32_t, std::string>> charges;
  std::vector<round::CommittedReceipt> kept;
};

struct Node {
  std::string owner;
  Disk disk;
  std::unique_ptr<round::Participant> machine;  ///< null while it is down
  std::vector<round::Publish> published;
  std::vector<round::Refused> refused;
  std::vector<std::string> disconnects;
  std::optional<round::Ended> ended;
  std::set<std::pair<std::uint32_t, base::Sha256>> signed_receipts;  ///< every acknowledgement that ever left
  std::size_t steps = 0;
  std::size_t messages = 0;  ///< on its link
  std::uint64_t life = 0;    ///< of process and connection: events of an earlier one are void
  bool up_link = false;
  std::optional<round::ReceiveModel> receiving;
  std::function<attest::Decision(const round::OfferedTask&)> gate;
  std::optional<std::string> task_fails;
  bool down = false;  ///< never comes
  Bytes withdrawal;   ///< in force when its process starts
};

class Network {
 public:
  Network(const Study& study, attest::Settings settings, std::uint64_t seed);

  WireFault fault;
  double fault_rate = 0;  ///< of random faults, up to `fault_count` of them
  std::size_t fault_count = 0;
  std::optional<Crash> crash;
  std::vector<Bytes> withdrawals;  ///< that the instance knows from before
  std::function<void(const std::string& owner, const round::Message&)> at_delivery;  ///< before the aggregator reads it
  /// An update's bytes as they arrive at the aggregator's slot: a refusal, or nothing.
  std::function<std::optional<attest::Finding>(const std::string& owner, View bytes)> range_check;

  void run();
  /// What must hold after every run, whatever went wrong on the way; fails the test otherwise.
  void expect_sound() const;

  Node& node(const std::string& owner) { return nodes_.at(owner); }
  const std::map<std::string, Node>& nodes() const { return nodes_; }
  round::ParticipantSetup participant_setup(const std::string& owner) const;
  round::AggregatorSetup aggregator_setup() const;
  void from_aggregator(round::AggregatorSteps steps);
  round::Aggregator& aggregator() { return *aggregator_; }

  const Study& study;
  std::shared_ptr<const attest::Charter> charter;
  base::PrivateKey receipt_key = base::PrivateKey::generate();
  base::Sha256 evidence = base::sha256(base::view("instance evidence"));
  attest::RunOrder order;
  std::vector<round::CommittedReceipt> records;
  std::vector<messages::Result> results;
  std::vector<messages::RunStatus> statuses;
  std::vector<round::Refuse> refusals;
  std::vector<round::LogRefusal> logged;
  std::optional<round::Finish> finish;
  std::size_t messages = 0;                                 ///< on the wire
  std::map<std::uint32_t, std::vector<std::string>> added;  ///< by round, in the order of arrival
  std::map<std::uint32_t, Bytes> values;                    ///< results by round

 private:
  using Item = std::variant<round::Message, Bytes>;
  struct Slot {
    base::Sha256 digest{};
    Bytes bytes;
  };
  struct Expecting {
    std::uint32_t round = 0;
    std::uint64_t left = 0;
    bool wanted = true;
  };
  struct Timer {
    std::int64_t at = 0;
    std::function<void()> fire;
  };

  void boot(Node& n);
  void connect(Node& n);
  void cut(Node& n);
  void send(std::deque<Item>& queue, Item item);
  void deliver_to_aggregator(Node& n);
  void deliver_to_participant(Node& n);
  void from_participant(Node& n, round::ParticipantSteps steps);
  void local(const Node& n, std::function<void(Node&)> event);
  bool due(const Node& n, bool after) const;
  void on_wire(Node& n, std::deque<Item>& queue, Item item);
  void reduce(const round::Reduce& step);

  void step(const round::SendTo& s);
  void step(const round::SendMissed& s);
  void step(const round::SendModel& s);
  void step(const round::BeginTask& s);
  void step(const round::OpenSlot& s);
  void step(const round::Receive& s);
  void step(const round::Swallow& s);
  void step(const round::DropSlot& s);
  void step(const round::Add& s);
  void step(const round::Reduce& s) { reduce(s); }
  void step(const round::SetDeadline& s);
  void step(const round::ClearDeadline& s);
  void step(const round::Report&) { statuses.push_back(aggregator_->status()); }
  void step(const round::Record& s);
  void step(const round::PublishResult& s) { results.push_back(s.result); }
  void step(const round::Refuse& s);
  void step(const round::LogRefusal& s) { logged.push_back(s); }
  void step(const round::Finish& s) { finish = s; }

  void step(Node& n, const round::Send& s);
  void step(Node& n, const round::Charge& s);
  void step(Node& n, const round::NeedModel& s);
  void step(Node& n, const round::ReceiveModel& s);
  void step(Node& n, const round::RunTask& s);
  void step(Node&, const round::StopTask&) {}
  void step(Node& n, const round::StoreUpdate& s);
  void step(Node& n, const round::SendUpdate& s);
  void step(Node& n, const round::SignReceipt& s);
  void step(Node& n, const round::Keep& s);
  void step(Node& n, const round::Publish& s) { n.published.push_back(s); }
  void step(Node& n, const round::Refused& s) { n.refused.push_back(s); }
  void step(Node& n, const round::Disconnect& s);
  void step(Node& n, const round::SetDeadline& s);
  void step(Node& n, const round::ClearDeadline& s);
  void step(Node& n, const round::Ended& s) { n.ended = s; }

  std::mt19937_64 random_;
  std::map<std::string, Node> nodes_;
  std::map<std::string, std::deque<Item>> to_aggregator_, to_participant_;
  std::optional<round::Aggregator> aggregator_;
  std::deque<std::function<void()>> now_;     ///< first, in order
  std::vector<std::function<void()>> local_;  ///< in any order
  std::map<std::string, Timer> timers_;
  std::int64_t clock_ = 0;
  std::map<std::string, Slot> slots_;
  std::map<std::string, Expecting> expecting_;
  std::array<std::uint64_t, 4> sum_{};
  std::map<base::Sha256, Bytes> models_;
  std::map<std::string, Bytes> updates_;  ///< what each owner's child made of the task under way
};

}  // namespace cloister::tests

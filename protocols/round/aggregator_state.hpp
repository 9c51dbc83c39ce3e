#pragma once
// Private to aggregator*.cpp: what an Aggregator remembers, and the parts of its rules.

#include <algorithm>

#include "protocols/round/aggregator.hpp"
#include "protocols/round/merkle.hpp"

namespace cloister::protocols::round {

/// How far a member of the cohort got in the round under way. The names are those of messages::Member.state.
enum class Progress {
  absent,
  offered,
  accepted,
  downloading,
  training,
  uploading,
  stored,
  declined,
  refused,
  late,
  withdrawn
};
std::string_view name(Progress progress);

/// What the manifest and every policy agree to publish of a kind, at most: 0 never, 1 "final" or "cohort", 2
/// "every-round".
int publication(const attest::Charter& charter, std::string_view kind);

inline constexpr std::string_view round_deadline = "round", witness_deadline = "witnesses", grant_deadline = "grant";

struct Aggregator::Impl {
  enum class Phase { waiting, collecting, closing, witnessing, finished };

  /// An update that its owner has announced; it stands with the connection because its bytes may outlive its round.
  struct Upload {
    std::uint32_t round = 0;
    base::Sha256 digest{};
    std::uint64_t length = 0;
    std::uint64_t offset = 0;
    bool wanted = false;   ///< announced on this connection, Resume not yet sent
    bool resumed = false;  ///< Resume sent on this connection, its Transfer not yet here
  };
  struct Peer {
    bool connected = false;
    bool greeted = false;
    Upload upload;
  };
  struct Member {
    Progress progress = Progress::absent;
    std::string reason;
    bool slot = false;
    std::optional<base::Sha256> update;  ///< announced and within every bound
    std::uint64_t weight = 0;
    bool acknowledged = false;
  };
  /// A round from its receipt on.
  struct Round {
    SignedReceipt receipt;
    std::vector<std::string> contributors;
    std::vector<base::Sha256> entries;  ///< their leaf entries
    Bytes value;
    std::optional<base::Sha256> model;
    std::map<std::string, Bytes> acknowledgements;  ///< by witness
  };

  explicit Impl(AggregatorSetup s) : setup(std::move(s)), charter(*setup.charter) {}

  AggregatorSetup setup;
  const attest::Charter& charter;
  attest::Settings settings;
  std::vector<ScheduledTask> tasks;
  Minimum minimum;
  std::uint32_t quorum = 0;  ///< contributors that close a round early; 0: the whole cohort
  std::map<std::string, Withdrawal> withdrawn;

  Phase phase = Phase::waiting;
  std::uint32_t round = 0;
  std::map<std::string, Peer> peers;
  std::map<std::string, Member> members;  ///< every data owner
  messages::Offer offer;
  std::optional<base::Sha256> model, optimizer;  ///< committed
  Bytes statistics;                              ///< committed
  std::optional<Round> pending;
  std::vector<Round> committed;
  bool granted = true;
  Outcome outcome = Outcome::failed;
  std::string reason;

  AggregatorSteps out;
  std::string reported;

  // aggregator.cpp: from round to round
  void begin_round();
  messages::Offer make_offer(const std::vector<std::string>& cohort) const;
  void greet(const std::string& owner, const messages::ParticipantHello& hello);
  void replay(const std::string& owner, std::uint32_t from);
  void close_if_ready();
  void close();
  void reduced(Reduction reduction);
  Receipt make_receipt(const Reduction& reduction) const;
  void send_receipt(const std::string& owner, const Round& of);
  void acknowledge(const std::string& owner, const messages::Acknowledge& message);
  void commit();
  messages::Committed committed_for(const std::string& owner, const Round& of) const;
  bool publishes_now(std::string_view kind) const;
  void finish(Outcome how, std::string why);
  messages::RunEnd run_end() const;
  messages::RunStatus status() const;

  // aggregator_updates.cpp: what a member of the cohort says
  void accept(const std::string& owner, const messages::Accept& message);
  void decline(const std::string& owner, const messages::Decline& message);
  void request_model(const std::string& owner, const messages::ModelRequest& message);
  void announce(const std::string& owner, const messages::Update& message);
  attest::Decision judge_update(const std::string& owner, const messages::Update& message) const;
  void transfer(const std::string& owner, const messages::Transfer& message);
  void slot_open(const std::string& owner, std::uint64_t offset);
  void staged(const std::string& owner, const base::Sha256& digest);
  void refuse_update(const std::string& owner, attest::Finding finding);
  void withdraw(const std::string& owner, View statement);

  // Shared
  const ScheduledTask& task() const { return tasks[round - 1]; }
  const Shape& shape() const { return setup.shapes.find(task().task)->second; }
  bool knows(const std::string& owner) const;  ///< as a data owner
  std::vector<std::string> cohort() const;
  std::vector<std::string> stored() const;
  std::uint64_t weight_bound(const std::string& owner, std::string& whose, std::string& requirement) const;
  Array<32> leaf_random(const std::string& owner, std::uint32_t of_round) const;
  void send(const std::string& owner, Message message);
  void set(const std::string& owner, Progress progress, std::string why = {});
  void drop_slot(const std::string& owner);
  void unexpected(const std::string& owner, std::string_view what);
  std::string awaited(const std::string& owner) const;
  AggregatorSteps take();
};

inline bool may_still_contribute(Progress p) {
  return p < Progress::stored;
}

}  // namespace cloister::protocols::round

#pragma once
// Private to aggregator*.cpp: what an Aggregator remembers, and the parts of its rules.

#include <algorithm>
#include <array>

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
inline constexpr std::size_t progress_count = 11;
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
    Bytes bytes;                        ///< the signed receipt, serialized
    std::vector<base::Sha256> entries;  ///< the contributors' leaf entries, in the manifest's order
    std::optional<MerkleTree> tree;     ///< over them
    Bytes value;
    std::optional<base::Sha256> model;
    std::map<std::string, Bytes> acknowledgements;  ///< by witness
    bool published = false;                         ///< to the cohort: its value goes with the commit

    Bytes serialize() const;  ///< for the history
    static Result<Round> parse(View bytes);
  };

  explicit Impl(AggregatorSetup s);

  AggregatorSetup setup;
  const attest::Charter& charter;
  attest::Settings settings;
  std::uint32_t rounds = 0;  ///< of the whole run
  ScheduledTask task;        ///< of the round under way
  Minimum minimum;
  std::uint32_t quorum = 0;  ///< contributors that close a round early; 0: the whole cohort
  int publish_model = 0, publish_evaluate = 0, publish_statistics = 0;  ///< as publication() says
  std::map<std::string, Withdrawal> withdrawn;

  Phase phase = Phase::waiting;
  std::uint32_t round = 0;
  std::map<std::string, Peer> peers;
  std::vector<std::string> owners;                     ///< the data owners, in the manifest's order
  std::vector<Member> members;                         ///< by place in `owners`
  std::array<std::uint32_t, progress_count> counts{};  ///< of `members`, by progress
  std::shared_ptr<const Message> offer;
  std::optional<base::Sha256> model, optimizer;  ///< committed
  Bytes statistics;                              ///< committed
  std::optional<Round> pending;
  std::optional<Round> last;    ///< the last committed one; all of them are in setup.history
  std::uint32_t committed = 0;  ///< rounds
  bool granted = true;
  Outcome outcome = Outcome::failed;
  std::string reason;

  AggregatorSteps out;
  bool changed = false;  ///< since the last report

  // aggregator.cpp: from round to round
  void begin_round();
  messages::Offer make_offer() const;
  void greet(const std::string& owner, const messages::ParticipantHello& hello);
  void replay(const std::string& owner, std::uint32_t from);
  Round recall(std::uint32_t index) const;
  void close_if_ready();
  void close();
  void reduced(Reduction reduction);
  Receipt make_receipt(const Reduction& reduction) const;
  void send_receipt(const std::string& owner, const Round& of);
  void acknowledge(const std::string& owner, const messages::Acknowledge& message);
  void commit();
  messages::Committed committed_for(const std::string& owner, const Round& of) const;
  bool last_of_its_kind() const;
  bool published_now(int most) const;
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
  const Shape& shape() const { return setup.shapes.find(task.task)->second; }
  bool knows(const std::string& owner) const { return charter.manifest.data_place(owner).has_value(); }
  Member& member(const std::string& owner) { return members[*charter.manifest.data_place(owner)]; }
  const Member& member(const std::string& owner) const { return members[*charter.manifest.data_place(owner)]; }
  std::uint32_t count(Progress progress) const { return counts[static_cast<std::size_t>(progress)]; }
  std::uint32_t cohort() const { return static_cast<std::uint32_t>(members.size()) - count(Progress::withdrawn); }
  std::uint32_t open() const;  ///< members that may still contribute
  std::vector<std::string> stored() const;
  std::uint64_t weight_bound(const std::string& owner, std::string& whose, std::string& requirement) const;
  Array<32> leaf_random(const std::string& owner, std::uint32_t of_round) const;
  void send(const std::string& owner, Message message);
  void set(const std::string& owner, Progress progress, std::string why = {});
  void set(Member& member, Progress progress, std::string why = {});
  void drop_slot(const std::string& owner);
  void unexpected(const std::string& owner, std::string_view what);
  std::string awaited(const std::string& owner) const;
  AggregatorSteps take();
};

inline bool may_still_contribute(Progress p) {
  return p < Progress::stored;
}

}  // namespace cloister::protocols::round

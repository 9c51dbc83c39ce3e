#pragma once
// The real machines of a round as a table: (state, input) to (state, what it wants done). A machine is deterministic,
// so each pair is computed once, with all its signatures, however many global states contain it. States, messages,
// digests and records are numbers; 0 is "none".

#include <deque>
#include <memory>
#include <unordered_map>
#include <vector>

#include "tests/protocols/round/exhaustive/inspection.hpp"
#include "tests/support/study.hpp"

namespace cloister::tests::exhaustive {

namespace round = protocols::round;
namespace messages = protocols::messages;

using Id = std::uint16_t;
inline constexpr std::size_t most_sites = 3, most_rounds = 3;
inline constexpr std::uint8_t update_length = 32, model_length = 48, chunk = 24;  // two frames per transfer

/// A frame on a link.
struct Item {
  messages::MessageType type = messages::UNSET;  ///< DATA for a piece of a file
  std::uint8_t round = 0;                        ///< of its content
  Id digest = 0;             ///< Receipt, Committed, Acknowledge: the receipt's; Update: the update's; DATA: the file's
  std::uint8_t members = 0;  ///< Receipt: who contributed, a bit per site
  bool done = false;         ///< RunEnd
  std::uint8_t offset = 0, length = 0;  ///< DATA
  std::optional<round::Message> message;
};

/// What a machine wants done; a number for everything that has bytes.
struct Act {
  enum class Kind : std::uint8_t {
    // of both
    send,
    set_deadline,
    clear_deadline,
    // of a participant
    charge,
    need_model,
    receive_model,
    run_task,
    stop_task,
    store_update,
    send_update,
    sign_receipt,
    keep,
    publish,
    refused,
    disconnect,
    ended,
    // of an aggregator
    send_model,
    begin_task,
    open_slot,
    receive,
    swallow,
    drop_slot,
    add,
    reduce,
    record,
    publish_result,
    refuse,
    finish,
  };
  Kind kind = Kind::send;
  std::uint8_t site = 0, round = 0, timer = 0;
  std::uint8_t offset = 0, length = 0;
  std::uint8_t members = 0;  ///< reduce: contributors
  bool flag = false;         ///< refused: equivocation; disconnect: for silence; ended, finish: done
  Id item = 0, digest = 0, record = 0;
};

struct Reaction {
  std::uint32_t machine = 0;
  std::vector<Act> acts;
  bool finished = false;
};

struct Input {
  enum class Kind : std::uint8_t {
    // participant
    boot,  ///< a: record on disk; the machine before does not matter
    connected,
    joined,
    disconnected,
    message,
    unexpected,
    model_ready,
    fetch,
    model_broken,
    task_done,
    update_lost,
    // aggregator
    start,
    slot_open,
    staged,
    reduced,
    data_unexpected,
    model_sent,
    // both
    deadline,
  };
  Kind kind = Kind::message;
  std::uint8_t site = 0;
  Id a = 0, b = 0;
};

/// Timers as bits.
enum Timer : std::uint8_t { round_timer = 1, witness_timer = 2, grant_timer = 4, return_timer = 1, silence_timer = 2 };

/// What a participant's record on disk says.
struct RecordFacts {
  std::uint8_t answered = 0, stored = 0;
  Id update = 0;
  std::array<Id, most_rounds> receipts{};
};

class Machines {
 public:
  Machines(std::size_t sites, std::uint32_t rounds);

  std::size_t sites() const { return owners_.size(); }
  std::uint32_t rounds() const { return rounds_; }
  std::uint32_t witnesses() const { return quorum_; }
  std::uint8_t all() const { return static_cast<std::uint8_t>((1U << sites()) - 1); }

  /// Two instances: 0 with the key of the first, 1 with another.
  std::uint32_t aggregator(int key);
  const Reaction& aggregator(std::uint32_t machine, Input input);
  const Reaction& participant(std::uint32_t machine, Input input);

  Id name(View bytes);
  const Bytes& bytes(Id name) const { return *names_[name]; }
  const Item& item(Id id) const { return items_[id]; }
  Id item(const round::Message& message);
  Id data(Id file, std::uint8_t offset, std::uint8_t length);
  const RecordFacts& record(Id id);
  /// The file of a new model or update, a function of what went into it.
  Id derived(std::string_view what, Id from, std::uint8_t number);
  Id initial_model() const { return initial_; }
  Id key(int instance) const { return keys_[static_cast<std::size_t>(instance)]; }
  std::size_t items() const { return items_.size(); }
  std::string text(Id item) const;
  std::size_t participant_states() const { return participants_.size() - 1; }
  std::size_t aggregator_states() const { return aggregators_.size() - 1; }
  std::size_t computed() const { return participant_table_.size() + aggregator_table_.size(); }

 private:
  struct Key {
    std::uint32_t machine;
    Input input;
    bool operator==(const Key& o) const {
      return machine == o.machine && input.kind == o.input.kind && input.site == o.input.site && input.a == o.input.a &&
             input.b == o.input.b;
    }
  };
  struct Hash {
    std::size_t operator()(const Key& k) const;
  };

  round::ParticipantSetup setup(std::size_t site) const;
  round::ParticipantSteps feed(round::Participant& machine, const Input& input);
  round::AggregatorSteps feed(round::Aggregator& machine, const Input& input);
  std::uint32_t intern(std::uint8_t site, round::Participant machine);
  std::uint32_t intern(round::Aggregator machine);
  std::uint8_t site(const std::string& owner) const;
  Act act(const round::ParticipantStep& step);
  std::optional<Act> act(const round::AggregatorStep& step);
  void describe(Item& item);
  Id receipt(View bytes, Item& item);

  std::vector<std::string> owners_;
  std::uint32_t rounds_, quorum_ = 0;
  Study study_;
  std::shared_ptr<const attest::Charter> charter_;
  attest::RunOrder order_;
  std::array<base::PrivateKey, 2> receipt_keys_{base::PrivateKey::generate(), base::PrivateKey::generate()};
  std::array<Id, 2> keys_{};
  Id initial_ = 0;

  std::unordered_map<std::string, Id> name_ids_, item_ids_;
  std::vector<const Bytes*> names_{nullptr};
  std::vector<std::unique_ptr<Bytes>> name_bytes_;
  std::deque<Item> items_{1};  ///< references stay while it grows
  std::unordered_map<Id, RecordFacts> records_;
  struct Site {
    std::uint8_t site = 0;
    std::optional<round::Participant> machine;
  };
  std::vector<Site> participants_{1};
  std::vector<std::optional<round::Aggregator>> aggregators_{1};
  std::unordered_map<std::string, std::uint32_t> participant_ids_, aggregator_ids_;
  std::unordered_map<Key, std::unique_ptr<Reaction>, Hash> participant_table_, aggregator_table_;
};

}  // namespace cloister::tests::exhaustive

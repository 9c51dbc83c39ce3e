#pragma once
// Private to participant*.cpp: what a Participant remembers, and the parts of its rules.

#include "protocols/round/merkle.hpp"
#include "protocols/round/participant.hpp"

namespace cloister::protocols::round {

struct Participant::Impl {
  enum class State {
    idle,       ///< an offer is awaited
    fetching,   ///< the model
    working,    ///< the child has its task
    announced,  ///< Update sent, or to be sent again after the next offer
    sent,       ///< every byte is queued, or the aggregator has them
    declined,   ///< this round goes on without this site
    signed_,    ///< its receipt is signed, its commit awaited
    finished,
  };

  Impl(ParticipantSetup s, std::optional<ParticipantRecord> r);

  ParticipantSetup setup;
  const attest::Charter& charter;
  ParticipantRecord record;
  std::optional<SignedReceipt> committed;  ///< record.committed, parsed

  State state = State::idle;
  std::optional<base::PublicKey> key;  ///< of the instance on the open connection
  std::optional<OfferedTask> offered;  ///< of the round under way, since the start of this process
  messages::Offer offer;
  std::optional<base::Sha256> refused_receipt;  ///< the last one that this owner would not sign
  int strikes = 0;                              ///< broken connections by this side since the last committed round
  std::optional<messages::Decline> declined;    ///< why this site sits the round out
  bool answered_here = false;                   ///< on this connection
  bool update_sent = false;                     ///< announced on this connection: Resume may come
  bool confirmed = false;                       ///< the aggregator said that it stored this round's update
  std::optional<std::uint64_t> requested;       ///< the offset of the ModelRequest whose Transfer is awaited
  /// Since a connection ended. A new connection alone does not end the waiting, only a word of the run: who is let in
  /// and thrown out again and again must come to an end too.
  bool awaiting_return = false;
  bool overdue = false;  ///< the deadline of the return passed while a connection was open

  ParticipantSteps out;

  // participant.cpp
  void open(const base::PublicKey& receipt_key, bool hello);
  void on(const messages::Offer& message);
  void on(const messages::Transfer& message);
  void on(const messages::Resume& message);
  void on(const messages::UpdateStored& message);
  void on(const messages::UpdateRefused& message);
  void on(const messages::Receipt& message);
  void on(const messages::Committed& message);
  void on(const messages::MissedReceipts& message);
  void on(const messages::RunEnd& message);
  template <class Other>
  void on(const Other& other) {
    unexpected(name(type(Message(other))));
  }
  void take_up(OfferedTask task, const messages::Offer& message);
  void proceed();
  void run_task();
  void announce();
  void decline(std::uint32_t round, const std::string& about, attest::Decision decision, bool equivocation = false);
  void keep(SignedReceipt receipt, std::vector<Bytes> acknowledgements);
  void stop_task();
  std::string not_back() const;
  void finish(Outcome outcome, std::string reason, std::optional<base::Sha256> final_model = {});
  void unexpected(std::string_view what);
  std::string_view awaited() const;
  ParticipantSteps take() { return std::exchange(out, {}); }

  // participant_checks.cpp
  std::uint32_t last() const { return committed ? committed->receipt.round : 0; }
  /// What is refused of an offer before the gate is asked; `equivocation`: it contradicts what this owner answered.
  attest::Decision judge_offer(const messages::Offer& message, OfferedTask& task, bool& equivocation) const;
  void judge_identity(const messages::Offer& message, attest::Decision& decision, bool& equivocation) const;
  void judge_order(const messages::Offer& message, OfferedTask& task, attest::Decision& decision,
                   bool& equivocation) const;
  void judge_state(const messages::Offer& message, const attest::Settings& settings, attest::Decision& decision) const;
  void judge_cohort(const messages::Offer& message, OfferedTask& task, attest::Decision& decision) const;
  /// The data owners whose signed withdrawal the offer shows, in the manifest's order, each once.
  std::vector<std::string> withdrawn_in(const messages::Offer& message) const;
  /// The receipt that this owner signed or kept of that round.
  std::optional<base::Sha256> known_receipt(std::uint32_t round) const;
  /// What is refused of a receipt before it is signed, or kept as committed.
  attest::Decision judge_receipt(const SignedReceipt& receipt) const;
  bool leaf_holds(const messages::Receipt& message, const SignedReceipt& receipt) const;
};

attest::Finding check(bool met, std::string requirement, std::string wanted, std::string found, std::string remedy);

}  // namespace cloister::protocols::round

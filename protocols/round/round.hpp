#pragma once
// A round: how one task of a run gets from the enclave to the participants, and its receipt to their signatures. Both
// sides are state machines without I/O, clock or randomness: aggregator.hpp, participant.hpp. Messages, stored bytes
// and deadlines that fired go in; steps come out, to be done in their order.
//
//     participant                                          aggregator
//       |  ParticipantHello {run, round, withdrawal}           |   first on every connection; round: last one known
//       committed
//       |----------------------------------------------------->|
//       |                  Receipt, MissedReceipts, RunEnd      |   what it lacks, in order
//       |<-----------------------------------------------------|
//       |                  Offer {order, round, task, model,    |   to all data owners but those whose signed
//       |                         withdrawals, last receipt}    |   withdrawal it shows; only when the last receipt is
//       |                                                       |   committed
//       |<-----------------------------------------------------|
//    gate; charge                                               |
//       |  Accept {round}     or Decline {round, findings}      |
//       |----------------------------------------------------->|
//       |  ModelRequest {model, offset}                         |   not for statistics
//       |----------------------------------------------------->|
//       |                  Transfer {"model"}, DATA…            |
//       |<-----------------------------------------------------|
//    task in the child; update stored; it and charge synced     |
//       |  Update {run, round, digest, length, weight, schema}  |
//       |----------------------------------------------------->|   every bound is checked before a byte is accepted
//       |                  Resume {round, offset}               |   or UpdateRefused {round, findings}
//       |<-----------------------------------------------------|
//       |  Transfer {"update"}, DATA…                           |
//       |----------------------------------------------------->|   staged whole, then added
//       |                  UpdateStored {round, digest}         |   or UpdateRefused
//       |<-----------------------------------------------------|
//       |                                                close at quorum or deadline; reduce; sign the receipt
//       |                  Receipt {receipt, leaf, path}        |   to every data owner; who did not contribute, and
//       why
//       |<-----------------------------------------------------|
//    checks the link and its leaf; stores its signature, fsync  |
//       |  Acknowledge         or Decline {round, findings}     |
//       |----------------------------------------------------->|   nothing leaves before q witnesses have signed
//       |                  Committed {receipt, acks, value}     |
//       |<-----------------------------------------------------|
//       |                  … next Offer, or RunEnd              |
//       |<-----------------------------------------------------|
//       |  Withdraw {statement}                                 |   at any time; the next round runs without it
//       |----------------------------------------------------->|
//
// DATA frames belong to the last Transfer of their direction; control messages may stand between them. A transfer that
// has begun is sent to its end or the connection is closed: a receiver that no longer wants it swallows the rest. A
// connection that was cut is dialled again; every message can be repeated after a new ParticipantHello, and repeating
// changes nothing.

#include <functional>
#include <map>
#include <string>
#include <variant>

#include "attest/decision.hpp"
#include "attest/run_order.hpp"
#include "protocols/messages/messages.pb.h"
#include "protocols/round/receipt.hpp"

namespace cloister::protocols::round {

/// Every control message of a round.
using Message = std::variant<messages::ParticipantHello, messages::Offer, messages::Accept, messages::Decline,
                             messages::ModelRequest, messages::Transfer, messages::Update, messages::Resume,
                             messages::UpdateStored, messages::UpdateRefused, messages::Receipt, messages::Acknowledge,
                             messages::Committed, messages::RunEnd, messages::Withdraw, messages::MissedReceipts>;

messages::MessageType type(const Message& message);
std::string_view name(
    messages::MessageType type);  ///< "Offer"; "a message of type 17" is for those that no round knows
const google::protobuf::MessageLite& protobuf(const Message& message);
/// Errors: malformed (does not parse), unsupported (no message of a round).
Result<Message> parse_message(messages::MessageType type, View payload);
/// The run that a message from the aggregator belongs to; nothing for those that belong to the round under way.
std::optional<std::uint64_t> run_of(const Message& message);

messages::Finding to_message(const attest::Finding& finding);
attest::Finding from_message(const messages::Finding& finding);  ///< never `met`; each text as peer_text gives it
/// A peer's findings for this side's log, no more than a few dozen.
std::vector<attest::Finding> refusals(const google::protobuf::RepeatedPtrField<messages::Finding>& findings);
/// A peer's words for logs, receipts and terminals: at most `most` bytes, cut between characters, on one line.
std::string peer_text(std::string_view text, std::size_t most = 300);

/// What the update of a task must look like. The schema's digest and the length follow from the charter (aggregation/).
struct Shape {
  base::Sha256 schema{};
  std::uint64_t length = 0;  ///< bytes of the update
};
using Shapes = std::map<std::string, Shape, std::less<>>;  ///< by task

/// Identifies what was offered: everything in the offer but its deadline. A participant answers one per (run, round),
/// ever.
base::Sha256 offer_digest(const messages::Offer& offer);

/// How a run ended.
enum class Outcome { done, failed, cancelled, refused };
std::string_view name(Outcome outcome);

/// A wait with a name; all lengths derive from the manifest's two deadlines. The side with the clock calls
/// deadline(name).
struct SetDeadline {
  std::string name;  ///< setting a name again replaces it
  std::chrono::milliseconds after{};
};
struct ClearDeadline {
  std::string name;
};
struct Finish {
  Outcome outcome = Outcome::failed;
  std::string reason;
};

}  // namespace cloister::protocols::round

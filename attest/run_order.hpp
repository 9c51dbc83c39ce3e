#pragma once
// What starts a run: a submitter's signed submission, numbered and signed by the coordinator's order key.

#include "attest/charter.hpp"

namespace cloister::attest {

struct RunOrder {
  base::Sha256 charter{};
  std::string submitter;
  Settings settings;            ///< chosen ones; complete_settings fills the rest
  Array<16> nonce{};            ///< makes two equal submissions two
  std::string note;             ///< the submitter's words, shown to every owner
  base::Signature submitted{};  ///< context "cloister submission 1" over the fields above
  std::uint64_t run = 0;        ///< used once under a charter
  base::Signature ordered{};    ///< context "cloister run order 1" over run and the submission with its signature

  Bytes submission() const;  ///< canonical bytes that the submitter signs (docs/formats.md, "Run order")
  void submit(const base::PrivateKey& submitter);                        ///< fills `submitted`
  void number(std::uint64_t run_number, const base::PrivateKey& order);  ///< fills `run` and `ordered`
  Bytes serialize() const;
  /// At most 64 KiB. Checks no signature: judge_order does.
  static Result<RunOrder> parse(View bytes);
  /// Reads the bytes of submission() alone: run is 0, both signatures zero.
  static Result<RunOrder> parse_submission(View bytes);
};

/// Signatures by a submitter of the model owner's policy and by the charter's order key; run within the charter's
/// number; settings inside their ranges. `submitted_before`: runs that this submitter had under this charter, for its
/// quota; who keeps no record of runs leaves it out.
Decision judge_order(const RunOrder& order, const Charter& charter,
                     std::optional<std::uint32_t> submitted_before = std::nullopt);
/// The same without run number and order key: what the coordinator asks before it gives a number.
Decision judge_submission(const RunOrder& order, const Charter& charter, std::optional<std::uint32_t> submitted_before);

}  // namespace cloister::attest

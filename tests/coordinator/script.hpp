#pragma once
// An enclave that plays its part of a run by heart: true record, evidence, receipts and acknowledgements, and named
// ways to lie.

#include <vector>

#include "attest/simulated/platform.hpp"
#include "protocols/channel/frame.hpp"
#include "protocols/round/receipt.hpp"
#include "tests/support/study.hpp"

namespace cloister::tests {

namespace messages = protocols::messages;
using protocols::channel::Frame;

Frame frame(messages::MessageType type, const google::protobuf::MessageLite& message);

/// One instance of a study's aggregator, on a platform that the study's policies list.
struct ScriptedEnclave {
  /// `platform`: the one whose identity the study was made with.
  ScriptedEnclave(const Study& study, const attest::simulated::Platform& platform);

  enum class Lie {
    none,
    foreign_receipt_key,
    too_few_witnesses,
    skipped_round,
    other_result,
    other_order,
    other_evidence,
    early_done
  };

  /// Everything that it says of a run, in order: receipts, results, the final model with its bytes, the end.
  std::vector<Frame> whole_run(const attest::RunOrder& order, Lie lie = Lie::none) const;
  /// A status of a round under way.
  static messages::RunStatus status(std::uint64_t run, std::uint32_t round, const std::string& state);
  /// The bytes of the model that a run publishes.
  static Bytes final_model();
  Bytes attest(const Array<64>& report_data) const;

  const Study& study;
  const attest::simulated::Platform& platform;
  base::PrivateKey tls = base::PrivateKey::generate();
  base::PrivateKey receipt_key = base::PrivateKey::generate();
  Array<32> nonce = base::random_array<32>();
  Array<32> host_data{};
  Bytes record, evidence;
};

/// Study options for a platform, with waits short enough for tests.
StudyOptions quick_study(const attest::simulated::Platform& platform, const std::string& channel_deadline = "2s");
/// "What every run starts from" in these tests, and its digest in quick_study.
Bytes initial_model();

}  // namespace cloister::tests

#include "tests/coordinator/script.hpp"

#include "aggregation/evaluate.hpp"
#include "protocols/launch/documents.hpp"

namespace cloister::tests {

namespace launch = protocols::launch;
namespace round = protocols::round;

Frame frame(messages::MessageType type, const google::protobuf::MessageLite& message) {
  const std::string bytes = message.SerializeAsString();
  return {type, base::copy(base::view(bytes))};
}

Bytes initial_model() {
  return base::copy(base::view("what every run starts from"));
}

Bytes ScriptedEnclave::final_model() {
  return base::copy(base::view("what the run has learned"));
}

StudyOptions quick_study(const attest::simulated::Platform& platform, const std::string& channel_deadline) {
  StudyOptions options;
  options.platform = platform.identity();
  options.initial_model = base::sha256(initial_model());
  options.edits = {{"manifest", "[channel]\ndeadline = \"10s\"", "[channel]\ndeadline = \"" + channel_deadline + "\""},
                   {"manifest", "[round]\ndeadline = \"1m\"", "[round]\ndeadline = \"10s\""}};
  return options;
}

ScriptedEnclave::ScriptedEnclave(const Study& s, const attest::simulated::Platform& p) : study(s), platform(p) {
  record = launch::Record::make(study.charter.digest, tls.public_key(), receipt_key.public_key(), nonce).serialize();
  evidence = attest(launch::instance_report_data(record));
}

Bytes ScriptedEnclave::attest(const Array<64>& report_data) const {
  return platform.attest(base::array<48>(study.charter.manifest.aggregator_measurement), host_data, report_data,
                         base::now());
}

messages::RunStatus ScriptedEnclave::status(std::uint64_t run, std::uint32_t number, const std::string& state) {
  messages::RunStatus out;
  out.set_run(run);
  out.set_round(number);
  out.set_task("train");
  out.set_state(state);
  messages::Member& member = *out.add_members();
  member.set_owner("charite");
  member.set_state("training");
  return out;
}

std::vector<Frame> ScriptedEnclave::whole_run(const attest::RunOrder& order, Lie lie) const {
  const attest::Manifest& manifest = study.charter.manifest;
  const attest::Settings settings = attest::complete_settings(manifest, order.settings).value();
  const aggregation::Evaluation evaluation{3, false, 4, {0, 1, 3}, {2, 1, 0}};
  const auto final_digest = base::sha256(final_model());
  std::vector<Frame> out;
  std::optional<round::SignedReceipt> previous;
  std::optional<base::Sha256> model = manifest.initial_model, statistics;
  const auto tasks = round::schedule(manifest, settings);
  for (std::uint32_t number = 1; number <= tasks.size(); ++number) {
    const auto& [task, train_round] = tasks[number - 1];
    round::Receipt receipt;
    receipt.charter = study.charter.digest;
    receipt.run = order.run;
    receipt.round = number;
    receipt.task = task;
    receipt.train_round = train_round;
    receipt.order = lie == Lie::other_order ? base::Sha256{} : base::sha256(order.serialize());
    receipt.settings = settings;
    receipt.members = round::Members(manifest.data_count());
    receipt.algorithm = manifest.algorithm;
    receipt.kernel_set = "reference";
    receipt.evidence = lie == Lie::other_evidence ? base::Sha256{} : base::sha256(evidence);
    receipt.simulated = true;
    if (previous) receipt.previous = previous->digest;
    receipt.statistics = statistics;
    const Bytes value = task == "evaluate" ? evaluation.serialize() : base::copy(base::view("statistics"));
    if (task != "statistics") receipt.model_in = model;
    if (task == "train") model = final_digest;
    if (task != "statistics") receipt.model_out = model;
    if (task != "train") receipt.result = base::sha256(value);
    if (task == "statistics") statistics = receipt.result;
    const bool forged = lie == Lie::foreign_receipt_key && number == 2;
    const auto signed_receipt =
        round::SignedReceipt::sign(receipt, forged ? base::PrivateKey::generate() : receipt_key);
    if (!(lie == Lie::skipped_round && number == 2)) {
      messages::ReceiptRecord message;
      message.set_receipt(base::text(signed_receipt.serialize()));
      const bool few = lie == Lie::too_few_witnesses && number == 2;
      const std::size_t count = few ? manifest.witness_quorum() - 1 : manifest.witnesses.size();
      for (const std::string& witness : manifest.witnesses)
        if (static_cast<std::size_t>(message.acknowledgements_size()) < count)
          message.add_acknowledgements(base::text(
              round::Acknowledgement::sign(witness, receipt, signed_receipt.digest, *study.keys(witness).witness)
                  .serialize()));
      if (number == 1) {
        message.set_instance_evidence(base::text(evidence));
        message.set_record(base::text(record));
      }
      out.push_back(frame(messages::RECEIPT_RECORD, message));
    }
    previous = signed_receipt;
    if (task == "evaluate") {
      messages::Result result;
      result.set_run(order.run);
      result.set_round(number);
      result.set_kind("evaluate");
      const Bytes published =
          lie == Lie::other_result ? aggregation::Evaluation{3, false, 4, {9, 0, 0}, {0, 0, 9}}.serialize() : value;
      result.set_value(base::text(published));
      result.set_digest(base::text(base::sha256(published)));
      out.push_back(frame(messages::RESULT, result));
    }
    if (lie == Lie::early_done && number == 2) break;
  }
  if (lie != Lie::early_done) {
    messages::Result result;
    result.set_run(order.run);
    result.set_round(previous->receipt.round);
    result.set_kind("model");
    result.set_digest(base::text(final_digest));
    out.push_back(frame(messages::RESULT, result));
    messages::Transfer transfer;
    transfer.set_what("model");
    transfer.set_digest(base::text(final_digest));
    transfer.set_length(final_model().size());
    out.push_back(frame(messages::TRANSFER, transfer));
    out.push_back({messages::DATA, final_model()});
  }
  messages::RunEnd end;
  end.set_run(order.run);
  end.set_outcome("done");
  end.set_final_model(base::text(*model));
  out.push_back(frame(messages::RUN_END, end));
  return out;
}

}  // namespace cloister::tests

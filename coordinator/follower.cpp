#include "coordinator/follower.hpp"

#include "aggregation/evaluate.hpp"
#include "attest/run_order.hpp"

namespace cloister::coordinator {

namespace round = protocols::round;
using protocols::channel::Frame;

namespace {

template <class Message>
Result<Message> parse(const Frame& frame, std::string_view name) {
  Message message;
  if (message.ParseFromArray(frame.payload.data(), static_cast<int>(frame.payload.size()))) return message;
  return base::malformed(std::string(name), "its " + std::to_string(frame.payload.size()) + " bytes do not parse");
}

Result<base::Sha256> digest(const std::string& bytes, std::string_view where) {
  if (bytes.size() != 32)
    return base::malformed(std::string(where), "wanted a digest of 32 bytes; found " + std::to_string(bytes.size()));
  return base::array<32>(base::view(bytes));
}

}  // namespace

struct Follower::Model {
  Published published;
  std::unique_ptr<ModelFile> file;  ///< once its transfer was announced
};

Follower::Follower(const attest::Charter& charter, Store& store, const Run& run, std::function<void()> changed,
                   std::function<void(std::string)> status)
    : charter_(charter),
      store_(store),
      id_(run.id),
      record_(run.record),
      evidence_(run.evidence),
      order_digest_(base::sha256(run.order)),
      receipt_key_(coordinator::receipt_key(charter, run.record).value()),
      changed_(std::move(changed)),
      status_(std::move(status)) {
  if (const auto last = store.receipt(id_, 0)) last_ = round::SignedReceipt::parse(*last).value();
}

Result<std::optional<End>> Follower::on(const Frame& frame, Time at) {
  auto handled = [&](auto message, auto handle) -> Result<std::optional<End>> {
    if (!message) return message.error();
    if (auto result = handle(*message); !result) return result.error();
    return std::optional<End>();
  };
  switch (frame.type) {
    case messages::DATA:
      if (auto kept = on_data(frame.payload, at); !kept) return kept.error();
      return std::optional<End>();
    case messages::RUN_STATUS:
      return handled(parse<messages::RunStatus>(frame, "RunStatus"), [&](const auto& m) { return on_status(m); });
    case messages::RECEIPT_RECORD:
      return handled(parse<messages::ReceiptRecord>(frame, "ReceiptRecord"),
                     [&](const auto& m) { return on_receipt(m, at); });
    case messages::RESULT:
      return handled(parse<messages::Result>(frame, "Result"), [&](const auto& m) { return on_result(m, at); });
    case messages::TRANSFER:
      return handled(parse<messages::Transfer>(frame, "Transfer"), [&](const auto& m) { return on_transfer(m); });
    case messages::RUN_END: {
      auto message = parse<messages::RunEnd>(frame, "RunEnd");
      if (!message) return message.error();
      auto end = on_end(*message);
      if (!end) return end.error();
      return std::optional<End>(*end);
    }
    default:
      return base::malformed("enclave", "a message of type " + std::to_string(frame.type) + " while it runs run " +
                                            std::to_string(id_.run));
  }
}

Result<void> Follower::check_run(std::uint64_t run, std::string_view message) const {
  if (run == id_.run) return {};
  return base::malformed(std::string(message),
                         "wanted run " + std::to_string(id_.run) + "; found run " + std::to_string(run));
}

Result<void> Follower::on_status(const messages::RunStatus& status) {
  if (auto checked = check_run(status.run(), "RunStatus"); !checked) return checked.error();
  status_(status_event(status));
  return {};
}

std::optional<round::SignedReceipt> Follower::receipt(std::uint32_t number) const {
  if (last_ && last_->receipt.round == number) return last_;
  if (!last_ || number == 0 || number > last_->receipt.round) return std::nullopt;
  const auto stored = store_.receipt(id_, number);
  if (!stored) return std::nullopt;
  return round::SignedReceipt::parse(*stored).value();
}

Result<void> Follower::check_instance(const messages::ReceiptRecord& message, Time at) {
  if (message.instance_evidence().empty()) {
    if (evidence_.empty()) return base::untrusted("first receipt", "wanted the instance evidence with it; found none");
    return {};
  }
  if (base::text(record_) != message.record())
    return base::untrusted("instance record",
                           "wanted the record that this connection was judged by; found another one");
  if (!evidence_.empty()) {
    if (base::text(evidence_) == message.instance_evidence()) return {};
    return base::untrusted("instance evidence", "another one came with this run's first receipt");
  }
  const attest::Decision decision = judge_instance(charter_, record_, base::view(message.instance_evidence()), at);
  if (!decision.allowed()) return base::denied("instance evidence", decision.explain());
  evidence_ = base::copy(base::view(message.instance_evidence()));
  store_.set_evidence(id_, evidence_);
  return {};
}

Result<void> Follower::on_receipt(const messages::ReceiptRecord& message, Time at) {
  auto parsed = round::SignedReceipt::parse(base::view(message.receipt()));
  if (!parsed) return parsed.error();
  const std::string where = "receipt of round " + std::to_string(parsed->receipt.round);
  if (auto checked = check_run(parsed->receipt.run, where); !checked) return checked.error();
  if (const auto known = receipt(parsed->receipt.round)) {  // told again after a cut
    if (known->digest == parsed->digest) return {};
    return base::untrusted(where, "the enclave showed another receipt for this round before; one of the two is a fork");
  }
  if (auto checked = check_instance(message, at); !checked) return checked.error();
  if (parsed->receipt.evidence != base::sha256(evidence_))
    return base::untrusted(where, "wanted the digest of this run's instance evidence; found another one");
  if (parsed->receipt.order != order_digest_)
    return base::untrusted(where, "order: wanted the order that was given, " + base::digest_text(order_digest_) +
                                      "; found " + base::digest_text(parsed->receipt.order));
  const round::SignedReceipt* previous = last_ ? &*last_ : nullptr;
  if (auto link = round::verify_link(*parsed, previous, charter_, receipt_key_); !link) return link.error();
  Receipt row{parsed->receipt.round, base::copy(base::view(message.receipt())), {}};
  for (const std::string& acknowledgement : message.acknowledgements())
    row.acknowledgements.push_back(base::copy(base::view(acknowledgement)));
  if (auto quorum = round::verify_quorum(*parsed, row.acknowledgements, charter_); !quorum) return quorum.error();
  auto added = store_.add_receipt(
      id_, row, receipt_event(parsed->receipt.json(&charter_.manifest), parsed->digest, row.acknowledgements.size()),
      at);
  if (!added) return added.error();
  last_ = std::move(*parsed);
  changed_();
  return {};
}

bool Follower::published(const base::Sha256& model) const {
  for (const Published& result : store_.results(id_))
    if (result.kind == "model" && result.digest == model) return true;
  return false;
}

Result<void> Follower::keep(const Published& published, std::optional<double> auc, Time at) {
  auto added = store_.add_result(id_, published, result_event(published, auc), at);
  if (!added) return added.error();
  if (*added) changed_();
  return {};
}

Result<void> Follower::on_result(const messages::Result& message, Time at) {
  const std::string where = message.kind() + " of round " + std::to_string(message.round());
  if (auto checked = check_run(message.run(), where); !checked) return checked.error();
  auto announced = digest(message.digest(), where);
  if (!announced) return announced.error();
  // By rule: nothing leaves before its receipt is committed, so a result follows its receipt and is the one it
  // names.
  const auto committed = receipt(message.round());
  if (!committed) return base::untrusted(where, "wanted a committed receipt of that round before it; found none");
  const auto& named = message.kind() == "model" ? committed->receipt.model_out : committed->receipt.result;
  if (!named || *named != *announced)
    return base::untrusted(where, "wanted " + (named ? base::digest_text(*named) : std::string("no such result")) +
                                      " as the receipt says; found " + base::digest_text(*announced));
  Published published{message.round(), message.kind(), base::copy(base::view(message.value())), *announced};
  if (message.kind() == "model") {
    model_ = std::make_shared<Model>(Model{std::move(published), nullptr});
    return {};
  }
  if (base::sha256(published.value) != *announced)
    return base::untrusted(where, "its value is not the one that its digest names");
  std::optional<double> auc;
  if (message.kind() == "evaluate") {
    auto evaluation = aggregation::Evaluation::parse(published.value);
    if (!evaluation) return evaluation.error();
    auc = evaluation->auc();
  }
  return keep(published, auc, at);
}

Result<void> Follower::on_transfer(const messages::Transfer& transfer) {
  if (!model_ || model_->file) return base::malformed("Transfer", "no model was announced before it");
  auto announced = digest(transfer.digest(), "Transfer");
  if (!announced) return announced.error();
  if (*announced != model_->published.digest || transfer.offset() != 0)
    return base::malformed("Transfer", "wanted " + base::digest_text(model_->published.digest) +
                                           " from its start; found " + base::digest_text(*announced) + " from " +
                                           std::to_string(transfer.offset()));
  model_->file = std::make_unique<ModelFile>(store_, transfer.length());
  return {};
}

Result<void> Follower::on_data(View bytes, Time at) {
  if (!model_ || !model_->file) return base::malformed("data", "no transfer was announced before it");
  if (bytes.size() > model_->file->left()) return base::malformed("model", "more bytes than were announced");
  model_->file->write(bytes);
  if (model_->file->left() != 0) return {};
  const auto model = std::exchange(model_, nullptr);
  if (auto kept = model->file->keep(model->published.digest); !kept) return kept.error();
  return keep(model->published, std::nullopt, at);
}

Result<End> Follower::on_end(const messages::RunEnd& end) {
  if (auto checked = check_run(end.run(), "RunEnd"); !checked) return checked.error();
  if (end.outcome() == "cancelled") return End{RunState::cancelled, end.reason()};
  if (end.outcome() != "done")
    return End{RunState::failed, end.reason().empty() ? "the aggregator gave no reason" : end.reason()};
  // "done" is what the receipts say, not what the message says.
  const auto order = attest::RunOrder::parse(store_.run(id_)->order);
  if (!order) return order.error();
  const auto settings = attest::complete_settings(charter_.manifest, order->settings);
  if (!settings) return settings.error();
  const std::uint32_t rounds = round::schedule_length(charter_.manifest, *settings);
  if (round() != rounds)
    return base::untrusted("RunEnd", "wanted " + std::to_string(rounds) + " committed rounds before \"done\"; found " +
                                         std::to_string(round()));
  const auto model = last_ ? last_->receipt.model_out : std::nullopt;
  if (!end.final_model().empty() && (!model || base::text(*model) != end.final_model()))
    return base::untrusted("RunEnd", "its final model is not the last receipt's");
  if (charter_.manifest.publish_model != "never" && model && !published(*model))
    return base::untrusted("RunEnd",
                           "wanted the final model " + base::digest_text(*model) + " before \"done\"; it has not come");
  return End{RunState::done, end.reason()};
}

}  // namespace cloister::coordinator

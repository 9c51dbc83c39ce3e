#include <google/protobuf/stubs/logging.h>

#include "protocols/channel/frame.hpp"
#include "protocols/round/round.hpp"
#include "tests/fuzz/fuzz.hpp"

// A frame as a peer sends it: header, then its message. Every type of a round, and the ones no round knows.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace cloister;
  static const auto silent = google::protobuf::SetLogHandler(nullptr);
  (void)silent;
  if (size < protocols::channel::header_size) return 0;
  const auto header = protocols::channel::decode(base::array<protocols::channel::header_size>(View(data, size)));
  if (!header) return 0;
  const View payload = View(data, size).subspan(protocols::channel::header_size);
  if (auto message = protocols::round::parse_message(header->type, payload)) {
    (void)protocols::round::run_of(*message);
    if (const auto* offer = std::get_if<protocols::messages::Offer>(&*message))
      (void)protocols::round::offer_digest(*offer);
  }
  return 0;
}

std::vector<cloister::Bytes> cloister::fuzz::seeds() {
  using namespace protocols;
  std::vector<Bytes> out;
  const auto add = [&](messages::MessageType type, const google::protobuf::MessageLite& message) {
    Bytes bytes;
    const auto header = channel::encode({type, message.ByteSizeLong()});
    bytes.assign(header.begin(), header.end());
    const std::string body = message.SerializeAsString();
    bytes.insert(bytes.end(), body.begin(), body.end());
    out.push_back(bytes);
  };
  messages::Offer offer;
  offer.set_order(std::string(80, 'o'));
  offer.set_round(3);
  offer.set_task("train");
  offer.set_last_receipt(std::string(32, 'l'));
  offer.add_withdrawals("x");
  add(messages::OFFER, offer);
  messages::Update update;
  update.set_run(1);
  update.set_digest(std::string(32, 'd'));
  update.set_length(100);
  add(messages::UPDATE, update);
  messages::Receipt receipt;
  receipt.set_receipt("r");
  receipt.add_path(std::string(32, 'p'));
  add(messages::RECEIPT, receipt);
  messages::Decline decline;
  decline.add_findings()->set_requirement("study.rounds");
  add(messages::DECLINE, decline);
  messages::MissedReceipts missed;
  missed.add_committed()->set_kind("evaluate");
  add(messages::MISSED_RECEIPTS, missed);
  return out;
}

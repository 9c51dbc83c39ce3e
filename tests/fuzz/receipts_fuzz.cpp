#include "protocols/round/participant.hpp"
#include "protocols/round/receipt.hpp"
#include "tests/fuzz/fuzz.hpp"
#include "tests/support/study.hpp"

namespace {

template <class Document>
void canonical(cloister::View bytes) {
  if (auto parsed = Document::parse(bytes); parsed && !cloister::base::equal(parsed->serialize(), bytes)) std::abort();
}

}  // namespace

// Receipts, acknowledgements, withdrawals: what parses is canonical, and can be shown.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace cloister::protocols::round;
  const cloister::View bytes(data, size);
  canonical<Receipt>(bytes);
  canonical<SignedReceipt>(bytes);
  canonical<Acknowledgement>(bytes);
  canonical<Withdrawal>(bytes);
  canonical<ParticipantRecord>(bytes);
  if (auto receipt = Receipt::parse(bytes)) (void)receipt->json(nullptr);
  return 0;
}

std::vector<cloister::Bytes> cloister::fuzz::seeds() {
  using namespace protocols::round;
  const tests::Study study({.data_owners = {"a", "b", "c"}});
  const auto key = fuzz::key(1);
  Receipt receipt;
  receipt.charter = study.charter.digest;
  receipt.run = 3;
  receipt.round = 2;
  receipt.task = "train";
  receipt.train_round = 1;
  receipt.settings = {{"rounds", 5.0}, {"split", 1.0}};
  receipt.members = Members(3);
  receipt.members.set(1, MemberState::late, "its update was not whole");
  receipt.algorithm = "fedavg";
  receipt.model_in = receipt.model_out = receipt.previous = base::sha256({});
  receipt.kernel_set = "plain";
  const SignedReceipt signed_receipt = SignedReceipt::sign(receipt, key);
  Receipt many = receipt;
  many.members = Members(100);
  for (std::uint32_t place = 0; place < 100; place += 7) many.members.set(place, MemberState::absent, "not connected");
  many.members.set(1, MemberState::withdrawn, "its withdrawal is in force");
  return {receipt.serialize(), many.serialize(), signed_receipt.serialize(),
          Acknowledgement::sign("a", receipt, signed_receipt.digest, key).serialize(),
          Withdrawal::sign("a", study.charter, 1, base::now(), key).serialize()};
}

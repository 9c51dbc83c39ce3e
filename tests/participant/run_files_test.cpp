// What a node goes on from after a restart, made from the ledger alone.
#include "participant/run_files.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/participant/temporary.hpp"

namespace cloister::participant {
namespace {

base::Sha256 digest(std::string_view text) {
  return base::sha256(base::view(text));
}

struct RunFilesTest : ::testing::Test {
  Temporary folder;
  std::shared_ptr<base::Log> log = *base::Log::open("participant test", "", true);
  std::unique_ptr<Ledger> ledger = *Ledger::open(folder.path(), "cardiac", *log);
  const base::Sha256 charter = digest("charter");
  const base::PublicKey key{digest("key")};
  RoundId round(std::uint32_t n) const { return {charter, 4, n}; }
  Charge charge(std::uint32_t n) const {
    return {round(n), "heart", "train", digest("offer " + std::to_string(n)), digest("order"), {"usz"}};
  }
  void restart() {
    ledger.reset();
    ledger = *Ledger::open(folder.path(), "cardiac", *log);
  }
};

TEST_F(RunFilesTest, ARunThatTheLedgerDoesNotKnowHasNoRecord) {
  EXPECT_FALSE(record_of(ledger->state(), {charter, 4}));
  EXPECT_FALSE(unfinished_run(ledger->state(), charter));
}

TEST_F(RunFilesTest, EveryDurableStepOfARoundIsInTheRecordAfterARestart) {
  ASSERT_TRUE(ledger->charge(charge(1), key));
  restart();
  auto record = record_of(ledger->state(), {charter, 4}).value();
  EXPECT_EQ(record.receipt_key, key);
  EXPECT_EQ(record.order, digest("order"));
  EXPECT_EQ(record.answered, 1u);
  EXPECT_EQ(record.offer, digest("offer 1"));
  EXPECT_EQ(record.stored, 0u);

  ASSERT_TRUE(ledger->record_update(round(1), {digest("update"), 600, 40}));
  restart();
  record = record_of(ledger->state(), {charter, 4}).value();
  EXPECT_EQ(record.stored, 1u);
  EXPECT_EQ(record.update, digest("update"));
  EXPECT_EQ(record.update_length, 600u);
  EXPECT_EQ(record.weight, 40u);
  EXPECT_TRUE(record.receipts.empty());

  ASSERT_TRUE(ledger->sign_receipt(round(1), digest("receipt 1"), base::view("receipt 1"), key));
  restart();
  record = record_of(ledger->state(), {charter, 4}).value();
  EXPECT_EQ(record.receipts.at(1), digest("receipt 1"));
  EXPECT_TRUE(record.committed.empty()) << "signed is not committed";

  ASSERT_TRUE(ledger->commit(round(1), digest("receipt 1"), base::view("receipt 1"), {}));
  ASSERT_TRUE(ledger->charge(charge(2), key));
  restart();
  record = record_of(ledger->state(), {charter, 4}).value();
  EXPECT_EQ(base::text(record.committed), "receipt 1");
  EXPECT_EQ(record.answered, 2u);
  EXPECT_EQ(record.stored, 1u);
  EXPECT_EQ(unfinished_run(ledger->state(), charter), 4u);
}

TEST_F(RunFilesTest, AWitnessThatNeverAnsweredAnOfferGoesOnFromWhatItSigned) {
  for (std::uint32_t n = 1; n <= 5; ++n) {
    const std::string receipt = "receipt " + std::to_string(n);
    ASSERT_TRUE(ledger->sign_receipt(round(n), digest(receipt), base::view(receipt), key));
    if (n < 5) {
      ASSERT_TRUE(ledger->commit(round(n), digest(receipt), base::view(receipt), {}));
    }
  }
  restart();
  const auto record = record_of(ledger->state(), {charter, 4}).value();
  EXPECT_EQ(record.receipt_key, key);
  EXPECT_EQ(record.answered, 0u);
  EXPECT_EQ(base::text(record.committed), "receipt 4");
  EXPECT_EQ(record.receipts.at(5), digest("receipt 5"));
}

}  // namespace
}  // namespace cloister::participant

#include "participant/ledger.hpp"

#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.hpp"
#include "participant/store.hpp"
#include "tests/participant/temporary.hpp"

namespace cloister::participant {
namespace {

using ::testing::HasSubstr;

base::Sha256 digest(std::string_view text) {
  return base::sha256(base::view(text));
}
const base::Sha256 charter = digest("charter");
RoundId round(std::uint32_t n, std::uint64_t run = 1) {
  return {charter, run, n};
}
Charge charge(std::uint32_t n, std::string task = "train", std::uint64_t run = 1) {
  return {round(n, run), "cardiac", std::move(task), digest("offer " + std::to_string(n))};
}

struct LedgerTest : ::testing::Test {
  Temporary folder;
  std::string log_path = folder / "log.jsonl";
  std::shared_ptr<base::Log> log = *base::Log::open("participant test", log_path, true);
  std::string file = folder / "cardiac-2026.ledger";

  Result<std::unique_ptr<Ledger>> open() { return Ledger::open(folder.path(), "cardiac-2026", *log); }
  std::string logged() { return base::text(*base::read_file(log_path, 1 << 20)); }
};

TEST_F(LedgerTest, WhatWasChargedIsThereAfterARestart) {
  {
    auto ledger = *open();
    ASSERT_TRUE(ledger->charge(charge(1, "statistics")));
    ASSERT_TRUE(ledger->charge(charge(2)));
    ASSERT_TRUE(ledger->charge(charge(3)));
    ASSERT_TRUE(ledger->charge(charge(4, "evaluate")));
    ASSERT_TRUE(ledger->charge(charge(1, "statistics", 2)));
  }
  auto ledger = *open();
  const attest::Spent spent = ledger->state().spent("cardiac", round(5));
  EXPECT_EQ(spent.rounds, 2u);
  EXPECT_EQ(spent.statistics, 1u);
  EXPECT_EQ(spent.evaluate, 1u);
  EXPECT_EQ(spent.runs, 1u) << "the other run of the study";
  EXPECT_EQ(ledger->state().spent("another study", round(5)).runs, 0u);
}

TEST_F(LedgerTest, TheRoundThatIsAskedAboutDoesNotCountItself) {
  auto ledger = *open();
  ASSERT_TRUE(ledger->charge(charge(2)));
  EXPECT_EQ(ledger->state().spent("cardiac", round(2)).rounds, 0u);
}

TEST_F(LedgerTest, TheSameOfferIsChargedOnce) {
  auto ledger = *open();
  ASSERT_TRUE(ledger->charge(charge(2)));
  const auto size = std::filesystem::file_size(file);
  EXPECT_TRUE(ledger->charge(charge(2)));
  EXPECT_EQ(std::filesystem::file_size(file), size);
}

TEST_F(LedgerTest, ASecondOfferUnderTheSameRoundNumberIsDenied) {
  auto ledger = *open();
  ASSERT_TRUE(ledger->charge(charge(2)));
  Charge other = charge(2);
  other.offer = digest("another model");
  const auto r = ledger->charge(other);
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().kind, Error::Kind::denied);
  EXPECT_THAT(r.error().text(), HasSubstr("run 1 round 2: charged already for another offer"));
}

TEST_F(LedgerTest, ARunThatEndedBeforeAnythingLeftIsNotSpentAndOneThatSentAnUpdateIs) {
  auto ledger = *open();
  ASSERT_TRUE(ledger->charge(charge(1, "train", 1)));
  ASSERT_TRUE(ledger->record_update(round(1, 1), {digest("update"), 6, 40}));
  ASSERT_TRUE(ledger->charge(charge(2, "train", 1)));
  ASSERT_TRUE(ledger->charge(charge(1, "train", 2)));
  EXPECT_EQ(ledger->state().spent("cardiac", round(1, 3)).runs, 2u);
  ASSERT_TRUE(ledger->end_run({charter, 1}, "failed", "the aggregator died"));
  ASSERT_TRUE(ledger->end_run({charter, 2}, "failed", "the aggregator died"));
  EXPECT_EQ(ledger->state().spent("cardiac", round(1, 3)).runs, 1u) << "run 1 sent an update";
  EXPECT_FALSE(ledger->state().round(round(1, 1))->refunded);
  EXPECT_TRUE(ledger->state().round(round(2, 1))->refunded);
  ledger.reset();
  EXPECT_EQ((*open())->state().spent("cardiac", round(1, 3)).runs, 1u);
}

TEST_F(LedgerTest, AnUpdateIsRecordedOnlyAfterItsChargeAndOnlyOnce) {
  auto ledger = *open();
  const StoredUpdate update{digest("update"), 6, 40};
  EXPECT_THAT(ledger->record_update(round(2), update).error().text(), HasSubstr("not charged"));
  ASSERT_TRUE(ledger->charge(charge(2)));
  ASSERT_TRUE(ledger->record_update(round(2), update));
  EXPECT_TRUE(ledger->record_update(round(2), update));
  EXPECT_THAT(ledger->record_update(round(2), {digest("second"), 6, 40}).error().text(),
              HasSubstr("a round is answered once"));
}

TEST_F(LedgerTest, AWitnessSignsOneReceiptPerRoundEvenAfterARestart) {
  ASSERT_TRUE((*open())->sign_receipt(round(2), digest("receipt"), base::view("receipt")));
  auto ledger = *open();
  EXPECT_TRUE(ledger->sign_receipt(round(2), digest("receipt"), base::view("receipt")));
  const auto r = ledger->sign_receipt(round(2), digest("fork"), base::view("fork"));
  ASSERT_FALSE(r);
  EXPECT_THAT(r.error().text(), HasSubstr("a witness signs one receipt per round"));
  EXPECT_EQ(base::text(ledger->state().run({charter, 1})->receipts.at(2)), "receipt");
}

TEST_F(LedgerTest, ARoundBehindTheLastReceiptIsNotDoneAgain) {
  auto ledger = *open();
  ASSERT_TRUE(ledger->sign_receipt(round(3), digest("receipt"), base::view("receipt")));
  EXPECT_THAT(ledger->charge(charge(3)).error().text(), HasSubstr("round 3 has its receipt already"));
  EXPECT_THAT(ledger->charge(charge(2)).error().text(), HasSubstr("a round number is used once"));
  EXPECT_TRUE(ledger->charge(charge(4)));
}

TEST_F(LedgerTest, ARunIsServedOneReceiptKeyEver) {
  const base::PublicKey one{digest("one")};
  const base::PublicKey two{digest("two")};
  ASSERT_TRUE((*open())->serve({charter, 1}, one));
  auto ledger = *open();
  EXPECT_TRUE(ledger->serve({charter, 1}, one));
  const auto r = ledger->serve({charter, 1}, two);
  ASSERT_FALSE(r);
  EXPECT_THAT(r.error().text(), HasSubstr(one.text()));
  EXPECT_THAT(r.error().text(), HasSubstr(two.text()));
  EXPECT_TRUE(ledger->serve({charter, 2}, two));
}

TEST_F(LedgerTest, ARunThatEndedIsNotServedAgain) {
  auto ledger = *open();
  ASSERT_TRUE(ledger->end_run({charter, 1}, "failed", "the aggregator died"));
  EXPECT_THAT(ledger->serve({charter, 1}, base::PublicKey{}).error().text(), HasSubstr("the run has ended (failed)"));
  EXPECT_THAT(ledger->charge(charge(1)).error().text(), HasSubstr("its number is used once"));
}

TEST_F(LedgerTest, AfterASuccessorTheOldCharterGetsNoNewRunButARunningOneFinishes) {
  const base::PublicKey key{digest("key")};
  auto ledger = *open();
  ASSERT_TRUE(ledger->adopt(charter, "cardiac", std::nullopt));
  ASSERT_TRUE(ledger->serve({charter, 1}, key));
  ASSERT_TRUE(ledger->adopt(digest("successor"), "cardiac", charter));
  EXPECT_TRUE(ledger->serve({charter, 1}, key));
  EXPECT_THAT(ledger->serve({charter, 2}, key).error().text(), HasSubstr("has succeeded this one"));
  EXPECT_THAT(ledger->adopt(charter, "cardiac", std::nullopt).error().text(),
              HasSubstr("as the successor of this one"));
}

TEST_F(LedgerTest, AWitnessThatAgreedToASuccessorServesAndWitnessesNoNewRunEvenAfterARestart) {
  const base::PublicKey key{digest("key")};
  {
    auto ledger = *open();
    ASSERT_TRUE(ledger->adopt(charter, "cardiac", std::nullopt));
    ASSERT_TRUE(ledger->serve({charter, 1}, key));
    ASSERT_TRUE(ledger->sign_receipt(round(1, 2), digest("receipt"), {}));
    ASSERT_TRUE(ledger->agree(charter, digest("successor")));
    EXPECT_TRUE(ledger->agree(charter, digest("successor")));
    EXPECT_THAT(ledger->agree(charter, digest("other")).error().text(), HasSubstr("not a second one"));
  }
  auto ledger = *open();
  EXPECT_TRUE(ledger->adopt(charter, "cardiac", std::nullopt)) << "a node may finish what it has begun";
  EXPECT_TRUE(ledger->serve({charter, 1}, key));
  EXPECT_TRUE(ledger->sign_receipt(round(2, 1), digest("receipt"), {})) << "of a run that it serves";
  EXPECT_TRUE(ledger->sign_receipt(round(2, 2), digest("receipt"), {})) << "of a run that it has witnessed";
  EXPECT_THAT(ledger->serve({charter, 3}, key).error().text(), HasSubstr("has succeeded this one; no new run"));
  EXPECT_THAT(ledger->sign_receipt(round(1, 3), digest("receipt"), {}).error().text(),
              HasSubstr("ledger: run 3: charter sha256:"));
  EXPECT_TRUE(ledger->serve({digest("successor"), 1}, key)) << "the successor's runs are its own";
}

TEST_F(LedgerTest, KnowsTheLatestTimeAtWhichATaskWasCharged) {
  Time now = Time{} + std::chrono::hours(9);
  {
    auto ledger = *Ledger::open(folder.path(), "cardiac-2026", *log, [&] { return now; });
    EXPECT_EQ(ledger->state().seen, Time{});
    ASSERT_TRUE(ledger->charge(charge(1)));
    now -= std::chrono::hours(5);
    ASSERT_TRUE(ledger->charge(charge(2)));
    now += std::chrono::hours(50);
    ASSERT_TRUE(ledger->end_run({charter, 1}, "done", "")) << "what was judged by nobody says nothing of the time";
  }
  EXPECT_EQ((*open())->state().seen, Time{} + std::chrono::hours(9));
}

// Every prefix of the file is what some crash may leave: what is whole must be there, what is not must be gone, and the
// ledger must go on.
TEST_F(LedgerTest, ACrashAtAnyByteLeavesTheWholeRecordsAndAWorkingLedger) {
  std::vector<std::uint64_t> ends;  // file sizes after each append
  {
    auto ledger = *open();
    ends.push_back(std::filesystem::file_size(file));
    for (std::uint32_t n = 1; n <= 2; ++n) {
      ASSERT_TRUE(ledger->charge(charge(n)));
      ends.push_back(std::filesystem::file_size(file));
    }
  }
  const Bytes whole = *base::read_file(file, 1 << 20);
  for (std::size_t cut = 0; cut <= whole.size(); ++cut) {
    std::ofstream(file, std::ios::binary)
        .write(reinterpret_cast<const char*>(whole.data()), static_cast<std::streamsize>(cut));
    auto ledger = open();
    ASSERT_TRUE(ledger) << "cut at " << cut << ": " << ledger.error().text();
    const auto charges = std::count_if(ends.begin() + 1, ends.end(), [&](std::uint64_t end) { return end <= cut; });
    ASSERT_EQ((*ledger)->state().rounds.size(), static_cast<std::size_t>(charges)) << "cut at " << cut;
    if (cut % 8 != 0) continue;  // each open and charge waits for the disk
    ASSERT_TRUE((*ledger)->charge(charge(9)));
    ledger->reset();
    ASSERT_EQ((*open())->state().rounds.size(), static_cast<std::size_t>(charges) + 1) << "cut at " << cut;
  }
  EXPECT_THAT(logged(), HasSubstr("ledger_repaired"));
  EXPECT_THAT(logged(), HasSubstr("of a record that a crash cut off"));
}

// A whole round as a node writes it, in as few steps as it does.
Result<void> whole_round(Ledger& ledger, std::uint32_t n) {
  const base::PublicKey key{digest("key")};
  const Bytes receipt(700, static_cast<std::uint8_t>(n));
  const auto id = round(n);
  if (auto r = ledger.charge(charge(n), key); !r) return r;
  if (auto r = ledger.record_update(id, {digest("update"), 6, 40}); !r) return r;
  if (auto r = ledger.sign_receipt(id, base::sha256(receipt), receipt, key); !r) return r;
  return ledger.commit(id, base::sha256(receipt), receipt, {Bytes(300, 1), Bytes(300, 2)});
}

// What a reader sees: how many records of each kind.
struct Seen {
  std::size_t served = 0, charged = 0, updates = 0, receipts = 0, committed = 0;
  explicit Seen(const LedgerState& state) {
    for (const auto& [id, run] : state.runs) served += run.receipt_key ? 1 : 0;
    for (const auto& [id, r] : state.rounds) {
      charged += r.charge ? 1 : 0;
      updates += r.update ? 1 : 0;
      receipts += r.receipt ? 1 : 0;
      committed += r.committed ? 1 : 0;
    }
  }
  bool operator==(const Seen&) const = default;
  std::size_t all() const { return served + charged + updates + receipts + committed; }
};

TEST_F(LedgerTest, EveryPrefixOfTheFileIsAValidStateThatTellsWhatIsWholeInIt) {
  {
    auto ledger = *open();
    ASSERT_TRUE(whole_round(*ledger, 1));
    ASSERT_TRUE(whole_round(*ledger, 2));
  }
  Seen after((*open())->state());
  EXPECT_EQ(after.all(), 9u) << "a run served, two rounds with charge, update, receipt and commit";
  for (std::size_t cut = std::filesystem::file_size(file); cut-- > 0;) {
    std::filesystem::resize_file(file, cut);
    const auto state = Ledger::read(folder.path(), "cardiac-2026");  // as open() does, without mending
    ASSERT_TRUE(state) << "cut at " << cut << ": " << state.error().text();
    const Seen seen(*state);
    ASSERT_LE(seen.all(), after.all()) << "cut at " << cut;
    ASSERT_GE(seen.all() + 1, after.all()) << "cut at " << cut << ": one record less at a time";
    // By rule: the charge stands before the update, the signature before the commit.
    ASSERT_GE(seen.charged, seen.updates);
    ASSERT_GE(seen.receipts, seen.committed);
    ASSERT_GE(seen.served, std::min<std::size_t>(seen.charged, 1));
    after = seen;
  }
  EXPECT_EQ(after.all(), 0u);
}

TEST_F(LedgerTest, SectorsThatWereNeverFilledAreACutOffEndAlsoOfSeveralRecords) {
  std::uint64_t synced = 0;
  {
    auto ledger = *open();
    ASSERT_TRUE(whole_round(*ledger, 1));
    ASSERT_TRUE(ledger->charge(charge(2)));
    synced = std::filesystem::file_size(file);
    const Bytes receipt(700, 7);  // not signed before: receipt and commit are one append of several sectors
    ASSERT_TRUE(ledger->commit(round(2), base::sha256(receipt), receipt, {Bytes(300, 1), Bytes(300, 2)}));
  }
  const Bytes whole = *base::read_file(file, 1 << 20);
  std::size_t tried = 0;
  for (std::size_t from = synced / 512 * 512 + 512; from + 8 <= whole.size(); from += 512, ++tried) {
    Bytes bytes = whole;
    std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(from), bytes.end(), std::uint8_t{0});
    ASSERT_TRUE(base::write_file(file, bytes));
    auto ledger = open();
    ASSERT_TRUE(ledger) << "zeros from " << from << ": " << ledger.error().text();
    EXPECT_TRUE((*ledger)->state().round(round(2))->charge);
    EXPECT_FALSE((*ledger)->state().round(round(2))->committed);
  }
  EXPECT_GE(tried, 2u);
}

TEST_F(LedgerTest, ServingAndChargingAreOneStepAndBothAreRefusedTogether) {
  const base::PublicKey one{digest("one")}, two{digest("two")};
  auto ledger = *open();
  ASSERT_TRUE(ledger->charge(charge(1), one));
  EXPECT_EQ(ledger->state().run({charter, 1})->receipt_key, one);
  const auto size = std::filesystem::file_size(file);
  EXPECT_THAT(ledger->charge(charge(2), two).error().text(), HasSubstr("a participant serves one per run"));
  EXPECT_THAT(ledger->sign_receipt(round(2), digest("receipt"), base::view("receipt"), two).error().text(),
              HasSubstr("a participant serves one per run"));
  Charge other = charge(1);
  other.offer = digest("another model");
  EXPECT_THAT(ledger->charge(other, one).error().text(), HasSubstr("charged already for another offer"));
  EXPECT_EQ(std::filesystem::file_size(file), size) << "a refusal leaves no record";
}

TEST_F(LedgerTest, ACommittedRoundIsKeptWithItsAcknowledgements) {
  {
    auto ledger = *open();
    ASSERT_TRUE(whole_round(*ledger, 1));
    const auto size = std::filesystem::file_size(file);
    ASSERT_TRUE(ledger->commit(round(1), base::sha256(Bytes(700, 1)), Bytes(700, 1), {})) << "the same again";
    EXPECT_EQ(std::filesystem::file_size(file), size);
    EXPECT_THAT(ledger->commit(round(1), digest("fork"), base::view("fork"), {}).error().text(),
                HasSubstr("a witness signs one receipt per round"));
  }
  const auto receipts = *Ledger::read_receipts(folder.path(), "cardiac-2026");
  ASSERT_EQ(receipts.size(), 1u);
  EXPECT_EQ(receipts[0].id, round(1));
  EXPECT_EQ(receipts[0].receipt, Bytes(700, 1));
  EXPECT_EQ(receipts[0].digest, base::sha256(receipts[0].receipt));
  ASSERT_EQ(receipts[0].acknowledgements.size(), 2u);
  EXPECT_EQ(receipts[0].acknowledgements[1], Bytes(300, 2));
}

TEST_F(LedgerTest, BlocksThatWereNeverFilledAreACutOffEnd) {
  { ASSERT_TRUE((*open())->charge(charge(1))); }
  const Bytes whole = *base::read_file(file, 1 << 20);
  for (const std::size_t zeroed : {std::size_t{32}, std::size_t{60}}) {  // the checksum, and some of the payload
    Bytes bytes = whole;
    std::fill(bytes.end() - static_cast<std::ptrdiff_t>(zeroed), bytes.end(), std::uint8_t{0});
    ASSERT_TRUE(base::write_file(file, bytes));
    auto ledger = open();
    ASSERT_TRUE(ledger) << ledger.error().text();
    EXPECT_TRUE((*ledger)->state().rounds.empty());
  }
  Bytes bytes = whole;
  bytes.resize(bytes.size() + 4096);
  ASSERT_TRUE(base::write_file(file, bytes));
  EXPECT_EQ((*open())->state().rounds.size(), 1u);
}

TEST_F(LedgerTest, OneFlippedBitAnywhereIsRefusedAndNothingIsChanged) {
  {
    auto ledger = *open();
    ASSERT_TRUE(ledger->charge(charge(1)));
    ASSERT_TRUE(ledger->charge(charge(2)));
  }
  const Bytes whole = *base::read_file(file, 1 << 20);
  for (std::size_t at = 0; at < whole.size(); ++at) {
    Bytes bytes = whole;
    bytes[at] ^= 0x10;
    std::ofstream(file, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    const auto ledger = open();
    ASSERT_FALSE(ledger) << "flipped at " << at;
    ASSERT_EQ(*base::read_file(file, 1 << 20), bytes) << "changed after a flip at " << at;
    if (at >= 18) {
      ASSERT_THAT(ledger.error().text(), HasSubstr("is damaged"));
    }
  }
}

TEST_F(LedgerTest, TwoNodesCannotHoldOneLedger) {
  auto first = *open();
  const auto second = open();
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().kind, Error::Kind::unavailable);
  EXPECT_THAT(second.error().text(), HasSubstr("another process holds this ledger"));
  EXPECT_TRUE(Ledger::read(folder.path(), "cardiac-2026")) << "a listing needs no lock";
}

TEST_F(LedgerTest, AnotherDataSetsFileIsRefused) {
  { ASSERT_TRUE(open()); }
  std::filesystem::rename(file, folder / "other.ledger");
  const auto r = Ledger::open(folder.path(), "other", *log);
  ASSERT_FALSE(r);
  EXPECT_THAT(r.error().text(), HasSubstr("wanted the ledger of data set \"other\", found that of \"cardiac-2026\""));
}

TEST_F(LedgerTest, AFileOfANewerVersionIsNamed) {
  ASSERT_TRUE(base::write_file(file, base::view("cloister ledger 2\n...")));
  EXPECT_THAT(open().error().text(), HasSubstr("wanted \"cloister ledger 1\" in the first line"));
}

TEST_F(LedgerTest, ADataSetsNameCannotLeaveTheFolder) {
  EXPECT_EQ(ledger_file_name("../../etc/x"), "%2e.%2f..%2fetc%2fx.ledger");
}

TEST_F(LedgerTest, TheListingSaysWhatWasSpent) {
  auto ledger = *open();
  ASSERT_TRUE(ledger->adopt(charter, "cardiac", std::nullopt));
  ASSERT_TRUE(ledger->charge(charge(1)));
  ASSERT_TRUE(ledger->record_update(round(1), {digest("update"), 2048, 40}));
  ASSERT_TRUE(ledger->end_run({charter, 1}, "failed", "the aggregator died"));
  const LedgerState state = *Ledger::read(folder.path(), "cardiac-2026");
  EXPECT_THAT(state.text(), HasSubstr("run 1: failed: the aggregator died"));
  EXPECT_THAT(state.text(), HasSubstr("charged: 1 train, 0 statistics, 0 evaluate; 1 updates of 2 KiB"));
  EXPECT_THAT(state.json(), HasSubstr("\"task\":\"train\""));
}

}  // namespace
}  // namespace cloister::participant

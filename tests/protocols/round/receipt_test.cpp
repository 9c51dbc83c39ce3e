// Receipts, acknowledgements, withdrawals, Merkle paths: what is signed, what is refused, and that any bytes may come.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <limits>
#include <random>

#include "protocols/round/merkle.hpp"
#include "tests/protocols/round/network.hpp"

namespace cloister::tests {
namespace {

using base::Sha256;
using ::testing::HasSubstr;

const Study& study() {
  static const Study one(small_study());
  return one;
}

/// A whole run, once: its committed receipts are what these tests bend.
const Network& a_run() {
  static const Network* one = [] {
    auto* n = new Network(study(), {{"rounds", 2}}, 1);
    n->node("va").down = true;  // three acknowledgements: exactly the quorum
    n->run();
    return n;
  }();
  return *one;
}

std::string chain_error(const std::vector<round::CommittedReceipt>& receipts) {
  const Network& n = a_run();
  auto chain = round::verify_chain(receipts, *n.charter, n.receipt_key.public_key(), n.evidence);
  return chain ? "" : chain.error().text();
}

/// The receipt of a round with something changed, signed again by the genuine receipt key and acknowledged by three
/// witnesses: what an instance could make if the witnesses looked at nothing.
template <class Change>
std::string changed(std::size_t at, Change change) {
  const Network& n = a_run();
  std::vector<round::CommittedReceipt> receipts = n.records;
  round::Receipt r = round::SignedReceipt::parse(receipts[at].receipt).value().receipt;
  change(r);
  const auto s = round::SignedReceipt::sign(std::move(r), n.receipt_key);
  receipts[at] = {s.serialize(), {}};
  for (const char* owner : {"charite", "usz", "ccf"})
    receipts[at].acknowledgements.push_back(
        round::Acknowledgement::sign(owner, s.receipt, s.digest, *study().keys(owner).witness).serialize());
  receipts.resize(at + 1);
  return chain_error(receipts);
}

TEST(Receipt, AWholeRunVerifiesOffline) {
  ASSERT_EQ(a_run().records.size(), 5U);
  EXPECT_EQ(chain_error(a_run().records), "");
}

TEST(Receipt, ParseAfterSerializeIsTheIdentity) {
  for (const auto& c : a_run().records) {
    const auto s = round::SignedReceipt::parse(c.receipt).value();
    EXPECT_EQ(s.serialize(), c.receipt);
    EXPECT_EQ(round::Receipt::parse(s.receipt.serialize()).value().serialize(), s.receipt.serialize());
    EXPECT_EQ(s.digest, base::sha256(s.receipt.serialize()));
    for (const Bytes& a : c.acknowledgements) EXPECT_EQ(round::Acknowledgement::parse(a).value().serialize(), a);
  }
}

TEST(Receipt, OneFlippedBitAnywhereIsDetected) {
  const auto& records = a_run().records;
  for (std::size_t i = 0; i < records[1].receipt.size(); ++i) {
    auto bent = records;
    bent[1].receipt[i] ^= static_cast<std::uint8_t>(1U << (i % 8));
    ASSERT_NE(chain_error(bent), "") << "bit " << i % 8 << " of byte " << i << " of a receipt";
  }
  for (std::size_t i = 0; i < records[1].acknowledgements[0].size(); ++i) {
    auto bent = records;
    bent[1].acknowledgements[0][i] ^= static_cast<std::uint8_t>(1U << (i % 8));
    ASSERT_NE(chain_error(bent), "") << "bit " << i % 8 << " of byte " << i << " of an acknowledgement";
  }
}

TEST(Receipt, ADroppedReceiptIsDetected) {
  for (std::size_t gone = 0; gone + 1 < a_run().records.size(); ++gone) {
    auto bent = a_run().records;
    bent.erase(bent.begin() + static_cast<std::ptrdiff_t>(gone));
    EXPECT_THAT(chain_error(bent),
                HasSubstr("round: wanted " + std::to_string(gone + 1) + ", found " + std::to_string(gone + 2)));
  }
}

TEST(Receipt, SwappedAcknowledgementsAreDetected) {
  auto bent = a_run().records;
  std::swap(bent[1].acknowledgements, bent[2].acknowledgements);
  EXPECT_THAT(chain_error(bent), HasSubstr("wanted run 1 round 2 of the receipt's charter, found run 1 round 3"));
}

TEST(Receipt, OneWitnessCountsOnceAndFewerThanTheQuorumIsNamed) {
  auto bent = a_run().records;
  ASSERT_EQ(bent[0].acknowledgements.size(), 3U);
  bent[0].acknowledgements[2] = bent[0].acknowledgements[1];
  EXPECT_THAT(chain_error(bent), HasSubstr("wanted acknowledgements of 3 of the 4 witnesses, found 2"));
}

TEST(Receipt, AnotherOwnersSignatureIsNoAcknowledgement) {
  auto bent = a_run().records;
  const auto s = round::SignedReceipt::parse(bent[0].receipt).value();
  bent[0].acknowledgements[0] =
      round::Acknowledgement::sign("va", s.receipt, s.digest, *study().keys("usz").witness).serialize();
  EXPECT_THAT(chain_error(bent), HasSubstr("the signature is not by the charter's witness key of va"));
  bent[0].acknowledgements[0] =
      round::Acknowledgement::sign("acme", s.receipt, s.digest, *study().keys("usz").witness).serialize();
  EXPECT_THAT(chain_error(bent), HasSubstr("wanted a witness of the charter, found \"acme\""));
}

TEST(Receipt, ALinkThatDoesNotFollowIsRefusedWithItsField) {
  const Sha256 other = base::sha256(base::view("other"));
  EXPECT_THAT(changed(1, [&](round::Receipt& r) { r.previous = other; }), HasSubstr("previous: wanted sha256:"));
  EXPECT_THAT(changed(1, [&](round::Receipt& r) { r.charter = other; }), HasSubstr("charter: wanted sha256:"));
  EXPECT_THAT(changed(1, [&](round::Receipt& r) { r.run = 2; }), HasSubstr("run: wanted 1, found 2"));
  EXPECT_THAT(changed(1, [&](round::Receipt& r) { r.order = other; }), HasSubstr("order: wanted"));
  EXPECT_THAT(changed(1, [&](round::Receipt& r) { r.task = "evaluate"; }),
              HasSubstr("task: wanted train, found evaluate"));
  EXPECT_THAT(changed(1, [&](round::Receipt& r) { r.train_round = 2; }), HasSubstr("train_round: wanted 1, found 2"));
  EXPECT_THAT(changed(1, [&](round::Receipt& r) { r.settings["rounds"] = 3; }),
              HasSubstr("settings: wanted those of the round before"));
  EXPECT_THAT(changed(0, [&](round::Receipt& r) { r.settings.erase("rounds"); }),
              HasSubstr("settings: wanted every setting"));
  EXPECT_THAT(changed(0, [&](round::Receipt& r) { r.settings["rounds"] = 99; }), HasSubstr("settings: "));
  EXPECT_THAT(changed(1, [&](round::Receipt& r) { r.members = round::Members(3); }),
              HasSubstr("members: wanted the charter's 4 data owners, found 3"));
  EXPECT_THAT(changed(1, [&](round::Receipt& r) { r.members.set(0, round::MemberState::absent); }),
              HasSubstr("wants at least 3 contributors, found 2"));
  EXPECT_THAT(changed(1, [&](round::Receipt& r) { r.algorithm = "fedadam"; }),
              HasSubstr("algorithm: wanted fedavg, found fedadam"));
  EXPECT_THAT(changed(1, [&](round::Receipt& r) { r.epsilon = 4.0; }), HasSubstr("epsilon: wanted none"));
  EXPECT_THAT(changed(1, [&](round::Receipt& r) { r.model_in = other; }), HasSubstr("model_in: wanted"));
  EXPECT_THAT(changed(2, [&](round::Receipt& r) { r.model_in = r.model_out = study().charter.manifest.initial_model; }),
              HasSubstr("model_in: wanted"));
  EXPECT_THAT(changed(2, [&](round::Receipt& r) { r.model_out = other; }), HasSubstr("model_out: wanted"));
  EXPECT_THAT(changed(1, [&](round::Receipt& r) { r.model_out.reset(); }),
              HasSubstr("model_out: wanted the new model's digest, found none"));
  EXPECT_THAT(changed(2, [&](round::Receipt& r) { r.optimizer = other; }), HasSubstr("optimizer: wanted none"));
  EXPECT_THAT(changed(1, [&](round::Receipt& r) { r.statistics.reset(); }), HasSubstr("statistics: wanted sha256:"));
  EXPECT_THAT(changed(0, [&](round::Receipt& r) { r.result.reset(); }), HasSubstr("result: wanted the value's digest"));
  EXPECT_THAT(changed(1, [&](round::Receipt& r) { r.kernel_set = "cuda"; }),
              HasSubstr("kernel_set: wanted cpu, found cuda"));
  EXPECT_THAT(changed(1, [&](round::Receipt& r) { r.evidence = other; }), HasSubstr("evidence: wanted"));
  EXPECT_THAT(changed(1, [&](round::Receipt& r) { r.simulated = false; }),
              HasSubstr("simulated: wanted true, found false"));
  EXPECT_THAT(changed(0, [&](round::Receipt& r) { r.round = 7; }), HasSubstr("round: wanted 1, found 7"));
  EXPECT_EQ(changed(1, [](round::Receipt&) {}), "");
}

TEST(Receipt, SettingsThatAreNoNumbersScheduleNothingAndAreRefused) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const auto& t : round::schedule(study().charter.manifest, {{"rounds", nan}})) EXPECT_EQ(t.task, "statistics");
  EXPECT_THAT(changed(0, [&](round::Receipt& r) { r.settings["rounds"] = nan; }), HasSubstr("settings: "));
}

TEST(Receipt, AWithdrawalHoldsInEveryLaterReceipt) {
  Network n(study(), one_train_round(), 4);
  n.withdrawals = {
      round::Withdrawal::sign("va", study().charter, 1, study().at, *study().keys("va").witness).serialize()};
  n.node("va").withdrawal = n.withdrawals[0];
  n.run();
  n.expect_sound();
  ASSERT_EQ(n.records.size(), 3U);
  round::Receipt r = round::SignedReceipt::parse(n.records[1].receipt).value().receipt;
  EXPECT_EQ(r.members[3].state, round::MemberState::withdrawn);
  r.members.set(3, round::MemberState::absent);
  const auto before = round::SignedReceipt::parse(n.records[0].receipt).value();
  auto link =
      round::verify_link(round::SignedReceipt::sign(r, n.receipt_key), &before, *n.charter, n.receipt_key.public_key());
  ASSERT_FALSE(link.has_value());
  EXPECT_THAT(link.error().text(), HasSubstr("va had withdrawn before, found absent"));
}

TEST(Receipt, ItsJsonNamesEveryFieldForPeople) {
  const std::string json = round::SignedReceipt::parse(a_run().records[1].receipt).value().receipt.json(&study().charter.manifest);
  EXPECT_THAT(json, HasSubstr(R"("round":2,"task":"train","train_round":1)"));
  EXPECT_THAT(json, HasSubstr(R"("state":"absent","reason":"not connected while the round was open")"));
  EXPECT_THAT(json, HasSubstr(R"("clip":"none","noise":"none","epsilon":"none")"));
  EXPECT_THAT(json, HasSubstr(R"("simulated":true)"));
}

TEST(Withdrawal, OnlyItsOwnersWitnessKeyMakesItAndOnlyForThisCharterAndStudy) {
  const auto& charter = study().charter;
  auto good = round::Withdrawal::sign("usz", charter, 2, study().at, *study().keys("usz").witness);
  EXPECT_TRUE(good.verify(charter).has_value());
  const auto back = round::Withdrawal::parse(good.serialize()).value();
  EXPECT_EQ(back.serialize(), good.serialize());
  EXPECT_EQ(back.serial, 2U);
  EXPECT_EQ(back.from, study().at);

  auto forged = round::Withdrawal::sign("usz", charter, 2, study().at, *study().keys("va").witness);
  EXPECT_THAT(forged.verify(charter).error().text(), HasSubstr("not by the witness key of usz"));
  auto stranger = round::Withdrawal::sign("acme", charter, 2, study().at, *study().keys("va").witness);
  EXPECT_THAT(stranger.verify(charter).error().text(), HasSubstr("wanted a data owner of the charter, found \"acme\""));
  auto elsewhere = good;
  elsewhere.study = "other";
  EXPECT_THAT(elsewhere.verify(charter).error().text(), HasSubstr("wanted study heart, found \"other\""));
  elsewhere = good;
  elsewhere.charter[0] ^= 1;
  EXPECT_THAT(elsewhere.verify(charter).error().text(), HasSubstr("wanted charter sha256:"));
}

TEST(Merkle, EveryPathOfEveryTreeHoldsForItsLeafAlone) {
  for (std::size_t count = 1; count <= 17; ++count) {
    std::vector<Sha256> entries;
    for (std::size_t i = 0; i < count; ++i)
      entries.push_back(round::leaf_entry(Array<32>{static_cast<std::uint8_t>(i)}, Sha256{9}));
    const Sha256 root = round::merkle_root(entries);
    for (std::size_t i = 0; i < count; ++i) {
      const auto path = round::merkle_path(entries, i);
      EXPECT_TRUE(round::merkle_verifies(entries[i], i, count, path, root));
      for (std::size_t j = 0; j < count; ++j)
        if (j != i) {
          EXPECT_FALSE(round::merkle_verifies(entries[j], i, count, path, root)) << "another leaf";
          EXPECT_FALSE(round::merkle_verifies(entries[i], j, count, path, root)) << "another place";
        }
      if (!path.empty()) {
        auto shorter = path;
        shorter.pop_back();
        EXPECT_FALSE(round::merkle_verifies(entries[i], i, count, shorter, root));
      }
      auto longer = path;
      longer.push_back(root);
      EXPECT_FALSE(round::merkle_verifies(entries[i], i, count, longer, root));
    }
    EXPECT_FALSE(round::merkle_verifies(entries[0], count, count, {}, root));
  }
}

// RFC 9162 section 2.1.1, written out: MTH({}) is the hash of nothing, MTH of three leaves splits at two.
TEST(Merkle, SmallTreesAreTheDefinitionWrittenOut) {
  EXPECT_EQ(base::hex(round::merkle_root({})), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  auto leaf = [](const Sha256& d) { return base::sha256(base::Writer().u8(0).raw(d).bytes()); };
  auto node = [](const Sha256& l, const Sha256& r) { return base::sha256(base::Writer().u8(1).raw(l).raw(r).bytes()); };
  const std::vector<Sha256> e = {Sha256{1}, Sha256{2}, Sha256{3}};
  EXPECT_EQ(round::merkle_root(std::span(e).first(1)), leaf(e[0]));
  EXPECT_EQ(round::merkle_root(e), node(node(leaf(e[0]), leaf(e[1])), leaf(e[2])));
  EXPECT_EQ(round::merkle_path(e, 0), (std::vector<Sha256>{leaf(e[1]), leaf(e[2])}));
}

/// Parsers take any bytes: no crash, and nothing but the identity is accepted.
template <class Parse>
void any_bytes(const Bytes& good, Parse parse) {
  std::mt19937_64 random(17);
  for (std::size_t length = 0; length < good.size(); ++length) EXPECT_FALSE(parse(View(good).first(length)));
  Bytes longer = good;
  longer.push_back(0);
  EXPECT_FALSE(parse(longer));
  for (int i = 0; i < 4000; ++i) {
    Bytes bent = good;
    for (std::uint64_t n = 1 + random() % 4; n-- > 0;)
      bent[random() % bent.size()] = static_cast<std::uint8_t>(random());
    parse(bent);
    Bytes noise(random() % 300);
    for (auto& b : noise) b = static_cast<std::uint8_t>(random());
    parse(noise);
  }
}

template <class T>
auto parser() {
  return [](View bytes) {
    auto parsed = T::parse(bytes);
    EXPECT_TRUE(!parsed || parsed->serialize() == base::copy(bytes)) << "two encodings of one content";
    return parsed.has_value();
  };
}

TEST(Parsers, TakeAnyBytesAndAcceptOneEncodingOnly) {
  const auto& c = a_run().records[1];
  any_bytes(c.receipt, parser<round::SignedReceipt>());
  any_bytes(round::SignedReceipt::parse(c.receipt).value().receipt.serialize(), parser<round::Receipt>());
  any_bytes(c.acknowledgements[0], parser<round::Acknowledgement>());
  any_bytes(round::Withdrawal::sign("usz", study().charter, 1, study().at, *study().keys("usz").witness).serialize(),
            parser<round::Withdrawal>());
  any_bytes(*a_run().nodes().at("usz").disk.record, parser<round::ParticipantRecord>());
}

}  // namespace
}  // namespace cloister::tests

// What a receipt says of many data owners: small, in one encoding, and refused when it is another.

#include "protocols/round/members.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <random>

#include "protocols/round/merkle.hpp"
#include "protocols/round/receipt.hpp"

namespace cloister::tests {
namespace {

namespace round = protocols::round;
using round::Members;
using round::MemberState;
using ::testing::HasSubstr;

Bytes encoded(const Members& members) {
  base::Writer w;
  members.write(w);
  return std::move(w).bytes();
}

Result<Members> decoded(View bytes) {
  base::Reader r("receipt", bytes);
  Members out = Members::read(r);
  if (auto done = r.finish(); !done) return done.error();
  return out;
}

std::string refused(View bytes) {
  const auto members = decoded(bytes);
  return members ? "taken" : members.error().text();
}

TEST(Members, GoThroughTheirEncodingUnchangedHoweverManyAreMissing) {
  std::mt19937_64 random(7);
  for (const std::uint32_t owners : {1U, 7U, 8U, 9U, 100U, 1000U}) {
    for (const std::uint32_t one_of : {1U, 2U, 10U, 100U, 100'000U}) {
      Members m(owners);
      std::uint32_t contributed = owners;
      for (std::uint32_t place = 0; place < owners; ++place) {
        if (random() % one_of != 0) continue;
        m.set(place, static_cast<MemberState>(2 + random() % 5), random() % 2 == 0 ? "one reason" : "another");
        --contributed;
      }
      SCOPED_TRACE(testing::Message() << owners << " owners, one of " << one_of << " missing");
      const auto back = decoded(encoded(m));
      ASSERT_TRUE(back.has_value()) << back.error().text();
      EXPECT_EQ(*back, m);
      EXPECT_EQ(back->contributors(), contributed);
      std::uint32_t before = 0;
      for (std::uint32_t place = 0; place < owners; ++place) {
        EXPECT_EQ(back->contributors_before(place), before);
        before += (*back)[place].state == MemberState::contributed ? 1 : 0;
      }
    }
  }
}

TEST(Members, SetAgainStandOnceAndAContributorStandsNowhere) {
  Members m(4);
  m.set(2, MemberState::late, "too slow");
  m.set(2, MemberState::absent, "not connected");
  EXPECT_EQ(m[2].state, MemberState::absent);
  EXPECT_EQ(m.others().size(), 1U);
  m.set(2, MemberState::contributed);
  EXPECT_EQ(m, Members(4));
  m.set(3, MemberState::withdrawn, "said so");
  m.set(1, MemberState::withdrawn, "its withdrawal is in force");
  EXPECT_EQ(m.withdrawn(), (Members::Places{1, 3}));
}

TEST(Members, OfTenThousandTakeFewBytes) {
  Members m(10'000);
  EXPECT_EQ(encoded(m).size(), 8U);
  for (std::uint32_t place = 0; place < 10'000; place += 100) m.set(place, MemberState::absent, "not connected");
  EXPECT_LT(encoded(m).size(), 450U) << "a hundred places of four bytes";
  for (std::uint32_t place = 0; place < 10'000; place += 2) m.set(place, MemberState::absent, "not connected");
  EXPECT_LT(encoded(m).size(), 1'300U) << "a bit each";
}

TEST(Members, InAnotherEncodingAreRefusedWithTheReason) {
  const auto group = [](base::Writer& w, std::uint8_t state, std::string_view reason,
                        std::vector<std::uint32_t> places) {
    w.u8(state).field(reason).u32(static_cast<std::uint32_t>(places.size()));
    for (const std::uint32_t place : places) w.u32(place);
  };
  const auto start = [](std::uint32_t owners, std::uint32_t groups) { return base::Writer().u32(owners).u32(groups); };
  auto w = start(100, 2);
  group(w, 2, "a", {1}), group(w, 3, "a", {1});
  EXPECT_THAT(refused(w.bytes()), HasSubstr("members.place: 1 stands twice"));
  w = start(100, 2);
  group(w, 3, "a", {1}), group(w, 2, "a", {2});
  EXPECT_THAT(refused(w.bytes()), HasSubstr("wanted ascending states and reasons"));
  w = start(100, 1);
  group(w, 1, "", {1});
  EXPECT_THAT(refused(w.bytes()), HasSubstr("members.state: wanted 2 to 6, found 1"));
  w = start(100, 1);
  group(w, 2, "a", {});
  EXPECT_THAT(refused(w.bytes()), HasSubstr("wanted 1 to 100 places, found 0"));
  w = start(100, 1);
  group(w, 2, "a", {5, 4});
  EXPECT_THAT(refused(w.bytes()), HasSubstr("wanted ascending places of data owners"));
  w = start(100, 1);
  group(w, 2, "a", {100});
  EXPECT_THAT(refused(w.bytes()), HasSubstr("wanted ascending places of data owners"));
  w = start(12, 1);
  w.u8(2).field("a").u32(2).u8(0b0000'0011).u8(0b0001'0000);
  EXPECT_THAT(refused(w.bytes()), HasSubstr("wanted 2 of 12 bits set, found 3"));
  w = start(12, 1);
  w.u8(2).field("a").u32(2).u8(0b0000'0001).u8(0b0001'0000);
  EXPECT_THAT(refused(w.bytes()), HasSubstr("wanted 2 of 12 bits set, found 2")) << "place 12 is nobody's";
  EXPECT_THAT(refused(start(100'001, 0).bytes()), HasSubstr("at most 100000"));
  EXPECT_THAT(refused(start(100, 65).bytes()), HasSubstr("members.groups: at most 64, found 65"));
}

TEST(MerkleTree, GivesTheRootAndThePathsOfItsDefinition) {
  for (std::size_t n = 1; n <= 40; ++n) {
    std::vector<base::Sha256> entries;
    for (std::size_t i = 0; i < n; ++i) entries.push_back(base::sha256(base::Writer().u64(i).bytes()));
    const round::MerkleTree tree(entries);
    EXPECT_EQ(tree.root(), round::merkle_root(entries)) << n;
    for (std::size_t i = 0; i < n; ++i) {
      EXPECT_EQ(tree.path(i), round::merkle_path(entries, i)) << i << " of " << n;
      EXPECT_TRUE(round::merkle_verifies(entries[i], i, n, tree.path(i), tree.root())) << i << " of " << n;
    }
  }
  EXPECT_EQ(round::MerkleTree({}).root(), round::merkle_root({}));
}

TEST(Schedule, OfARoundIsFoundWithoutTheRoundsBeforeIt) {
  for (const bool statistics : {false, true})
    for (std::uint32_t every = 0; every <= 4; ++every)
      for (std::uint32_t trains = 0; trains <= 9; ++trains) {
        attest::Manifest m;
        if (statistics) m.statistics_kinds = {"mean"};
        if (every > 0) m.evaluate_kinds = {"auc"}, m.evaluate_every = every;
        std::vector<std::string> wanted;  // as docs/formats.md says it, written out
        if (statistics) wanted.emplace_back("statistics 0");
        for (std::uint32_t t = 1; t <= trains; ++t) {
          wanted.push_back("train " + std::to_string(t));
          if (every > 0 && t % every == 0) wanted.push_back("evaluate " + std::to_string(t));
        }
        const attest::Settings settings{{"rounds", trains}};
        std::vector<std::string> found;
        for (std::uint32_t r = 1; const auto task = round::scheduled(m, settings, r); ++r)
          found.push_back(task->task + " " + std::to_string(task->train_round));
        EXPECT_EQ(found, wanted) << trains << " train tasks, an evaluate task after every " << every;
        EXPECT_EQ(round::schedule_length(m, settings), wanted.size());
        EXPECT_FALSE(round::scheduled(m, settings, 0).has_value());
      }
}

}  // namespace
}  // namespace cloister::tests

#include "participant/store.hpp"

#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <thread>

#include "base/file.hpp"
#include "tests/participant/temporary.hpp"

namespace cloister::participant {
namespace {

using ::testing::HasSubstr;

const base::Sha256 charter = base::sha256(base::view("charter"));

RoundId round(std::uint32_t number, std::uint64_t run = 1) {
  return {charter, run, number};
}

Bytes pattern(std::size_t size) {
  Bytes out(size);
  for (std::size_t i = 0; i < size; ++i) out[i] = static_cast<std::uint8_t>(i * 7 + i / 251);
  return out;
}

struct StoreTest : ::testing::Test {
  Temporary folder;
  UpdateStore store = *UpdateStore::open(folder / "updates");

  Bytes bytes_of(const RoundId& id, const StoredUpdate& recorded) {
    const auto stored = store.get(id, recorded);
    if (!stored) throw Exception(stored.error());
    Bytes out(recorded.length);
    stored->read(0, out).value();
    return out;
  }
  std::string file_of(std::uint32_t number) const {
    return folder /
           ("updates/" + base::hex(View(charter).first(8)) + "-run-1-round-" + std::to_string(number) + ".update");
  }
};

TEST_F(StoreTest, GivesBackTheBytesThatWereRecordedOrSaysThatTheyAreOthers) {
  const Bytes update = pattern(1'000'003);
  const StoredUpdate recorded = *store.put(round(1), update, 40);
  EXPECT_EQ(recorded.digest, base::sha256(update));
  EXPECT_EQ(bytes_of(round(1), recorded), update);
  Bytes part(17);
  store.get(round(1), recorded)->read(999'000, part).value();
  EXPECT_TRUE(std::ranges::equal(part, View(update).subspan(999'000, 17)));
  ASSERT_TRUE(store.put(round(1), base::view("AN UPDATE"), 40));
  EXPECT_THAT(store.get(round(1), recorded).error().text(), HasSubstr("found other bytes"));
  store.remove(round(1));
  EXPECT_EQ(store.get(round(1), recorded).error().kind, Error::Kind::unavailable);
}

TEST_F(StoreTest, WhatALaterProcessFindsDamagedOrCutCountsAsLost) {
  const Bytes update = pattern(300'000);
  const StoredUpdate recorded = *store.put(round(1), update, 40);
  store = *UpdateStore::open(folder / "updates");  // as after a restart
  EXPECT_EQ(bytes_of(round(1), recorded), update);

  store = *UpdateStore::open(folder / "updates");
  std::fstream file(file_of(1), std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(299'999);
  file.put('x');
  file.close();
  EXPECT_EQ(store.get(round(1), recorded).error().kind, Error::Kind::untrusted);
  std::filesystem::resize_file(file_of(1), 100);
  EXPECT_THAT(store.get(round(1), recorded).error().text(), HasSubstr("it counts as lost"));
}

// The child shares the memory that an update is taken from and may write it at any moment.
TEST_F(StoreTest, WhatIsStoredHasItsDigestAlsoWhileItsSourceChanges) {
  Bytes shared = pattern(4 << 20);
  std::atomic<bool> stop = false;
  std::jthread child([&] {
    for (std::uint8_t v = 0; !stop; ++v)
      for (std::size_t i = 0; i < shared.size(); i += 4096)
        std::atomic_ref(shared[i]).store(v, std::memory_order_relaxed);
  });
  const StoredUpdate recorded = *store.put(round(1), shared, 1);
  stop = true;
  EXPECT_EQ(base::sha256(bytes_of(round(1), recorded)), recorded.digest);
}

TEST_F(StoreTest, ACommittedRoundsFileIsTheNextOnesAndLeavesNothingOfItselfInIt) {
  const StoredUpdate first = *store.put(round(1), pattern(200'000), 1);
  store.remove(round(1));
  EXPECT_FALSE(store.get(round(1), first));
  const Bytes shorter(1000, 9);
  const StoredUpdate second = *store.put(round(2), shorter, 1);
  EXPECT_EQ(bytes_of(round(2), second), shorter);
  EXPECT_EQ(std::filesystem::file_size(file_of(2)), 1000u);
  const auto files = std::filesystem::directory_iterator(folder / "updates");
  EXPECT_EQ(std::distance(begin(files), end(files)), 1);
}

TEST_F(StoreTest, ARunsUpdatesGoWithTheRunAndNoOthers) {
  const StoredUpdate one = *store.put(round(1, 1), base::view("one"), 1);
  const StoredUpdate eleven = *store.put(round(1, 11), base::view("eleven"), 1);
  store.remove_run({charter, 1});
  EXPECT_FALSE(store.get(round(1, 1), one));
  EXPECT_TRUE(store.get(round(1, 11), eleven));
}

}  // namespace
}  // namespace cloister::participant

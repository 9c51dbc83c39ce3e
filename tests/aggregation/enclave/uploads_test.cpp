#include "aggregation/enclave/uploads.hpp"

#include <fcntl.h>
#include <filesystem>
#include <gmock/gmock.h>
#include <unistd.h>

#include "aggregation/enclave/reducer.hpp"

namespace cloister::enclave {
namespace {

using testing::HasSubstr;

// The unnamed file that was opened last, as the host sees it.
int host_view() {
  int newest = -1;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    const auto target = std::filesystem::read_symlink(entry.path()).string();
    if (target.find("tmp/#") != std::string::npos && target.ends_with("(deleted)"))
      newest = std::max(newest, std::stoi(entry.path().filename().string()));
  }
  return newest;
}

Bytes pattern(std::size_t size) {
  Bytes out(size);
  for (std::size_t i = 0; i < size; ++i) out[i] = static_cast<std::uint8_t>(i * 7 + i / 251);
  return out;
}

Bytes read_all(const SealedFile& file) {
  Bytes out;
  const auto read = file.read([&](View block) -> Result<void> {
    out.insert(out.end(), block.begin(), block.end());
    return {};
  });
  if (!read) throw Exception(read.error());
  return out;
}

TEST(SealedFile, GivesBackWhatItTookBlockByBlock) {
  auto file = SealedFile::make();
  ASSERT_TRUE(file) << file.error().text();
  const Bytes bytes = pattern(1'000'000);
  for (std::size_t at = 0, n = 1; at < bytes.size(); at += n, n = n * 3 % 99'991 + 1)
    ASSERT_TRUE(file->append(View(bytes).subspan(at, std::min(n, bytes.size() - at))));
  EXPECT_EQ(file->size(), bytes.size());
  EXPECT_EQ(read_all(*file), bytes);
}

TEST(SealedFile, ShowsTheHostNothingOfWhatItHolds) {
  auto file = SealedFile::make();
  ASSERT_TRUE(file);
  const Bytes bytes(4096, 0x5a);
  ASSERT_TRUE(file->append(bytes));
  Bytes seen(4096 + 16);
  ASSERT_EQ(::pread(host_view(), seen.data(), seen.size(), 0), static_cast<ssize_t>(seen.size()));
  EXPECT_LT(std::ranges::count(seen, 0x5a), 100);
}

TEST(SealedFile, RefusesABlockThatTheHostChangedSwappedOrCut) {
  auto file = SealedFile::make();
  ASSERT_TRUE(file);
  for (const int i : {1, 2}) ASSERT_TRUE(file->append(Bytes(100, static_cast<std::uint8_t>(i))));
  const int host = host_view();
  Bytes whole(232);
  ASSERT_EQ(::pread(host, whole.data(), whole.size(), 0), 232);

  Bytes changed = whole;
  changed[50] ^= 1;
  ASSERT_EQ(::pwrite(host, changed.data(), changed.size(), 0), 232);
  EXPECT_THAT(file->block(0).error().text(), HasSubstr("do not verify"));

  Bytes swapped(whole.begin() + 116, whole.end());
  swapped.insert(swapped.end(), whole.begin(), whole.begin() + 116);
  ASSERT_EQ(::pwrite(host, swapped.data(), swapped.size(), 0), 232);
  EXPECT_EQ(file->block(0).error().kind, Error::Kind::untrusted);

  ASSERT_EQ(::pwrite(host, whole.data(), whole.size(), 0), 232);
  ASSERT_EQ(::ftruncate(host, 200), 0);
  EXPECT_TRUE(file->block(0));
  EXPECT_THAT(file->block(1).error().text(), HasSubstr("somebody cut it"));
}

std::shared_ptr<const aggregation::UpdateFormat> format_of(std::size_t elements) {
  const auto schema = aggregation::Schema::make({{"weight", {elements}, aggregation::Dtype::float32}});
  return std::make_shared<const aggregation::UpdateFormat>(*aggregation::train_format(*schema, 16.0));
}

TEST(Uploads, KeepSoManyInMemoryAndSealTheOthersAway) {
  Uploads uploads(format_of(1000), 2);
  const Bytes update(4000);
  const auto digest = base::sha256(update);
  for (const auto* owner : {"a", "b", "c", "d"}) ASSERT_EQ(uploads.open(owner, digest).value(), 0u);
  EXPECT_EQ(uploads.slots_taken(), 2u);
  for (const auto* owner : {"a", "b", "c", "d"}) ASSERT_TRUE(uploads.feed(owner, update));
  {
    WholeUpdate a = uploads.take("a"), c = uploads.take("c");
    EXPECT_EQ(uploads.slots_taken(), 2u);  // until it was added
    EXPECT_TRUE(a.complete());
    EXPECT_TRUE(c.complete());
  }
  EXPECT_EQ(uploads.slots_taken(), 1u);
}

TEST(Uploads, GoOnWhereTheyWereCutAndStartAgainForOtherBytes) {
  for (const std::size_t slots : {1, 0}) {
    Uploads uploads(format_of(1000), slots);
    const Bytes update(4000);
    ASSERT_TRUE(uploads.open("a", base::sha256(update)));
    ASSERT_TRUE(uploads.feed("a", View(update).first(1001)));
    EXPECT_EQ(uploads.open("a", base::sha256(update)).value(), 1001u);
    EXPECT_EQ(uploads.open("a", base::sha256(View(update).first(1))).value(), 0u);
  }
}

TEST(Uploads, RefuseAByteTooManyOutOfMemoryTooAndForgetTheUpdate) {
  for (const std::size_t slots : {1, 0}) {
    Uploads uploads(format_of(1000), slots);
    ASSERT_TRUE(uploads.open("a", {}));
    ASSERT_TRUE(uploads.feed("a", Bytes(3999)));
    EXPECT_FALSE(uploads.feed("a", Bytes(2)));
    EXPECT_EQ(uploads.received("a"), 0u);
    EXPECT_THAT(uploads.feed("a", Bytes(1)).error().text(), HasSubstr("no update of it is awaited"));
  }
}

TEST(Uploads, CheckWhatWaitedInASealedFileBeforeItCounts) {
  Uploads uploads(format_of(2), 0);
  Bytes update(8);
  update[2] = 0x80, update[3] = 0x7f;  // +infinity
  ASSERT_TRUE(uploads.open("a", base::sha256(update)));
  ASSERT_TRUE(uploads.feed("a", update));
  EXPECT_THAT(uploads.take("a").complete().error().text(), HasSubstr("element 0: wanted a finite number"));

  ASSERT_TRUE(uploads.open("b", base::sha256(update)));
  ASSERT_TRUE(uploads.feed("b", Bytes(8)));
  EXPECT_EQ(uploads.take("b").complete().error().kind, Error::Kind::untrusted);
}

}  // namespace
}  // namespace cloister::enclave

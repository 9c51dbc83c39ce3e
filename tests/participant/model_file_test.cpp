#include "participant/model_file.hpp"

#include <filesystem>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.hpp"
#include "tests/participant/temporary.hpp"

namespace cloister::participant {
namespace {

using ::testing::HasSubstr;

Bytes pattern(std::size_t size, std::uint8_t seed = 0) {
  Bytes out(size);
  for (std::size_t i = 0; i < size; ++i) out[i] = static_cast<std::uint8_t>(i * 7 + i / 251 + seed);
  return out;
}

struct ModelFileTest : ::testing::Test {
  Temporary folder;
  const Bytes bytes = pattern(700'001);
  const base::Sha256 digest = base::sha256(bytes);

  ModelFile open() const { return std::move(ModelFile::open(folder / "models", 1'000'000).value()); }
  Bytes on_disk(const ModelFile& model) const {
    Bytes file = base::read_file(model.path(), 1'000'000).value();
    file.resize(model.length());
    return file;
  }
};

TEST_F(ModelFileTest, HoldsAModelOnceEveryByteIsThereAndItsDigestHolds) {
  ModelFile model = open();
  EXPECT_FALSE(model.holds());
  model.want(digest, bytes.size()).value();
  for (std::size_t at = 0, n = 1; at < bytes.size(); at += n, n = n * 3 % 99'991 + 1) {
    EXPECT_FALSE(model.holds());
    model.append(View(bytes).subspan(at, std::min(n, bytes.size() - at))).value();
  }
  EXPECT_TRUE(model.holds());
  EXPECT_EQ(on_disk(model), bytes);
  model.want(digest, bytes.size()).value();  // asked for once more: still there
  EXPECT_TRUE(model.holds());
}

TEST_F(ModelFileTest, GoesOnAfterARestartWhereItWas) {
  {
    ModelFile model = open();
    model.want(digest, bytes.size()).value();
    model.append(View(bytes).first(300'000)).value();
  }
  {
    ModelFile model = open();
    model.want(digest, bytes.size()).value();
    EXPECT_EQ(model.received(), 300'000u);
    model.append(View(bytes).subspan(300'000)).value();
    EXPECT_TRUE(model.holds());
    EXPECT_EQ(on_disk(model), bytes);
  }
  EXPECT_TRUE(open().holds());
}

TEST_F(ModelFileTest, StartsAnewForAnotherModel) {
  ModelFile model = open();
  model.want(digest, bytes.size()).value();
  model.append(bytes).value();
  const Bytes other = pattern(bytes.size(), 1);
  model.want(base::sha256(other), other.size()).value();
  EXPECT_FALSE(model.holds());
  EXPECT_EQ(model.received(), 0u);
  EXPECT_EQ(open().received(), 0u);  // also when the node ends here
  model.append(other).value();
  EXPECT_TRUE(model.holds());
  EXPECT_EQ(on_disk(model), other);
}

TEST_F(ModelFileTest, WhatAPowerCutTookIsFoundByTheDigestAndFetchedAgain) {
  {
    ModelFile model = open();
    model.want(digest, bytes.size()).value();
    model.append(View(bytes).first(300'000)).value();
    std::fstream(model.path(), std::ios::in | std::ios::out | std::ios::binary).seekp(4096).write("lost", 4);
  }
  ModelFile model = open();
  model.want(digest, bytes.size()).value();
  model.append(View(bytes).subspan(model.received())).value();
  EXPECT_FALSE(model.holds());
  EXPECT_EQ(model.received(), bytes.size());
  model.restart().value();
  model.append(bytes).value();
  EXPECT_TRUE(model.holds());
}

TEST_F(ModelFileTest, AStateThatMeansNothingIsNoModel) {
  {
    ModelFile model = open();
    model.want(digest, bytes.size()).value();
    model.append(bytes).value();
    base::write_file(model.path() + ".state", base::view("something else")).value();
  }
  ModelFile model = open();
  EXPECT_FALSE(model.holds());
  EXPECT_EQ(model.received(), 0u);
}

TEST_F(ModelFileTest, AskedForMoreRoomThanThereIsSaysSoAtItsStart) {
  const auto model = ModelFile::open(folder / "models", std::uint64_t{1} << 60);
  EXPECT_THAT(model.error().text(), HasSubstr("for the model: "));
}

}  // namespace
}  // namespace cloister::participant

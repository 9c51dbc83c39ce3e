// What is refused while an update arrives, and with which reason.

#include "aggregation/update.hpp"

#include <cmath>
#include <limits>

#include "tests/aggregation/support.hpp"

namespace cloister::aggregation {
namespace {

using testing::bytes_of;
using testing::concatenate;
using ::testing::HasSubstr;
using testing::mixed;
using ::testing::Not;
using testing::stage;
using testing::train;

Bytes mixed_bytes(std::vector<float> a, std::vector<std::int64_t> n, std::vector<double> s) {
  return concatenate(bytes_of(a), bytes_of(n), bytes_of(s));
}

struct Refusal {
  const char* name;
  Bytes bytes;
  const char* reason;
};

class RefusedUpdate : public ::testing::TestWithParam<Refusal> {};

TEST_P(RefusedUpdate, SaysWhyForEveryWayToCutItIntoChunks) {
  for (const std::size_t chunk : {1, 3, 4, 7, 8, 13, 1000}) {
    const auto refused = stage(mixed(), GetParam().bytes, chunk);
    ASSERT_FALSE(refused) << "chunks of " << chunk;
    EXPECT_EQ(refused.error().kind, Error::Kind::malformed);
    EXPECT_EQ(refused.error().text(), GetParam().reason) << "chunks of " << chunk;
  }
}

const double nan = std::nan(""), infinity = std::numeric_limits<double>::infinity();

INSTANTIATE_TEST_SUITE_P(
    Updates, RefusedUpdate,
    ::testing::Values(
        Refusal{"NaN", mixed_bytes({0, NAN, 0}, {1, 1}, {0, 0}),
                "update: tensor \"a\", element 1: wanted a finite number, found NaN or infinity"},
        Refusal{"Infinity", mixed_bytes({0, 0, -INFINITY}, {1, 1}, {0, 0}),
                "update: tensor \"a\", element 2: wanted a finite number, found NaN or infinity"},
        Refusal{"OutOfRange", mixed_bytes({0, 0, 1.0000001f}, {1, 1}, {0, 0}),
                "update: tensor \"a\", element 2: wanted a magnitude of at most 1, found more"},
        Refusal{"NegativeCount", mixed_bytes({0, 0, 0}, {1, -1}, {0, 0}),
                "update: tensor \"n\", element 1: wanted a value from 0 to 1000, found one outside"},
        Refusal{"LargeCount", mixed_bytes({0, 0, 0}, {1001, 1}, {0, 0}),
                "update: tensor \"n\", element 0: wanted a value from 0 to 1000, found one outside"},
        Refusal{"SmallestCount", mixed_bytes({0, 0, 0}, {std::numeric_limits<std::int64_t>::min(), 1}, {0, 0}),
                "update: tensor \"n\", element 0: wanted a value from 0 to 1000, found one outside"},
        Refusal{"DoubleNaN", mixed_bytes({0, 0, 0}, {1, 1}, {0, nan}),
                "update: tensor \"s\", element 1: wanted a finite number, found NaN or infinity"},
        Refusal{"DoubleInfinity", mixed_bytes({0, 0, 0}, {1, 1}, {infinity, 0}),
                "update: tensor \"s\", element 0: wanted a finite number, found NaN or infinity"},
        Refusal{"DoubleOutOfRange", mixed_bytes({0, 0, 0}, {1, 1}, {0, std::nextafter(1e6, 2e6)}),
                "update: tensor \"s\", element 1: wanted a magnitude of at most 1000000, found more"},
        Refusal{"CutOff", mixed_bytes({0, 0, 0}, {1, 1}, {0}), "update: wanted 44 bytes, found 36: it was cut off"},
        Refusal{"Empty", {}, "update: wanted 44 bytes, found 0: it was cut off"},
        Refusal{"TooLong", mixed_bytes({0, 0, 0}, {1, 1}, {0, 0, 0}), "update: wanted 44 bytes, found more"}),
    [](const auto& refusal) { return refusal.param.name; });

TEST(StagedUpdate, AReasonNeverHoldsTheValue) {
  const auto refused = stage(mixed(), mixed_bytes({0, 0, 123.456f}, {1, 1}, {0, 0}));
  EXPECT_THAT(refused.error().text(), Not(HasSubstr("123")));
}

TEST(StagedUpdate, ArrivesTheSameInChunksOfEverySize) {
  const Bytes bytes = mixed_bytes({1, -0.5, 0.25}, {0, 1000}, {-1e6, 3.25});
  for (std::size_t chunk = 1; chunk <= bytes.size(); ++chunk) {
    const auto update = stage(mixed(), bytes, chunk);
    ASSERT_TRUE(update) << update.error().text();
    EXPECT_EQ(update->digest(), base::sha256(bytes));
    EXPECT_EQ(concatenate(update->tensor(0), update->tensor(1), update->tensor(2)), bytes);
  }
}

TEST(StagedUpdate, StaysRefusedWhateverFollows) {
  StagedUpdate slot(train(2));
  ASSERT_FALSE(slot.feed(bytes_of<float>({NAN})));
  EXPECT_THAT(slot.feed(bytes_of<float>({0})).error().text(), HasSubstr("NaN"));
  EXPECT_THAT(std::move(slot).complete({}).error().text(), HasSubstr("NaN"));
}

TEST(StagedUpdate, KnowsWhereACutUploadGoesOn) {
  const Bytes bytes = bytes_of<float>({1, 2, 3});
  StagedUpdate slot(train(3));
  ASSERT_TRUE(slot.feed(View(bytes).first(5)));
  EXPECT_EQ(slot.received(), 5u);
  EXPECT_FALSE(slot.whole());
  ASSERT_TRUE(slot.feed(View(bytes).subspan(slot.received())));
  EXPECT_TRUE(slot.whole());
  EXPECT_TRUE(std::move(slot).complete(base::sha256(bytes)));
}

TEST(StagedUpdate, RefusesBytesOtherThanTheAnnouncedOnes) {
  StagedUpdate slot(train(2));
  ASSERT_TRUE(slot.feed(bytes_of<float>({1, 2})));
  const auto announced = base::sha256(bytes_of<float>({1, 3}));
  const auto refused = std::move(slot).complete(announced);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, Error::Kind::untrusted);
  EXPECT_THAT(refused.error().text(), HasSubstr("wanted the announced digest " + base::digest_text(announced)));
}

TEST(StagedUpdate, ABoundBetweenTwoFloatsIsKeptExactly) {
  // 0.1 is no float: the nearest one lies above it and is therefore outside.
  EXPECT_FALSE(stage(train(1 + 1, 0.1), bytes_of<float>({0, 0.1f})));
  EXPECT_FALSE(stage(train(1 + 1, 0.1), bytes_of<float>({0, -0.1f})));
  EXPECT_TRUE(stage(train(1 + 1, 0.1), bytes_of<float>({0, std::nextafter(0.1f, 0.0f)})));
}

TEST(StagedUpdate, EveryKernelSetRefusesTheSameElement) {
  std::vector<float> values(100'003, 0.5f);
  values[77'777] = 17;
  for (const Kernels& kernels : runnable_kernels())
    EXPECT_THAT(stage(train(values.size()), bytes_of(values), 0, kernels).error().text(), HasSubstr("element 77777"));
}

}  // namespace
}  // namespace cloister::aggregation

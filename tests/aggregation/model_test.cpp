#include "aggregation/model.hpp"

#include <cmath>

#include "base/encoding.hpp"
#include "tests/aggregation/support.hpp"

namespace cloister::aggregation {
namespace {

using ::testing::HasSubstr;

Model small() {
  return {Schema::make({{"weight", {1, 3}, Dtype::float32}, {"bias", {1}, Dtype::float32}}).value(), {1, -2, 3, 0.5}};
}

TEST(Schema, ParsedAfterSerialisedIsTheSame) {
  const Schema schema = testing::mixed()->schema;
  EXPECT_EQ(Schema::parse(schema.serialize()).value(), schema);
  EXPECT_EQ(schema.bytes(), 3 * 4 + 2 * 8 + 2 * 8u);
  EXPECT_EQ(schema.offset(1), 12u);
}

TEST(Schema, ItsEncodingIsTheOneOfTheFormatsPage) {
  const Bytes wanted = base::Writer()
                           .u32(2)
                           .field("weight")
                           .field("float32")
                           .u32(2)
                           .u64(1)
                           .u64(3)
                           .field("bias")
                           .field("float32")
                           .u32(1)
                           .u64(1)
                           .bytes();
  EXPECT_EQ(small().schema.serialize(), wanted);
}

TEST(Schema, OtherNamesShapesTypesOrOrdersAreOtherDigests) {
  const Tensor a{"a", {2, 3}, Dtype::float32}, b{"b", {4}, Dtype::float32};
  const auto digest = [](std::vector<Tensor> tensors) { return Schema::make(std::move(tensors)).value().digest(); };
  const auto same = digest({a, b});
  EXPECT_NE(digest({b, a}), same);
  EXPECT_NE(digest({{"a", {3, 2}, Dtype::float32}, b}), same);
  EXPECT_NE(digest({{"a", {2, 3}, Dtype::float64}, b}), same);
  EXPECT_NE(digest({{"c", {2, 3}, Dtype::float32}, b}), same);
}

TEST(Schema, RefusesWhatIsNoSchema) {
  const auto why = [](std::vector<Tensor> tensors) { return Schema::make(std::move(tensors)).error().text(); };
  EXPECT_THAT(why({}), HasSubstr("schema: has no tensors"));
  EXPECT_THAT(why({{"a", {1}, {}}, {"a", {2}, {}}}), HasSubstr("schema.a: two tensors have this name"));
  EXPECT_THAT(why({{"", {1}, {}}}), HasSubstr("a tensor has no name"));
  EXPECT_THAT(why({{"a", {0}, {}}}), HasSubstr("schema.a: wanted dimensions of at least 1"));
  EXPECT_THAT(why({{"a", {1ull << 33, 1ull << 33}, {}}}), HasSubstr("at most 2^40 bytes"));
  EXPECT_THAT(why({{"a", {1ull << 38}, {}}, {"b", {1}, {}}}), HasSubstr("schema.b"));
}

TEST(Schema, RefusesBytesThatAreCutLeftOverOrUnknown) {
  const Bytes good = small().schema.serialize();
  for (std::size_t n = 0; n < good.size(); ++n) EXPECT_FALSE(Schema::parse(View(good).first(n))) << n;
  EXPECT_THAT(Schema::parse(testing::concatenate(good, Bytes{0})).error().text(), HasSubstr("left over"));
  const Bytes other = base::Writer().u32(1).field("a").field("bfloat16").u32(0).bytes();
  EXPECT_THAT(Schema::parse(other).error().text(), HasSubstr("wanted float32, float64 or int64, found \"bfloat16\""));
}

TEST(Model, ParsedAfterSerialisedIsTheSameAndItsDigestIsTheFiles) {
  const Model model = small();
  const Bytes file = model.serialize();
  EXPECT_EQ(file.size(), model_length(model.schema));
  EXPECT_EQ(model.digest(), base::sha256(file));
  const Model again = parse_model(file).value();
  EXPECT_EQ(again.schema, model.schema);
  EXPECT_EQ(again.values, model.values);
}

TEST(Model, EveryFlippedBitIsAnotherDigest) {
  const Bytes file = small().serialize();
  for (std::size_t i = 0; i < file.size(); ++i) {
    Bytes flipped = file;
    flipped[i] ^= 1;
    const auto model = parse_model(flipped);
    if (model) {
      EXPECT_NE(model->digest(), base::sha256(file)) << "byte " << i;
    }
  }
}

TEST(Model, RefusesWhatIsNoModelFile) {
  const Bytes file = small().serialize();
  EXPECT_THAT(parse_model(base::view("cloister model 2\n....")).error().text(),
              HasSubstr("wanted \"cloister model 1\""));
  EXPECT_THAT(parse_model(View(file).first(file.size() - 1)).error().text(),
              HasSubstr("wanted 16 bytes of values, found 15"));
  EXPECT_THAT(parse_model(testing::concatenate(file, Bytes{0})).error().text(), HasSubstr("found 17"));
  Model broken = small();
  broken.values[3] = NAN;
  EXPECT_THAT(parse_model(broken.serialize()).error().text(),
              HasSubstr("tensor \"bias\", element 0: wanted a finite number"));
  Model wide{Schema::make({{"a", {1}, Dtype::int64}}).value(), {0, 0}};
  EXPECT_THAT(parse_model(wide.serialize()).error().text(), HasSubstr("wanted float32, found int64"));
}

}  // namespace
}  // namespace cloister::aggregation

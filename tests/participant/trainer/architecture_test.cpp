#include "participant/trainer/architecture.hpp"

#include "tests/participant/trainer/support.hpp"

namespace cloister::participant::trainer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> listed(const attest::Manifest& m) {
  std::vector<std::string> out;
  for (const aggregation::Tensor& t : Architecture::of(m).value().tensors()) {
    std::string shape;
    for (const std::uint64_t d : t.shape) shape += " " + std::to_string(d);
    out.push_back(t.name + shape);
  }
  return out;
}

attest::Manifest image(std::vector<std::uint32_t> shape, std::vector<std::uint32_t> channels, std::size_t pixels) {
  attest::Manifest m;
  m.architecture = "cnn";
  m.image = std::move(shape);
  m.hidden = std::move(channels);
  for (std::size_t i = 0; i < pixels; ++i) m.columns.push_back({"p" + std::to_string(i), "number", {}, {}});
  return m;
}

TEST(Architecture, LogisticRegressionIsOneLinearLayer) {
  EXPECT_THAT(listed(testing::manifest()), ElementsAre("linear.weight 1 7", "linear.bias 1"));
}

TEST(Architecture, AnMlpHasItsHiddenLayersFirst) {
  EXPECT_THAT(listed(testing::manifest("mlp", {8, 4})),
              ElementsAre("hidden.0.weight 8 7", "hidden.0.bias 8", "hidden.1.weight 4 8", "hidden.1.bias 4",
                          "linear.weight 1 4", "linear.bias 1"));
}

TEST(Architecture, ACnnPoolsAfterEachConvolution) {
  EXPECT_THAT(listed(image({1, 9, 8}, {4, 6}, 72)),
              ElementsAre("conv.0.weight 4 1 3 3", "conv.0.bias 4", "conv.1.weight 6 4 3 3", "conv.1.bias 6",
                          "linear.weight 1 24", "linear.bias 1"));
}

TEST(Architecture, AnImageThatDoesNotFitIsRefused) {
  EXPECT_THAT(
      Architecture::of(image({1, 8, 8}, {4}, 63)).error().text(),
      HasSubstr("model.image: wanted channels, height and width of 63 pixels, one per column, found [1, 8, 8]"));
  EXPECT_THAT(Architecture::of(image({1, 2, 2}, {4, 4}, 4)).error().text(),
              HasSubstr("model.hidden: 2 times pooling leaves nothing of 2 x 2 pixels"));
}

TEST(Architecture, AManifestThatPinsOtherTensorsIsRefusedWithTheFirstThatDiffers) {
  attest::Manifest m = testing::manifest();
  const Architecture architecture = Architecture::of(m).value();
  EXPECT_TRUE(pinned_schema(architecture, m));
  m.tensors[0].shape = {1, 6};
  EXPECT_THAT(
      pinned_schema(architecture, m).error().text(),
      HasSubstr("tensor 0: a logistic-regression of 7 features has linear.weight [1, 7] float32, the manifest pins "
                "linear.weight [1, 6] float32"));
  m.tensors.pop_back();
  m.tensors[0].shape = {1, 7};
  EXPECT_THAT(pinned_schema(architecture, m).error().text(), HasSubstr("the manifest pins none"));
}

TEST(Architecture, ItsTensorsAreWrittenAsAManifestReadsThem) {
  EXPECT_EQ(tensors_toml(aggregation::Schema::make({{"linear.weight", {1, 7}, {}}, {"linear.bias", {1}, {}}}).value()),
            "[[model.tensors]]\nname = \"linear.weight\"\nshape = [1, 7]\ndtype = \"float32\"\n"
            "[[model.tensors]]\nname = \"linear.bias\"\nshape = [1]\ndtype = \"float32\"\n");
}

}  // namespace
}  // namespace cloister::participant::trainer

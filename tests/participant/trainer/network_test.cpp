// Training against formulas worked out without libtorch.

#include "participant/trainer/network.hpp"

#include "tests/participant/trainer/support.hpp"

namespace cloister::participant::trainer {
namespace {

struct Sample {
  std::vector<float> features;
  std::vector<std::uint8_t> labels;
};

Sample sample(std::size_t n, std::size_t width, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  Sample out;
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t f = 0; f < width; ++f) out.features.push_back(normal(random));
    out.labels.push_back(out.features[i * width] + 0.5f * normal(random) > 0);
  }
  return out;
}

Architecture logistic(std::uint64_t features) {
  return {Architecture::Kind::logistic_regression, features, {}, {}};
}

/// Full-batch steps of w -= lr * (mean (p - y) x + decay w + mu (w - w_before)), in doubles.
std::vector<double> by_hand(const Sample& s, std::size_t width, std::vector<double> w, const Training& t) {
  const std::vector<double> before = w;
  const double n = static_cast<double>(s.labels.size());
  for (std::uint32_t epoch = 0; epoch < t.epochs; ++epoch) {
    std::vector<double> gradient(width + 1);
    for (std::size_t i = 0; i < s.labels.size(); ++i) {
      double z = w[width];
      for (std::size_t f = 0; f < width; ++f) z += w[f] * s.features[i * width + f];
      const double wrong = (1 / (1 + std::exp(-z)) - s.labels[i]) / n;
      for (std::size_t f = 0; f < width; ++f) gradient[f] += wrong * s.features[i * width + f];
      gradient[width] += wrong;
    }
    for (std::size_t f = 0; f <= width; ++f)
      w[f] -= t.learning_rate * (gradient[f] + t.weight_decay * w[f] + t.mu * (w[f] - before[f]));
  }
  return w;
}

TEST(Network, LogisticRegressionFollowsTheFormulaOfItsGradient) {
  const Sample s = sample(40, 3, 1);
  for (const Training& t : {Training{.epochs = 1, .learning_rate = 0.5}, Training{.epochs = 7, .learning_rate = 0.3},
                            Training{.epochs = 7, .learning_rate = 0.3, .weight_decay = 0.2, .mu = 0.7}}) {
    Network network(logistic(3), 0);
    network.load(std::vector<float>{0.5f, -0.25f, 1, 0.125f});
    const auto wanted = by_hand(s, 3, {0.5, -0.25, 1, 0.125}, t);
    network.train(s.features, s.labels, t);
    for (std::size_t i = 0; i < 4; ++i) EXPECT_NEAR(network.values()[i], wanted[i], 1e-5);
  }
}

TEST(Network, TheLossIsTheMeanCrossEntropy) {
  const Sample s = sample(10, 2, 2);
  Network network(logistic(2), 0);
  EXPECT_NEAR(network.train(s.features, s.labels, {}), std::log(2), 1e-6);  // all weights zero: every p is a half
}

TEST(Network, ScoresAreProbabilities) {
  Network network(logistic(2), 0);
  network.load(std::vector<float>{1, 2, -0.5f});
  const auto scores = network.scores(std::vector<float>{0, 0, 1, 1, -9, -9});
  EXPECT_NEAR(scores[0], 1 / (1 + std::exp(0.5)), 1e-6);
  EXPECT_NEAR(scores[1], 1 / (1 + std::exp(-2.5)), 1e-6);
  EXPECT_LT(scores[2], 1e-6);
  EXPECT_TRUE(network.scores({}).empty());
}

double share_right(Network& network, const Sample& s) {
  const auto scores = network.scores(s.features);
  double right = 0;
  for (std::size_t i = 0; i < scores.size(); ++i) right += (scores[i] > 0.5f) == (s.labels[i] != 0);
  return right / static_cast<double>(scores.size());
}

TEST(Network, AnMlpLearnsWhatNoLineSeparates) {
  Sample s = sample(400, 2, 3);
  for (std::size_t i = 0; i < s.labels.size(); ++i)
    s.labels[i] = (s.features[2 * i] > 0) == (s.features[2 * i + 1] > 0);
  const Training t{.epochs = 60, .batch_size = 20, .learning_rate = 0.3};
  Network mlp({Architecture::Kind::mlp, 2, {16}, {}}, 1), line(logistic(2), 1);
  mlp.train(s.features, s.labels, t);
  line.train(s.features, s.labels, t);
  EXPECT_GT(share_right(mlp, s), 0.93);
  EXPECT_LT(share_right(line, s), 0.65);
}

TEST(Network, ACnnFindsAMarkWhereverItStands) {
  std::mt19937_64 random(4);
  Sample s;
  for (int i = 0; i < 200; ++i) {
    std::vector<float> image(64);
    for (float& pixel : image) pixel = static_cast<float>(random() % 100) / 400.0f;
    const bool marked = random() % 2 == 0;
    const std::size_t at = (random() % 7) * 8 + random() % 7;
    if (marked) image[at] = image[at + 1] = image[at + 8] = image[at + 9] = 1;
    s.features.insert(s.features.end(), image.begin(), image.end());
    s.labels.push_back(marked);
  }
  Network cnn({Architecture::Kind::cnn, 64, {4, 4}, {1, 8, 8}}, 2);
  cnn.train(s.features, s.labels, {.epochs = 40, .batch_size = 20, .learning_rate = 0.1});
  EXPECT_GT(share_right(cnn, s), 0.95);
}

TEST(Network, TheSameSeedIsTheSameBitsAndAnotherIsNot) {
  const Sample s = sample(60, 4, 5);
  const Architecture mlp{Architecture::Kind::mlp, 4, {8}, {}};
  const auto trained = [&](std::uint64_t initial, std::uint64_t order) {
    Network network(mlp, initial);
    network.train(s.features, s.labels, {.epochs = 3, .batch_size = 8, .seed = order});
    return network.values();
  };
  EXPECT_EQ(trained(1, 1), trained(1, 1));
  EXPECT_NE(trained(1, 1), trained(1, 2));
  EXPECT_NE(trained(1, 1), trained(2, 1));
}

TEST(Network, LoadedValuesComeBackInTheSchemasOrder) {
  const Architecture mlp{Architecture::Kind::mlp, 3, {2}, {}};
  Network network(mlp, 0);
  std::vector<float> values(3 * 2 + 2 + 2 + 1);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  network.load(values);
  EXPECT_EQ(network.values(), values);
}

TEST(Network, FedProxHoldsTheModelNearWhereItStarted) {
  const Sample s = sample(100, 3, 6);
  double before = 1e9;
  for (const double mu : {0.0, 1.0, 10.0}) {
    Network network(logistic(3), 0);
    network.train(s.features, s.labels, {.epochs = 30, .learning_rate = 0.05, .mu = mu});
    double norm = 0;
    for (const float v : network.values()) norm += v * v;
    EXPECT_LT(norm, before);
    before = norm;
  }
}

TEST(Network, NoRecordsMoveNothing) {
  Network network(logistic(3), 0);
  network.load(std::vector<float>{1, 2, 3, 4});
  network.train({}, {}, {.epochs = 5, .weight_decay = 1});
  EXPECT_EQ(network.values(), (std::vector<float>{1, 2, 3, 4}));
}

}  // namespace
}  // namespace cloister::participant::trainer

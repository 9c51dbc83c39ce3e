#include "aggregation/algorithm.hpp"

#include <cmath>
#include <fmt/format.h>
#include <limits>

#include "base/encoding.hpp"

namespace cloister::aggregation {
namespace {

/// McMahan et al. 2017, Algorithm 1: the next model is the weighted mean of the clients' models, which is this model
/// plus the weighted mean of their deltas. FedProx (Li et al. 2020, Algorithm 2) is the same on the server. Another
/// server learning rate than 1 makes it Reddi et al. 2021, Algorithm 1 with SGD: x_{t+1} = x_t + eta Delta_t.
class FedAvg final : public ServerOptimizer {
 public:
  explicit FedAvg(const Settings& settings) : eta_(settings.at("server_learning_rate")) {}
  void step(std::size_t, std::uint64_t, std::span<float> model, std::span<const double> mean_delta) override {
    for (std::size_t i = 0; i < model.size(); ++i)
      model[i] = static_cast<float>(static_cast<double>(model[i]) + eta_ * mean_delta[i]);
  }
  std::optional<base::Sha256> state() const override { return std::nullopt; }

 private:
  double eta_;
};

/// Reddi et al. 2021, "Adaptive Federated Optimization", Algorithm 2, FedAdam. No bias correction, as there.
class FedAdam final : public ServerOptimizer {
 public:
  FedAdam(const Settings& settings, const Schema& model)
      : eta_(settings.at("server_learning_rate")),
        beta1_(settings.at("beta1")),
        beta2_(settings.at("beta2")),
        tau_(settings.at("tau")) {
    for (const Tensor& tensor : model.tensors()) {
      m_.emplace_back(tensor.elements(), 0.0f);
      // "Initialization: v_{-1} >= tau^2"
      v_.emplace_back(tensor.elements(), static_cast<float>(tau_ * tau_));
    }
  }

  void step(std::size_t tensor, std::uint64_t from, std::span<float> model,
            std::span<const double> mean_delta) override {
    float *m = m_[tensor].data() + from, *v = v_[tensor].data() + from;
    for (std::size_t i = 0; i < model.size(); ++i) {
      const double delta = mean_delta[i];
      // m_t = beta1 m_{t-1} + (1 - beta1) Delta_t
      const double m_t = beta1_ * static_cast<double>(m[i]) + (1 - beta1_) * delta;
      // v_t = beta2 v_{t-1} + (1 - beta2) Delta_t^2
      const double v_t = beta2_ * static_cast<double>(v[i]) + (1 - beta2_) * (delta * delta);
      // x_{t+1} = x_t + eta m_t / (sqrt(v_t) + tau)
      model[i] = static_cast<float>(static_cast<double>(model[i]) + eta_ * m_t / (std::sqrt(v_t) + tau_));
      m[i] = static_cast<float>(m_t);
      v[i] = static_cast<float>(v_t);
    }
  }

  std::optional<base::Sha256> state() const override {
    base::Hasher hasher;
    hasher.add(base::Writer().field("cloister fedadam state 1").bytes());
    for (const auto* moments : {&m_, &v_})
      for (const std::vector<float>& values : *moments)
        hasher.add({reinterpret_cast<const std::uint8_t*>(values.data()), values.size() * sizeof(float)});
    return std::move(hasher).finish();
  }

 private:
  double eta_, beta1_, beta2_, tau_;
  std::vector<std::vector<float>> m_, v_;
};

std::unique_ptr<ServerOptimizer> fedavg(const Settings& settings, const Schema&) {
  return std::make_unique<FedAvg>(settings);
}
std::unique_ptr<ServerOptimizer> fedadam(const Settings& settings, const Schema& model) {
  return std::make_unique<FedAdam>(settings, model);
}

constexpr double unbounded = std::numeric_limits<double>::infinity();
constexpr double positive = std::numeric_limits<double>::min();

}  // namespace

const std::vector<Algorithm>& algorithms() {
  static const std::vector<Algorithm> all{
      {"fedavg",
       "the weighted mean of the participants' models (McMahan et al. 2017)",
       {{"server_learning_rate", 1, positive, unbounded, "eta: factor on the mean delta"}},
       fedavg},
      {"fedprox",
       "FedAvg whose trainers are held near the round's model by a proximal term (Li et al. 2020)",
       {{"server_learning_rate", 1, positive, unbounded, "eta: factor on the mean delta"},
        {"mu", 0.01, 0, unbounded, "strength of the proximal term, told to the trainers"}},
       fedavg},
      {"fedadam",
       "Adam on the server over the weighted mean of the deltas (Reddi et al. 2021)",
       {{"server_learning_rate", 0.01, positive, unbounded, "eta"},
        {"beta1", 0.9, 0, 1, "decay of the first moment"},
        {"beta2", 0.99, 0, 1, "decay of the second moment"},
        {"tau", 1e-3, positive, unbounded, "degree of adaptivity"}},
       fedadam},
  };
  return all;
}

Result<const Algorithm*> find_algorithm(std::string_view name) {
  std::string known;
  for (const Algorithm& algorithm : algorithms()) {
    if (algorithm.name == name) return &algorithm;
    if (!known.empty()) known += ", ";
    known += algorithm.name;
  }
  return base::unsupported("algorithm", fmt::format("wanted one of {}, found \"{}\"", known, name));
}

Result<Settings> check_settings(const Algorithm& algorithm, const Settings& settings) {
  Settings out;
  for (const AlgorithmSetting& s : algorithm.settings) {
    const auto given = settings.find(std::string(s.name));
    const double value = given == settings.end() ? s.otherwise : given->second;
    if (!(value >= s.at_least && value < s.below))
      return base::malformed(
          fmt::format("settings.{}", s.name),
          fmt::format("{} wants at least {} and below {}, found {}", algorithm.name, s.at_least, s.below, value));
    out.emplace(s.name, value);
  }
  return out;
}

Result<void> apply(ServerOptimizer& optimizer, Sum&& sum, const ModelFile& model, ModelFile& next) {
  const auto schema = sum.format();
  if (!(schema->schema == model.schema()) || !(next.schema() == model.schema())) std::abort();
  constexpr float most = std::numeric_limits<float>::max();
  const Kernels kernels = fastest_kernels();
  SumFacts facts;
  std::vector<double> mean;
  std::vector<float> values;
  next.append(next.header());
  return std::move(sum).consume(
      [&](const SumFacts& f) { facts = f; },
      [&](std::size_t tensor, std::uint64_t from, std::span<const std::int64_t> integers) -> Result<void> {
        // weight < 2^63 / ceil(R * 2^f): times a power of two it stays one rounding away from exact, at worst.
        const double divisor = std::ldexp(static_cast<double>(facts.weight), facts.grid.tensors[tensor].fraction_bits);
        const std::size_t n = integers.size();
        mean.resize(n);
        for (std::size_t i = 0; i < n; ++i) mean[i] = static_cast<double>(integers[i]) / divisor;
        const float* before = model.values().data() + model.schema().offset(tensor) / sizeof(float) + from;
        values.assign(before, before + n);
        optimizer.step(tensor, from, values, mean);
        if (const std::size_t at = kernels.first_outside(values, -most, most); at != n)
          return base::malformed("model", fmt::format("tensor \"{}\", element {}: the step left the finite numbers",
                                                      model.schema().tensors()[tensor].name, from + at));
        next.append({reinterpret_cast<const std::uint8_t*>(values.data()), n * sizeof(float)});
        return {};
      });
}

}  // namespace cloister::aggregation

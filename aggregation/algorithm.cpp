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
  void step(std::size_t, std::span<float> model, std::span<const double> mean_delta) override {
    for (std::size_t i = 0; i < model.size(); ++i)
      model[i] = static_cast<float>(static_cast<double>(model[i]) + eta_ * mean_delta[i]);
  }
  Bytes state() const override { return {}; }

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

  void step(std::size_t tensor, std::span<float> model, std::span<const double> mean_delta) override {
    std::vector<float>&m = m_[tensor], &v = v_[tensor];
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

  Bytes state() const override {
    base::Writer w;
    w.field("cloister fedadam state 1");
    for (const auto* moments : {&m_, &v_})
      for (const std::vector<float>& values : *moments)
        w.raw({reinterpret_cast<const std::uint8_t*>(values.data()), values.size() * sizeof(float)});
    return std::move(w).bytes();
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

Result<void> apply(ServerOptimizer& optimizer, const Report& report, Model& model) {
  if (!(report.schema() == model.schema)) std::abort();
  std::vector<float> next = model.values;
  for (std::size_t t = 0; t < model.schema.tensors().size(); ++t) {
    const std::span<float> values(next.data() + model.schema.offset(t) / sizeof(float), model.tensor(t).size());
    optimizer.step(t, values, report.mean(t));
    for (std::size_t i = 0; i < values.size(); ++i)
      if (!std::isfinite(values[i]))
        return base::malformed("model", fmt::format("tensor \"{}\", element {}: the step left the finite numbers",
                                                    model.schema.tensors()[t].name, i));
  }
  model.values = std::move(next);
  return {};
}

base::Sha256 state_digest(const ServerOptimizer& optimizer) {
  return base::sha256(optimizer.state());
}

}  // namespace cloister::aggregation

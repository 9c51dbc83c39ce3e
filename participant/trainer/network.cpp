#include "participant/trainer/network.hpp"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <cmath>
#include <cstring>
#include <torch/headeronly/version.h>

namespace cloister::participant::trainer {
namespace {

using at::Tensor;

/// One thread and deterministic kernels, once per process, before anything is computed.
void make_deterministic() {
  static const bool once = [] {
    at::set_num_threads(1);
    at::globalContext().setDeterministicAlgorithms(true, false);
    return true;
  }();
  (void)once;
}

std::vector<std::int64_t> signed_shape(const std::vector<std::uint64_t>& shape) {
  return {shape.begin(), shape.end()};
}

/// A tensor that looks at `values` and owns nothing.
Tensor borrow(std::span<const float> values, std::vector<std::int64_t> shape) {
  return at::from_blob(const_cast<float*>(values.data()), shape, at::kFloat);
}

}  // namespace

struct Network::Parts {
  Architecture architecture;
  std::vector<aggregation::Tensor> schema;
  std::vector<Tensor> parameters;  ///< weight and bias in turns, one pair per layer

  Tensor forward(Tensor x) const {
    const std::size_t last = parameters.size() - 2;
    if (architecture.kind == Architecture::Kind::cnn) {
      const auto shape = signed_shape(architecture.image);
      x = x.view({-1, shape[0], shape[1], shape[2]});
    }
    for (std::size_t i = 0; i < last; i += 2) {
      if (architecture.kind == Architecture::Kind::cnn)
        x = at::max_pool2d(at::relu(at::conv2d(x, parameters[i], parameters[i + 1], 1, 1)), 2);
      else
        x = at::relu(at::linear(x, parameters[i], parameters[i + 1]));
    }
    return at::linear(x.flatten(1), parameters[last], parameters[last + 1]).squeeze(1);
  }
};

Network::Network(const Architecture& architecture, std::uint64_t seed) : parts_(std::make_unique<Parts>()) {
  make_deterministic();
  at::manual_seed(seed);
  parts_->architecture = architecture;
  parts_->schema = architecture.tensors();
  double bound = 0;
  for (const aggregation::Tensor& t : parts_->schema) {
    // The bound of a layer's bias is that of its weight: inputs are what the weight's rows hold.
    if (t.shape.size() > 1) bound = 1 / std::sqrt(static_cast<double>(t.elements() / t.shape[0]));
    Tensor p = at::zeros(signed_shape(t.shape), at::kFloat);
    if (architecture.kind != Architecture::Kind::logistic_regression) p.uniform_(-bound, bound);
    parts_->parameters.push_back(p.requires_grad_(true));
  }
}

Network::~Network() = default;
Network::Network(Network&&) noexcept = default;
Network& Network::operator=(Network&&) noexcept = default;

std::vector<float> Network::values() const {
  std::vector<float> out;
  for (const Tensor& p : parts_->parameters) {
    const auto* data = p.const_data_ptr<float>();
    out.insert(out.end(), data, data + p.numel());
  }
  return out;
}

void Network::load(std::span<const float> values) {
  c10::NoGradGuard no_gradients;
  std::size_t at = 0;
  for (Tensor& p : parts_->parameters) {
    const auto n = static_cast<std::size_t>(p.numel());
    if (values.size() - at < n) std::abort();
    p.copy_(borrow(values.subspan(at, n), p.sizes().vec()));
    at += n;
  }
  if (at != values.size()) std::abort();
}

double Network::train(std::span<const float> features, std::span<const std::uint8_t> labels, const Training& training) {
  const auto n = static_cast<std::int64_t>(labels.size());
  if (n == 0) return 0;
  at::manual_seed(training.seed);
  const Tensor x = borrow(features, {n, static_cast<std::int64_t>(parts_->architecture.features)});
  const Tensor y = at::tensor(std::vector<float>(labels.begin(), labels.end()));
  std::vector<Tensor> before;
  for (const Tensor& p : parts_->parameters) before.push_back(p.detach().clone());
  const std::int64_t batch = training.batch_size == 0 ? n : std::min<std::int64_t>(training.batch_size, n);
  double loss_sum = 0;
  std::int64_t batches = 0;
  for (std::uint32_t epoch = 0; epoch < training.epochs; ++epoch) {
    const Tensor order = at::randperm(n);
    loss_sum = 0, batches = 0;
    for (std::int64_t at = 0; at < n; at += batch, ++batches) {
      const Tensor rows = order.slice(0, at, std::min(at + batch, n));
      const Tensor loss =
          at::binary_cross_entropy_with_logits(parts_->forward(x.index_select(0, rows)), y.index_select(0, rows));
      loss_sum += loss.item<double>();
      loss.backward();
      c10::NoGradGuard no_gradients;
      for (std::size_t i = 0; i < before.size(); ++i) {
        Tensor& p = parts_->parameters[i];
        Tensor step = p.grad();
        if (training.weight_decay != 0) step = step + training.weight_decay * p;
        // Li et al. 2020, FedProx, equation 2: h(w; w^t) = F(w) + mu/2 |w - w^t|^2.
        if (training.mu != 0) step = step + training.mu * (p - before[i]);
        p.sub_(training.learning_rate * step);
        p.mutable_grad().reset();
      }
    }
  }
  return batches == 0 ? 0 : loss_sum / static_cast<double>(batches);
}

std::vector<float> Network::scores(std::span<const float> features) {
  c10::NoGradGuard no_gradients;
  const auto width = static_cast<std::int64_t>(parts_->architecture.features);
  const auto n = static_cast<std::int64_t>(features.size()) / width;
  std::vector<float> out(static_cast<std::size_t>(n));
  if (n == 0) return out;
  const Tensor p = at::sigmoid(parts_->forward(borrow(features, {n, width}))).contiguous();
  std::memcpy(out.data(), p.const_data_ptr<float>(), out.size() * sizeof(float));
  return out;
}

std::string torch_version() {
  return TORCH_VERSION;
}

}  // namespace cloister::participant::trainer

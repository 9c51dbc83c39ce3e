#pragma once
// Training and scoring of a built-in architecture. Everything that libtorch does for us is behind these spans:
// network.cpp is the only file that includes its headers, and only those of tensors: <torch/torch.h> takes 22 s and 1.3
// GB of the compiler.
//
// Deterministic on one machine: one thread, deterministic kernels, every random choice from the given seed.

#include <memory>
#include <span>
#include <vector>

#include "participant/trainer/architecture.hpp"

namespace cloister::participant::trainer {

struct Training {
  std::uint32_t epochs = 1;
  std::uint32_t batch_size = 0;  ///< records; 0: all of them
  double learning_rate = 0.1;    ///< of plain SGD
  double weight_decay = 0;
  double mu = 0;           ///< FedProx: adds mu/2 * |w - w_before|^2 to the loss
  std::uint64_t seed = 0;  ///< of the order of the records
};

/// Not thread-safe.
class Network {
 public:
  /// Initial weights: zeros for logistic regression; else uniform in +-1/sqrt(inputs) from `seed` (biases too).
  Network(const Architecture& architecture, std::uint64_t seed);
  ~Network();
  Network(Network&&) noexcept;
  Network& operator=(Network&&) noexcept;

  /// All parameters in the schema's order, as one row of values.
  std::vector<float> values() const;
  void load(std::span<const float> values);

  /// Plain SGD on the mean binary cross entropy with logits. features: labels.size() rows of architecture.features;
  /// labels 0 or 1. Gives the mean loss of the last epoch's batches. With no records nothing changes.
  double train(std::span<const float> features, std::span<const std::uint8_t> labels, const Training& training);
  /// The probability of "positive" for each row.
  std::vector<float> scores(std::span<const float> features);

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

/// "2.13.0"
std::string torch_version();

}  // namespace cloister::participant::trainer

// How fast updates are staged and summed, beside the memory bandwidth of this machine in the same run.
//
//   cloister-bench-aggregation [elements] [participants]
//
// One JSON object on stdout. A figure in GB/s counts bytes of float32 updates (of the copy: bytes copied) by 10^9.

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fmt/format.h>
#include <functional>
#include <random>
#include <thread>

#include "aggregation/sum.hpp"

namespace {

using namespace cloister;
using namespace cloister::aggregation;

/// The best of five, in seconds: the others waited for somebody else.
double best(const std::function<void()>& work) {
  double least = 1e30;
  for (int i = 0; i < 5; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work();
    least = std::min(least, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return least;
}

struct Bench {
  std::shared_ptr<const UpdateFormat> format;
  Bytes update;
  base::Sha256 digest;
  std::size_t participants;
  double gigabytes() const { return static_cast<double>(update.size()) * 1e-9; }
};

Bench make(std::size_t elements, std::size_t participants) {
  std::mt19937_64 random(1);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> values(elements);
  for (float& v : values) v = uniform(random);
  Bytes update(elements * sizeof(float));
  std::memcpy(update.data(), values.data(), update.size());
  auto schema = Schema::make({{"w", {elements}, Dtype::float32}}).value();
  auto format = std::make_shared<const UpdateFormat>(train_format(schema, 16).value());
  const auto digest = base::sha256(update);
  return {std::move(format), std::move(update), digest, participants};
}

CompleteUpdate stage(const Bench& b, const Kernels& kernels, const std::shared_ptr<Pages>& pages) {
  constexpr std::size_t chunk = 1 << 20;  // a DATA frame
  StagedUpdate slot(b.format, kernels, pages);
  for (std::size_t at = 0; at < b.update.size(); at += chunk)
    slot.feed(View(b.update).subspan(at, std::min(chunk, b.update.size() - at))).value();
  return std::move(slot).complete(b.digest).value();
}

std::string run(const Bench& b, const Kernels& kernels, unsigned threads) {
  const Bounds bounds{.contributors_at_most = 1'000'000, .weight_at_most = 5'000};
  const auto pages = std::make_shared<Pages>();
  const double staging = best([&] { stage(b, kernels, pages); });
  const double both = best([&] {
    Sum sum = Sum::make(b.format, bounds, kernels, pages).value();
    for (std::size_t i = 0; i < b.participants; ++i) sum.add(stage(b, kernels, pages), 1 + i, threads).value();
  });
  const double adding = both - static_cast<double>(b.participants) * staging;
  const double n = static_cast<double>(b.participants);
  return fmt::format(
      R"({{"kernels":"{}","threads":{},"stage_gb_s":{:.3f},"add_gb_s":{:.3f},"stage_and_add_gb_s":{:.3f}}})",
      kernels.name, threads, b.gigabytes() / staging, n * b.gigabytes() / adding,
      n * b.gigabytes() / (adding + n * staging));
}

}  // namespace

int main(int argc, char** argv) {
  const std::size_t elements = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 25'000'000;
  const std::size_t participants = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 4;
  if (elements == 0 || participants == 0) return fmt::print(stderr, "wanted elements and participants above 0\n"), 2;
  const Bench b = make(elements, participants);
  Bytes copy(b.update.size());
  const double copying = best([&] { std::memcpy(copy.data(), b.update.data(), copy.size()); });
  const double hashing = best([&] { base::sha256(b.update); });
  std::vector<std::string> runs;
  for (const Kernels& kernels : runnable_kernels())
    for (const unsigned threads : {1u, std::max(2u, std::thread::hardware_concurrency())})
      runs.push_back(run(b, kernels, threads));
  fmt::print(R"({{"elements":{},"participants":{},"copy_gb_s":{:.3f},"sha256_gb_s":{:.3f},"runs":[{}]}})"
             "\n",
             elements, participants, b.gigabytes() / copying, b.gigabytes() / hashing, fmt::join(runs, ","));
}

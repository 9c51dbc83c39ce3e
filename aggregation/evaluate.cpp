#include "aggregation/evaluate.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <numeric>

#include "base/encoding.hpp"

namespace cloister::aggregation {
namespace {

constexpr std::string_view version = "cloister evaluation 1";
constexpr std::uint32_t bins_at_most = 65536;
constexpr double count_at_most = 0x1p40;

void append(Bytes& out, std::uint64_t v) {
  for (int i = 0; i < 8; ++i) out.push_back(static_cast<std::uint8_t>(v >> (8 * i)));
}

std::vector<std::uint64_t> counts(const Report& report, std::string_view tensor) {
  const auto integers = report.integers(report.schema().index(tensor));
  return {integers.begin(), integers.end()};
}

std::size_t bin_of(float score, std::uint32_t bins) {
  const double at = std::clamp(static_cast<double>(score), 0.0, 1.0) * bins;
  return std::min<std::size_t>(static_cast<std::size_t>(at), bins - 1);
}

}  // namespace

Result<UpdateFormat> evaluate_format(std::uint32_t bins) {
  if (bins < 2 || bins > bins_at_most)
    return base::malformed("evaluate.bins", fmt::format("wanted 2 to {}, found {}", bins_at_most, bins));
  auto schema = Schema::make(
      {{"contributors", {1}, Dtype::int64}, {"positives", {bins}, Dtype::int64}, {"negatives", {bins}, Dtype::int64}});
  if (!schema) return schema.error();
  return UpdateFormat{std::move(*schema), {{0, 1}, {0, count_at_most}, {0, count_at_most}}};
}

Bytes evaluate_update(std::uint32_t bins, std::span<const float> scores, std::span<const std::uint8_t> positive,
                      std::uint64_t minimum_count) {
  if (scores.size() != positive.size()) std::abort();
  const bool there = scores.size() >= std::max<std::uint64_t>(minimum_count, 1);
  std::vector<std::uint64_t> positives(bins), negatives(bins);
  if (there)
    for (std::size_t i = 0; i < scores.size(); ++i) ++(positive[i] ? positives : negatives)[bin_of(scores[i], bins)];
  Bytes out;
  append(out, there);
  for (const auto* histogram : {&positives, &negatives})
    for (const std::uint64_t n : *histogram) append(out, n);
  return out;
}

std::optional<double> auc(std::span<const std::uint64_t> positives, std::span<const std::uint64_t> negatives) {
  __extension__ typedef unsigned __int128 Wide;
  if (positives.size() != negatives.size()) std::abort();
  Wide twice = 0;  // twice the number of pairs in order: ties count half
  std::uint64_t below = 0, p = 0;
  for (std::size_t i = 0; i < positives.size(); ++i) {
    twice += static_cast<Wide>(positives[i]) * (2 * static_cast<Wide>(below) + negatives[i]);
    below += negatives[i];
    p += positives[i];
  }
  if (p == 0 || below == 0) return std::nullopt;
  return static_cast<double>(twice) / (2 * static_cast<double>(p) * static_cast<double>(below));
}

Evaluation Evaluation::from(const Report& report, std::uint64_t at_least) {
  Evaluation out;
  out.at_least = std::max<std::uint64_t>(at_least, 1);
  const std::uint64_t contributors = counts(report, "contributors").front();
  if (contributors < out.at_least) return out;
  out.suppressed = false;
  out.contributors = contributors;
  out.positives = counts(report, "positives");
  out.negatives = counts(report, "negatives");
  return out;
}

Bytes Evaluation::serialize() const {
  base::Writer w;
  w.field(version).u64(at_least).u8(suppressed).u64(contributors).u32(static_cast<std::uint32_t>(positives.size()));
  for (const auto* histogram : {&positives, &negatives})
    for (const std::uint64_t n : *histogram) w.u64(n);
  return std::move(w).bytes();
}

Result<Evaluation> Evaluation::parse(View bytes) {
  base::Reader r("evaluation", bytes);
  if (const std::string found = r.string("version", 64); r.ok() && found != version)
    return base::unsupported("evaluation.version", fmt::format("wanted \"{}\", found \"{}\"", version, found));
  Evaluation out;
  out.at_least = r.u64("at_least");
  const std::uint8_t suppressed = r.u8("suppressed");
  if (suppressed > 1) r.fail("suppressed", fmt::format("wanted 0 or 1, found {}", suppressed));
  out.suppressed = suppressed != 0;
  out.contributors = r.u64("contributors");
  const std::uint32_t bins = r.u32("bins");
  if (bins > bins_at_most) r.fail("bins", fmt::format("wanted at most {}, found {}", bins_at_most, bins));
  for (auto* histogram : {&out.positives, &out.negatives})
    for (std::uint32_t i = 0; i < bins && r.ok(); ++i) histogram->push_back(r.u64("count"));
  if (const auto end = r.finish(); !end) return end.error();
  return out;
}

base::Sha256 Evaluation::digest() const {
  return base::sha256(serialize());
}

std::string Evaluation::json() const {
  const auto area = auc();
  return fmt::format(
      R"({{"at_least":{},"suppressed":{},"contributors":{},"positives":[{}],"negatives":[{}],"auc":{}}})", at_least,
      suppressed, contributors, fmt::join(positives, ","), fmt::join(negatives, ","),
      area ? fmt::format("{}", *area) : "null");
}

}  // namespace cloister::aggregation

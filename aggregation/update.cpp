#include "aggregation/update.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <fmt/format.h>
#include <limits>

namespace cloister::aggregation {
namespace {

static_assert(std::endian::native == std::endian::little, "updates are little endian on the wire and in memory");

/// The largest float that is not above `bound`, so that comparing floats with it decides as comparing exact numbers
/// would.
float float_below(double bound) {
  const auto f = static_cast<float>(
      std::clamp<double>(bound, std::numeric_limits<float>::lowest(), std::numeric_limits<float>::max()));
  return static_cast<double>(f) > bound ? std::nextafterf(f, -std::numeric_limits<float>::infinity()) : f;
}

float float_above(double bound) {
  return -float_below(-bound);
}

template <class T>
T load(const std::uint8_t* at) {
  T v;
  std::memcpy(&v, at, sizeof v);
  return v;
}

bool inside(double value, const Range& range) {
  return value >= range.at_least && value <= range.at_most;
}

/// An int64 is compared as an integer: a range of counts is far below 2^53, so its ends are exact.
bool inside(std::int64_t value, const Range& range) {
  return value >= static_cast<std::int64_t>(range.at_least) && value <= static_cast<std::int64_t>(range.at_most);
}

template <class T>
std::uint64_t first_outside(const std::uint8_t* values, std::uint64_t from, std::uint64_t to, const Range& range) {
  for (; from < to; ++from)
    if (!inside(load<T>(values + from * sizeof(T)), range)) break;
  return from;
}

/// "not a finite number" or the range that was left: never the value.
std::string why(const std::uint8_t* value, Dtype dtype, const Range& range) {
  const bool finite =
      dtype == Dtype::int64 || std::isfinite(dtype == Dtype::float32 ? load<float>(value) : load<double>(value));
  if (!finite) return "wanted a finite number, found NaN or infinity";
  if (range.at_least == -range.at_most)
    return fmt::format("wanted a magnitude of at most {}, found more", range.at_most);
  return fmt::format("wanted a value from {} to {}, found one outside", range.at_least, range.at_most);
}

}  // namespace

View CompleteUpdate::tensor(std::size_t index) const {
  return {at(format_->schema.offset(index)), format_->schema.tensors()[index].bytes()};
}

Result<void> CompleteUpdate::bring(std::uint64_t end) {
  while (have_ < end) {
    const auto bytes = reread_();
    if (!bytes) return bytes.error();
    if (bytes->empty() || bytes->size() > memory_.size() - have_)
      return base::untrusted("update", "it does not have the length any more that was checked");
    memory_.reach(have_ + bytes->size());
    std::memcpy(memory_.data() + have_, bytes->data(), bytes->size());
    have_ += bytes->size();
  }
  return {};
}

StagedUpdate::StagedUpdate(std::shared_ptr<const UpdateFormat> format, Kernels kernels, std::shared_ptr<Pages> pages)
    : format_(std::move(format)),
      kernels_(kernels),
      memory_(format_->schema.bytes(), std::move(pages), /*erased=*/true) {
  if (format_->ranges.size() != format_->schema.tensors().size()) std::abort();
}

Result<void> StagedUpdate::feed(View chunk) {
  if (refused_) return *refused_;
  const std::uint64_t wanted = format_->schema.bytes();
  if (chunk.size() > wanted - received_) {
    refused_ = base::malformed("update", fmt::format("wanted {} bytes, found more", wanted));
    return *refused_;
  }
  // In blocks that stay in the cache between copy, digest and check.
  constexpr std::size_t block = 64 << 10;
  while (!chunk.empty()) {
    const View part = chunk.first(std::min(block, chunk.size()));
    chunk = chunk.subspan(part.size());
    memory_.reach(received_ + part.size());
    std::memcpy(memory_.data() + received_, part.data(), part.size());
    hasher_.add(part);
    received_ += part.size();
    if (auto ok = check_to(received_); !ok) {
      refused_ = ok.error();
      return *refused_;
    }
    if (!keep_) memory_.give_back(checked_bytes());
  }
  return {};
}

/// Checks every element that is whole by now and was not checked before.
Result<void> StagedUpdate::check_to(std::uint64_t received) {
  const auto& tensors = format_->schema.tensors();
  while (tensor_ < tensors.size()) {
    const std::uint64_t start = format_->schema.offset(tensor_);
    if (received <= start) return {};
    const std::uint64_t whole =
        std::min(tensors[tensor_].elements(), (received - start) / size(tensors[tensor_].dtype));
    if (auto ok = check(tensor_, element_, whole); !ok) return ok;
    element_ = whole;
    if (whole < tensors[tensor_].elements()) return {};
    ++tensor_;
    element_ = 0;
  }
  return {};
}

Result<void> StagedUpdate::check(std::size_t tensor, std::uint64_t from, std::uint64_t to) const {
  const Tensor& t = format_->schema.tensors()[tensor];
  const Range& range = format_->ranges[tensor];
  const std::uint8_t* values = memory_.data() + format_->schema.offset(tensor);
  const auto* words = reinterpret_cast<const float*>(values);
  std::uint64_t at = to;
  switch (t.dtype) {
    case Dtype::float32:
      at = from +
           kernels_.first_outside({words + from, to - from}, float_above(range.at_least), float_below(range.at_most));
      break;
    case Dtype::float64:
      at = first_outside<double>(values, from, to, range);
      break;
    case Dtype::int64:
      at = first_outside<std::int64_t>(values, from, to, range);
      break;
  }
  if (at == to) return {};
  return base::malformed("update", fmt::format("tensor \"{}\", element {}: {}", t.name, at,
                                               why(values + at * size(t.dtype), t.dtype, range)));
}

std::uint64_t StagedUpdate::checked_bytes() const {
  if (tensor_ == format_->schema.tensors().size()) return received_;
  return format_->schema.offset(tensor_) + element_ * size(format_->schema.tensors()[tensor_].dtype);
}

Result<CompleteUpdate> StagedUpdate::complete(const base::Sha256& announced, Reread reread) && {
  std::shared_ptr<Pages> pages = memory_.pages();
  auto out = std::move(*this).complete(announced);
  if (!out) return out;
  out->memory_ = Memory(out->format_->schema.bytes(), std::move(pages), /*erased=*/true);
  out->reread_ = std::move(reread);
  out->have_ = 0;
  return out;
}

Result<CompleteUpdate> StagedUpdate::complete(const base::Sha256& announced) && {
  if (refused_) return *refused_;
  if (!whole())
    return base::malformed(
        "update", fmt::format("wanted {} bytes, found {}: it was cut off", format_->schema.bytes(), received_));
  CompleteUpdate out;
  out.digest_ = std::move(hasher_).finish();
  if (out.digest_ != announced)
    return base::untrusted("update", fmt::format("wanted the announced digest {}, found {}",
                                                 base::digest_text(announced), base::digest_text(out.digest_)));
  out.format_ = format_;
  out.have_ = received_;
  out.memory_ = std::move(memory_);
  return out;
}

}  // namespace cloister::aggregation

#pragma once
// One participant's update on its way in: staged whole, checked as it arrives, and only then something a Sum takes.

#include <memory>
#include <optional>

#include "aggregation/grid.hpp"
#include "aggregation/kernels/kernels.hpp"

namespace cloister::aggregation {

/// An update that arrived whole and passed every check: only StagedUpdate::complete makes one.
class CompleteUpdate {
 public:
  const base::Sha256& digest() const { return digest_; }  ///< of its bytes
  const std::shared_ptr<const UpdateFormat>& format() const { return format_; }
  /// The values of one tensor: size(dtype) * elements bytes, little endian, 4-byte aligned.
  View tensor(std::size_t index) const;

 private:
  friend class StagedUpdate;
  CompleteUpdate() = default;
  std::shared_ptr<const UpdateFormat> format_;
  std::unique_ptr<float[]> words_;
  base::Sha256 digest_{};
};

/// A slot: takes the bytes of an update in chunks of any size, also cut in the middle of an element; copies,
/// range-checks and digests them in one pass. Holds format.schema.bytes() bytes. Not thread-safe.
class StagedUpdate {
 public:
  explicit StagedUpdate(std::shared_ptr<const UpdateFormat> format, Kernels kernels = fastest_kernels());

  /// Errors refuse the whole update, now and in every later call: too long; NaN, infinity or a value outside its
  /// tensor's range. The reason names check, tensor and element, never a value.
  Result<void> feed(View chunk);
  std::uint64_t received() const { return received_; }  ///< bytes taken: where an upload that was cut off goes on
  bool whole() const { return received_ == format_->schema.bytes(); }

  /// Refuses an update that was cut off (malformed), or whose digest is not the one that was announced (untrusted).
  Result<CompleteUpdate> complete(const base::Sha256& announced) &&;

 private:
  Result<void> check_to(std::uint64_t received);
  Result<void> check(std::size_t tensor, std::uint64_t from, std::uint64_t to) const;
  std::uint8_t* bytes() { return reinterpret_cast<std::uint8_t*>(words_.get()); }

  std::shared_ptr<const UpdateFormat> format_;
  Kernels kernels_;
  std::unique_ptr<float[]> words_;
  base::Hasher hasher_;
  std::uint64_t received_ = 0;
  std::size_t tensor_ = 0;     ///< the first that is not yet wholly checked,
  std::uint64_t element_ = 0;  ///< and how many of its elements are
  std::optional<Error> refused_;
};

}  // namespace cloister::aggregation

#pragma once
// One participant's update on its way in: staged whole, checked as it arrives, and only then something a Sum takes.

#include <functional>
#include <memory>
#include <optional>

#include "aggregation/grid.hpp"
#include "aggregation/kernels/kernels.hpp"
#include "aggregation/memory.hpp"

namespace cloister::aggregation {

/// Gives an update's bytes once more, in order, in pieces of any size; for one that waits elsewhere than in memory.
using Reread = std::function<Result<Bytes>()>;

/// An update that arrived whole and passed every check: only StagedUpdate::complete makes one. Read from its start to
/// its end; a reader that is done with a part may give its memory back.
class CompleteUpdate {
 public:
  const base::Sha256& digest() const { return digest_; }  ///< of its bytes
  const std::shared_ptr<const UpdateFormat>& format() const { return format_; }
  /// All of it is in memory: nothing is read again.
  bool in_memory() const { return !reread_; }
  /// The values of one tensor of an update in memory: size(dtype) * elements bytes, little endian, 4-byte aligned.
  View tensor(std::size_t index) const;

  /// Has the bytes before `end` in memory. Error: they cannot be read again, or no longer as they were checked.
  Result<void> bring(std::uint64_t end);
  /// Bytes from an offset on, of those that were brought and not given back.
  const std::uint8_t* at(std::uint64_t offset) const { return memory_.data() + offset; }
  void give_back(std::uint64_t end) { memory_.give_back(end); }

 private:
  friend class StagedUpdate;
  CompleteUpdate() = default;
  std::shared_ptr<const UpdateFormat> format_;
  Memory memory_;
  Reread reread_;
  std::uint64_t have_ = 0;
  base::Sha256 digest_{};
};

/// A slot: takes the bytes of an update in chunks of any size, also cut in the middle of an element; copies,
/// range-checks and digests them in one pass. Holds format.schema.bytes() bytes. Not thread-safe.
class StagedUpdate {
 public:
  explicit StagedUpdate(std::shared_ptr<const UpdateFormat> format, Kernels kernels = fastest_kernels(),
                        std::shared_ptr<Pages> pages = std::make_shared<Pages>());

  /// Errors refuse the whole update, now and in every later call: too long; NaN, infinity or a value outside its
  /// tensor's range. The reason names check, tensor and element, never a value.
  Result<void> feed(View chunk);
  std::uint64_t received() const { return received_; }  ///< bytes taken: where an upload that was cut off goes on
  bool whole() const { return received_ == format_->schema.bytes(); }

  /// Refuses an update that was cut off (malformed), or whose digest is not the one that was announced (untrusted).
  Result<CompleteUpdate> complete(const base::Sha256& announced) &&;

  /// Only checks from now on: what was checked is not held. Such an update completes with the bytes that `reread`
  /// gives.
  void keep_nothing() { keep_ = false; }
  Result<CompleteUpdate> complete(const base::Sha256& announced, Reread reread) &&;

 private:
  Result<void> check_to(std::uint64_t received);
  Result<void> check(std::size_t tensor, std::uint64_t from, std::uint64_t to) const;
  std::uint64_t checked_bytes() const;

  std::shared_ptr<const UpdateFormat> format_;
  Kernels kernels_;
  Memory memory_;
  bool keep_ = true;
  base::Hasher hasher_;
  std::uint64_t received_ = 0;
  std::size_t tensor_ = 0;     ///< the first that is not yet wholly checked,
  std::uint64_t element_ = 0;  ///< and how many of its elements are
  std::optional<Error> refused_;
};

}  // namespace cloister::aggregation

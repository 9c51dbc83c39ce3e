#pragma once
// The updates of one round on their way in (docs/how-it-works.md): each is staged whole before it counts. `slots` of
// them stand in memory; further ones go, as they arrive, to sealed files, so that memory is bounded, nobody waits for a
// slow neighbour, and a participant that stops half-way holds up nobody.

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <variant>

#include "aggregation/enclave/sealed_file.hpp"
#include "aggregation/sum.hpp"

namespace cloister::enclave {

/// A staged update and the memory slot that it stands in; the slot is free again when this dies, on whichever thread.
class Slot {
 public:
  Slot(std::shared_ptr<const aggregation::UpdateFormat> format, std::shared_ptr<aggregation::Pages> pages,
       std::shared_ptr<std::atomic<std::size_t>> taken)
      : update(std::move(format), aggregation::fastest_kernels(), std::move(pages)), taken_(std::move(taken)) {
    ++*taken_;
  }
  Slot(Slot&&) noexcept = default;
  Slot& operator=(Slot&&) = delete;
  ~Slot() {
    if (taken_) --*taken_;
  }
  aggregation::StagedUpdate update;

 private:
  std::shared_ptr<std::atomic<std::size_t>> taken_;
};

/// An update of which every byte is here. It may move to the thread that adds it.
class WholeUpdate {
 public:
  /// Completes the staging: an update that waited in a sealed file is read and checked now, and stays there until it is
  /// added. Errors refuse the update (CompleteUpdate's, SealedFile's).
  Result<aggregation::CompleteUpdate> complete();  ///< once
  bool in_memory() const { return std::holds_alternative<Slot>(bytes_); }

 private:
  friend class Uploads;
  std::shared_ptr<const aggregation::UpdateFormat> format_;
  std::shared_ptr<aggregation::Pages> pages_;
  base::Sha256 announced_{};
  std::variant<Slot, SealedFile> bytes_;

  WholeUpdate(std::shared_ptr<const aggregation::UpdateFormat> format, std::shared_ptr<aggregation::Pages> pages,
              const base::Sha256& announced, std::variant<Slot, SealedFile> bytes)
      : format_(std::move(format)), pages_(std::move(pages)), announced_(announced), bytes_(std::move(bytes)) {}
};

/// Not thread-safe: lives on the server's strand.
class Uploads {
 public:
  Uploads(std::shared_ptr<const aggregation::UpdateFormat> format, std::size_t slots,
          std::shared_ptr<aggregation::Pages> pages = std::make_shared<aggregation::Pages>())
      : format_(std::move(format)), slots_(slots), pages_(std::move(pages)) {}

  /// Opens an upload, or finds the one that was cut: the offset from which its bytes are wanted. Another digest than
  /// before starts again from nothing. Error unavailable: no slot is free and no sealed file can be made.
  Result<std::uint64_t> open(const std::string& owner, const base::Sha256& announced);
  /// Takes the next bytes. Errors refuse the update, which is then forgotten; what it had never counted.
  Result<void> feed(const std::string& owner, View bytes);
  bool whole(const std::string& owner) const;
  std::uint64_t received(const std::string& owner) const;  ///< 0 when nothing is open
  /// Moves a whole update out; a slot that it has stays taken until it was added.
  WholeUpdate take(const std::string& owner);
  void forget(const std::string& owner) { open_.erase(owner); }

  std::size_t slots_taken() const { return *taken_; }

 private:
  struct Upload {
    base::Sha256 announced{};
    std::variant<Slot, SealedFile> bytes;
    std::uint64_t received = 0;
  };
  std::shared_ptr<const aggregation::UpdateFormat> format_;
  std::size_t slots_;
  std::shared_ptr<aggregation::Pages> pages_;
  std::shared_ptr<std::atomic<std::size_t>> taken_ = std::make_shared<std::atomic<std::size_t>>(0);
  std::map<std::string, Upload> open_;
};

}  // namespace cloister::enclave

#pragma once
// The large blocks of a round: model, slots, sum, next model. Each is one range of addresses whose pages come from what
// others gave back, also piece by piece while it is still read or written: a round costs no fresh pages but the first
// time, and never holds both the whole of what it makes and the whole of what it makes it from.

#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "base/bytes.hpp"

namespace cloister::aggregation {

/// Pages that nobody uses at present. Thread-safe.
class Pages {
 public:
  Pages() = default;
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  ~Pages() { release(); }
  /// To the operating system.
  void release();

  static constexpr std::size_t piece = 2 << 20;  ///< bytes that move as one

 private:
  friend class Memory;
  std::uint8_t* take();
  void put(std::uint8_t* piece_of_pages);
  std::mutex mutex_;
  std::vector<std::uint8_t*> free_;
};

/// Not thread-safe. What was never written, and what was given back, holds anything. Throws std::bad_alloc.
class Memory {
 public:
  Memory() = default;
  /// `erased`: what it gives back was one owner's alone, and is zeros before anybody else gets the pages.
  explicit Memory(std::size_t size, std::shared_ptr<Pages> pages = std::make_shared<Pages>(), bool erased = false);
  Memory(Memory&& other) noexcept;
  Memory& operator=(Memory&& other) noexcept;
  ~Memory();

  std::uint8_t* data() { return data_; }
  const std::uint8_t* data() const { return data_; }
  std::size_t size() const { return size_; }
  explicit operator bool() const { return data_ != nullptr; }
  const std::shared_ptr<Pages>& pages() const { return pages_; }

  /// Said before the first write beyond what was reached: bytes before `end` are about to be written. `end` only grows.
  void reach(std::size_t end);
  /// Bytes before `end` are no longer needed. `end` only grows.
  void give_back(std::size_t end);

 private:
  void unmap() noexcept;
  void put_until(std::size_t pieces) noexcept;
  std::shared_ptr<Pages> pages_;
  std::uint8_t* data_ = nullptr;  ///< of a large block at a multiple of a piece
  std::size_t size_ = 0;
  std::size_t reached_ = 0, given_ = 0;  ///< whole pieces
  bool erased_ = false;
};

}  // namespace cloister::aggregation

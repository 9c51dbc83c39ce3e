#include "aggregation/memory.hpp"

#include <algorithm>
#include <new>
#include <string.h>
#include <sys/mman.h>
#include <utility>

namespace cloister::aggregation {
namespace {

constexpr std::size_t piece = Pages::piece;
constexpr std::align_val_t heap_alignment{64};

std::size_t pieces_of(std::size_t bytes) {
  return (bytes + piece - 1) / piece;
}

/// Addresses at a multiple of a piece, without pages.
std::uint8_t* map(std::size_t bytes) {
  const std::size_t room = bytes + piece;
  void* at = ::mmap(nullptr, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) throw std::bad_alloc();
  auto* begin = static_cast<std::uint8_t*>(at);
  const std::size_t before = (piece - reinterpret_cast<std::uintptr_t>(begin) % piece) % piece;
  if (before > 0) ::munmap(begin, before);
  ::munmap(begin + before + bytes, room - before - bytes);
  return begin + before;
}

}  // namespace

void Pages::release() {
  const std::scoped_lock lock(mutex_);
  for (std::uint8_t* at : free_) ::munmap(at, piece);
  free_.clear();
}

std::uint8_t* Pages::take() {
  const std::scoped_lock lock(mutex_);
  if (free_.empty()) return nullptr;
  std::uint8_t* out = free_.back();
  free_.pop_back();
  return out;
}

void Pages::put(std::uint8_t* at) {
  try {
    const std::scoped_lock lock(mutex_);
    free_.push_back(at);
  } catch (const std::bad_alloc&) {
    ::munmap(at, piece);
  }
}

// A small block is the heap's: a mapping each would be too many where thousands of small updates stand.
Memory::Memory(std::size_t size, std::shared_ptr<Pages> pages, bool erased)
    : pages_(std::move(pages)),
      data_(size < piece / 2
                ? static_cast<std::uint8_t*>(::operator new(std::max<std::size_t>(size, 1), heap_alignment))
                : map(pieces_of(size) * piece)),
      size_(size),
      erased_(erased) {}

Memory::Memory(Memory&& o) noexcept
    : pages_(std::move(o.pages_)),
      data_(std::exchange(o.data_, nullptr)),
      size_(std::exchange(o.size_, 0)),
      reached_(std::exchange(o.reached_, 0)),
      given_(std::exchange(o.given_, 0)),
      erased_(o.erased_) {}

Memory& Memory::operator=(Memory&& o) noexcept {
  std::swap(pages_, o.pages_);
  std::swap(data_, o.data_);
  std::swap(size_, o.size_);
  std::swap(reached_, o.reached_);
  std::swap(given_, o.given_);
  std::swap(erased_, o.erased_);
  return *this;
}

Memory::~Memory() {
  if (data_ != nullptr) unmap();
}

void Memory::unmap() noexcept {
  if (size_ < piece / 2) {
    if (erased_) ::explicit_bzero(data_, size_);
    return ::operator delete(data_, heap_alignment);
  }
  put_until(reached_);
  const std::size_t end = pieces_of(size_) * piece;
  if (reached_ * piece < end) ::munmap(data_ + reached_ * piece, end - reached_ * piece);
}

void Memory::put_until(std::size_t pieces) noexcept {
  for (; given_ < pieces; ++given_) {
    if (erased_) ::explicit_bzero(data_ + given_ * piece, piece);
    pages_->put(data_ + given_ * piece);
  }
}

void Memory::reach(std::size_t end) {
  if (size_ < piece / 2) return;
  for (const std::size_t wanted = pieces_of(std::min(end, size_)); reached_ < wanted; ++reached_) {
    std::uint8_t* from = pages_->take();
    // Moved and not copied: the page tables change. Where that fails, fresh pages do as well.
    if (from != nullptr &&
        ::mremap(from, piece, piece, MREMAP_MAYMOVE | MREMAP_FIXED, data_ + reached_ * piece) == MAP_FAILED) {
      ::munmap(from, piece);
      void* at = ::mmap(data_ + reached_ * piece, piece, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
      if (at == MAP_FAILED) throw std::bad_alloc();
    }
  }
}

void Memory::give_back(std::size_t end) {
  if (size_ < piece / 2) return;
  put_until(end >= size_ ? reached_ : std::min(end / piece, reached_));
}

}  // namespace cloister::aggregation

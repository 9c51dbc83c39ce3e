#include "aggregation/enclave/cleansing_heap.hpp"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <malloc.h>
#include <new>
#include <openssl/crypto.h>
#include <string.h>
#include <sys/mman.h>

namespace {

constexpr std::size_t page = 4096;
constexpr std::size_t by_page = 1 << 20;  // from this size on giving pages back is cheaper than writing them

// Pages that are given back are zeros when they are touched again (madvise(2), MADV_DONTNEED, private anonymous
// memory); a kernel that refuses leaves them to be written.
void erase(void* block) noexcept {
  auto* const begin = static_cast<std::uint8_t*>(block);
  const std::size_t size = ::malloc_usable_size(block);
  if (size >= by_page) {
    auto* const first = begin + (page - reinterpret_cast<std::uintptr_t>(begin) % page) % page;
    auto* const last = begin + size - reinterpret_cast<std::uintptr_t>(begin + size) % page;
    if (::madvise(first, static_cast<std::size_t>(last - first), MADV_DONTNEED) == 0) {
      ::explicit_bzero(begin, static_cast<std::size_t>(first - begin));
      ::explicit_bzero(last, static_cast<std::size_t>(begin + size - last));
      return;
    }
  }
  ::explicit_bzero(begin, size);
}

void release(void* block) noexcept {
  if (block == nullptr) return;
  erase(block);
  std::free(block);
}

void* openssl_malloc(std::size_t size, const char*, int) {
  return std::malloc(size);
}
void openssl_free(void* block, const char*, int) {
  release(block);
}
void* openssl_realloc(void* block, std::size_t size, const char*, int) {
  if (block == nullptr) return std::malloc(size);
  if (size == 0) {
    release(block);
    return nullptr;
  }
  void* const moved = std::malloc(size);
  if (moved == nullptr) return nullptr;
  const std::size_t had = ::malloc_usable_size(block);
  std::memcpy(moved, block, had < size ? had : size);
  release(block);
  return moved;
}

}  // namespace

namespace cloister::enclave {

bool cleanse_freed_memory() {
  return CRYPTO_set_mem_functions(openssl_malloc, openssl_realloc, openssl_free) == 1;
}

}  // namespace cloister::enclave

// A sanitizer has an allocator of its own, which must see every new and delete.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// The forms for arrays and without exceptions end in these four.
void operator delete(void* block) noexcept {
  release(block);
}
void operator delete(void* block, std::size_t) noexcept {
  release(block);
}
void operator delete(void* block, std::align_val_t) noexcept {
  release(block);
}
void operator delete(void* block, std::size_t, std::align_val_t) noexcept {
  release(block);
}
#endif

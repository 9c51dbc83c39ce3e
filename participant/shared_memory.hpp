#pragma once
// Memory that node and trainer both map: a memfd of fixed size (sealed, so that neither can cut it off under the
// other). Either may write it at any time.

#include <string>

#include "base/bytes.hpp"

namespace cloister::participant {

class SharedMemory {
 public:
  static Result<SharedMemory> make(std::size_t capacity);
  SharedMemory(SharedMemory&& other) noexcept;
  SharedMemory& operator=(SharedMemory&& other) noexcept;
  ~SharedMemory();

  int fd() const { return fd_; }
  std::size_t capacity() const { return capacity_; }
  std::uint8_t* data() { return data_; }

 private:
  SharedMemory(int fd, std::uint8_t* data, std::size_t capacity) : fd_(fd), data_(data), capacity_(capacity) {}
  int fd_ = -1;
  std::uint8_t* data_ = nullptr;
  std::size_t capacity_ = 0;
};

}  // namespace cloister::participant

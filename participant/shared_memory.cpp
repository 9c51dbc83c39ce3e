#include "participant/shared_memory.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>
#include <utility>

namespace cloister::participant {

Result<SharedMemory> SharedMemory::make(std::size_t capacity) {
  const auto failed = [&](std::string_view step) {
    return base::unavailable(
        "trainer", fmt::format("cannot {} {} bytes of shared memory: {}", step, capacity, std::strerror(errno)));
  };
  const int fd = ::memfd_create("cloister", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return failed("make");
  SharedMemory out(fd, nullptr, capacity);
  if (::ftruncate(fd, static_cast<off_t>(capacity)) != 0) return failed("size");
  void* data = ::mmap(nullptr, capacity, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (data == MAP_FAILED) return failed("map");
  out.data_ = static_cast<std::uint8_t*>(data);
  if (::fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK) != 0 || ::fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL) != 0)
    return failed("seal");
  return out;
}

SharedMemory::SharedMemory(SharedMemory&& o) noexcept
    : fd_(std::exchange(o.fd_, -1)), data_(std::exchange(o.data_, nullptr)), capacity_(std::exchange(o.capacity_, 0)) {}

SharedMemory& SharedMemory::operator=(SharedMemory&& o) noexcept {
  std::swap(fd_, o.fd_);
  std::swap(data_, o.data_);
  std::swap(capacity_, o.capacity_);
  return *this;
}

SharedMemory::~SharedMemory() {
  if (data_ != nullptr) ::munmap(data_, capacity_);
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace cloister::participant

#include "base/mapping.h"

#include <sys/mman.h>

#include <cerrno>
#include <string>
#include <utility>

namespace ankole {

Mapping::~Mapping() {
  if (memory_ != nullptr) munmap(memory_, bytes_);
}

Mapping::Mapping(Mapping&& other) noexcept { *this = std::move(other); }

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  if (this == &other) return *this;
  if (memory_ != nullptr) munmap(memory_, bytes_);
  memory_ = std::exchange(other.memory_, nullptr);
  bytes_ = std::exchange(other.bytes_, 0);
  return *this;
}

Status Mapping::Grow(size_t bytes, const char* what) {
  if (bytes <= bytes_) return Status::Ok();
  // Pages are moved, not copied.
  void* memory = memory_ == nullptr ? mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
                                    : mremap(memory_, bytes_, bytes, MREMAP_MAYMOVE);
  if (memory == MAP_FAILED) {
    const int error_number = errno;
    return Status::FromErrno(error_number, "cannot reserve " + std::to_string(bytes) +
                                               " bytes of address space for " + what);
  }
  memory_ = memory;
  bytes_ = bytes;
  return Status::Ok();
}

void Mapping::Clear() {
  if (memory_ != nullptr) madvise(memory_, bytes_, MADV_DONTNEED);
}

}  // namespace ankole

#include "base/mapping.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

namespace ankole {

namespace {

// `bytes` of zeros; nullptr, and errno: there are none.
void* Take(size_t bytes) {
  if (bytes <= Mapping::kHeapBytesMax) return std::calloc(1, bytes);
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return memory == MAP_FAILED ? nullptr : memory;
}

}  // namespace

Mapping::~Mapping() { Free(); }

void Mapping::Free() {
  if (bytes_ > kHeapBytesMax) {
    munmap(memory_, bytes_);
  } else {
    std::free(memory_);
  }
}

Mapping::Mapping(Mapping&& other) noexcept { *this = std::move(other); }

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  if (this == &other) return *this;
  Free();
  memory_ = std::exchange(other.memory_, nullptr);
  bytes_ = std::exchange(other.bytes_, 0);
  return *this;
}

Status Mapping::Grow(size_t bytes, const char* what) {
  if (bytes <= bytes_) return Status::Ok();
  // Pages are moved, not copied.
  const bool moves = bytes_ > kHeapBytesMax;
  void* memory = moves ? mremap(memory_, bytes_, bytes, MREMAP_MAYMOVE) : Take(bytes);
  if (memory == nullptr || memory == MAP_FAILED) {
    const int error_number = errno;
    return Status::FromErrno(error_number, "cannot reserve " + std::to_string(bytes) +
                                               " bytes of address space for " + what);
  }
  if (!moves && bytes_ > 0) {
    std::memcpy(memory, memory_, bytes_);
    Free();
  }
  memory_ = memory;
  bytes_ = bytes;
  return Status::Ok();
}

void Mapping::Clear() {
  if (bytes_ > kHeapBytesMax) {
    madvise(memory_, bytes_, MADV_DONTNEED);
  } else if (bytes_ > 0) {
    std::memset(memory_, 0, bytes_);
  }
}

}  // namespace ankole

#pragma once

#include <cstddef>

#include "base/result.h"

namespace ankole {

// Zeroed memory of its own pages, taken by first use: what is never touched costs address space
// only. It can become longer, whereby it may move. So little as kHeapBytesMax is the heap's, as a
// mapping costs system calls and page faults, and a process can only have some 65,000.
class Mapping {
 public:
  static constexpr size_t kHeapBytesMax = 65536;

  Mapping() = default;
  ~Mapping();
  Mapping(Mapping&& other) noexcept;
  Mapping& operator=(Mapping&& other) noexcept;

  // At least so long; what it holds stays, and is found at data() again. On failure all is as it
  // was. `what` names it in the error.
  Status Grow(size_t bytes, const char* what);
  // All zeros again, and no memory taken.
  void Clear();

  bool exists() const { return memory_ != nullptr; }
  size_t bytes() const { return bytes_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(memory_);
  }

 private:
  void Free();

  void* memory_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace ankole

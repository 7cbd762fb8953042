#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/limits.h"
#include "base/result.h"

namespace ankole {

// A fixed arena cut into chunks of three sizes, counted by reference. Virtual memory is reserved at
// the start, pages are faulted in by first use, and Trim gives them back when idle; so that an idle
// engine costs nothing and nothing is allocated for an I/O.
//
// Owned by one thread.
class BufferPool {
 public:
  static constexpr size_t kSmallBytes = 64 * kKiB;
  // Read-ahead and copy tools: 256 KiB with header and checksums.
  static constexpr size_t kMediumBytes = 264 * kKiB;
  // One request of kDataBytesMax with header and checksums.
  static constexpr size_t kLargeBytes = kDataBytesMax + 8 * kKiB;

  struct Chunk {
    std::byte* data = nullptr;
    uint32_t capacity_bytes = 0;
    uint32_t references = 0;
    BufferPool* pool = nullptr;
    Chunk* next_free = nullptr;
    uint8_t size_class = 0;
    bool faulted = false;  // may hold pages since the last Trim
  };

  // Backed by a memfd of that name, so that the arena can be shared, sealed against shrinking.
  static Result<std::unique_ptr<BufferPool>> Create(const char* name, size_t small_chunks,
                                                    size_t medium_chunks, size_t large_chunks);
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  // A chunk of at least `bytes` with one reference, or null when all are out (the caller waits) or
  // `bytes` > kLargeBytes. 4 KiB-aligned.
  Chunk* Acquire(size_t bytes);
  static void Retain(Chunk* chunk) { ++chunk->references; }
  // Drops one reference; the last one puts the chunk back.
  static void Release(Chunk* chunk);

  size_t held_bytes() const { return held_bytes_; }
  int memfd() const { return memfd_; }
  std::byte* arena() const { return arena_; }
  size_t arena_bytes() const { return arena_bytes_; }
  bool Contains(const void* data) const {
    const auto* byte = static_cast<const std::byte*>(data);
    return byte >= arena_ && byte < arena_ + arena_bytes_;
  }
  // From now on what is written here is seen by this process alone: whoever shares the arena keeps
  // what lies in it at this moment, for as long as it likes. For good; Trim does nothing after it.
  void Freeze();
  // Gives the pages of all free chunks back to the kernel. For when nothing was in flight a while.
  void Trim();

 private:
  BufferPool() = default;

  int memfd_ = -1;
  std::byte* arena_ = nullptr;
  size_t arena_bytes_ = 0;
  std::vector<Chunk> chunks_;
  Chunk* free_[3] = {};  // by class, smallest first
  size_t held_bytes_ = 0;
  bool frozen_ = false;
};

}  // namespace ankole

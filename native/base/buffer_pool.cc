#include "base/buffer_pool.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "base/check.h"

namespace ankole {

namespace {
constexpr size_t kClassBytes[] = {BufferPool::kSmallBytes, BufferPool::kMediumBytes,
                                  BufferPool::kLargeBytes};
}  // namespace

Result<std::unique_ptr<BufferPool>> BufferPool::Create(const char* name, size_t small_chunks,
                                                       size_t medium_chunks, size_t large_chunks) {
  const int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return Status::FromErrno(errno, "cannot create the buffer arena");
  const size_t counts[] = {small_chunks, medium_chunks, large_chunks};
  size_t bytes = 0;
  for (int i = 0; i < 3; ++i) bytes += counts[i] * kClassBytes[i];
  void* arena = MAP_FAILED;
  // A peer that maps the arena must not get SIGBUS because it shrank.
  if (ftruncate(fd, static_cast<off_t>(bytes)) == 0 &&
      fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0) {
    arena = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
  }
  if (arena == MAP_FAILED) {
    const int error = errno;
    close(fd);
    return Status::FromErrno(error, "cannot map the buffer arena");
  }
  std::unique_ptr<BufferPool> pool(new BufferPool());
  pool->memfd_ = fd;
  pool->arena_ = static_cast<std::byte*>(arena);
  pool->arena_bytes_ = bytes;
  pool->chunks_.resize(small_chunks + medium_chunks + large_chunks);
  std::byte* end = pool->arena_ + bytes;
  size_t index = pool->chunks_.size();
  // From the end, so that the free lists start with the lowest addresses.
  for (int size_class = 3; size_class-- > 0;) {
    for (size_t i = 0; i < counts[size_class]; ++i) {
      Chunk& chunk = pool->chunks_[--index];
      chunk.size_class = static_cast<uint8_t>(size_class);
      chunk.capacity_bytes = static_cast<uint32_t>(kClassBytes[size_class]);
      end -= chunk.capacity_bytes;
      chunk.data = end;
      chunk.pool = pool.get();
      chunk.next_free = pool->free_[size_class];
      pool->free_[size_class] = &chunk;
    }
  }
  return pool;
}

BufferPool::~BufferPool() {
  munmap(arena_, arena_bytes_);
  close(memfd_);
}

BufferPool::Chunk* BufferPool::Acquire(size_t bytes) {
  for (int size_class = 0; size_class < 3; ++size_class) {
    Chunk* chunk = free_[size_class];
    if (bytes > kClassBytes[size_class] || chunk == nullptr) continue;
    free_[size_class] = chunk->next_free;
    chunk->next_free = nullptr;
    chunk->references = 1;
    chunk->faulted = true;
    held_bytes_ += chunk->capacity_bytes;
    return chunk;
  }
  return nullptr;
}

void BufferPool::Release(Chunk* chunk) {
  CHECK(chunk->references > 0);
  if (--chunk->references > 0) return;
  BufferPool* pool = chunk->pool;
  chunk->next_free = pool->free_[chunk->size_class];
  pool->free_[chunk->size_class] = chunk;
  pool->held_bytes_ -= chunk->capacity_bytes;
}

void BufferPool::Freeze() {
  if (frozen_) return;
  frozen_ = true;
  // Copy on write, from the same pages.
  void* arena = mmap(arena_, arena_bytes_, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, memfd_, 0);
  CHECK(arena == arena_);
}

void BufferPool::Trim() {
  if (frozen_) return;
  for (Chunk& chunk : chunks_) {
    if (chunk.references > 0 || !chunk.faulted) continue;
    madvise(chunk.data, chunk.capacity_bytes, MADV_REMOVE);
    chunk.faulted = false;
  }
}

}  // namespace ankole

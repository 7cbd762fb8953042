#include "replica/session_operations.h"

#include <sys/mman.h>

#include <cerrno>
#include <new>

#include "base/sanitizers.h"
#include "wire/shared_memory.h"

#if defined(ANKOLE_ASAN)
#include <sanitizer/lsan_interface.h>
#endif

namespace ankole::replica {
namespace {
constexpr size_t kArrayBytes =
    RoundUp(kSessionOperationsMax * sizeof(SessionOperation), kBlockBytes);
constexpr size_t kTablesBytes =
    RoundUp(kSessionOperationsMax * wire::kSharedTableBytes, kBlockBytes);
}  // namespace

SessionOperations::~SessionOperations() {
  DestroyAll();
  if (array_ == nullptr) return;
#if defined(ANKOLE_ASAN)
  __lsan_unregister_root_region(array_, kArrayBytes);
#endif
  munmap(array_, kArrayBytes + kTablesBytes);
}

Status SessionOperations::Reserve() {
  CHECK(array_ == nullptr);
  void* map = mmap(nullptr, kArrayBytes + kTablesBytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (map == MAP_FAILED) return Status::FromErrno(errno, "no memory for a session");
  array_ = static_cast<SessionOperation*>(map);
#if defined(ANKOLE_ASAN)
  // What an operation owns is no leak, which the leak checker cannot see where it does not look.
  __lsan_register_root_region(array_, kArrayBytes);
#endif
  tables_ = static_cast<std::byte*>(map) + kArrayBytes;
  return Status::Ok();
}

SessionOperation* SessionOperations::Acquire() {
  SessionOperation* operation = free_;
  if (operation != nullptr) {
    free_ = operation->next_free;
    operation->next_free = nullptr;
  } else {
    if (array_ == nullptr || made_ == kSessionOperationsMax) return nullptr;
    operation = new (&array_[made_]) SessionOperation();
    operation->table = reinterpret_cast<uint32_t*>(tables_ + made_ * wire::kSharedTableBytes);
    ++made_;
  }
  ++used_;
  return operation;
}

void SessionOperations::Release(SessionOperation* operation) {
  CHECK(used_ > 0 && operation->chunk == nullptr && !operation->reply.pending());
  --used_;
  operation->next_free = free_;
  free_ = operation;
}

void SessionOperations::Trim() {
  CHECK(used_ == 0);
  if (made_ == 0) return;
  DestroyAll();
  madvise(array_, kArrayBytes + kTablesBytes, MADV_DONTNEED);
}

void SessionOperations::DestroyAll() {
  for (size_t i = 0; i < made_; ++i) array_[i].~SessionOperation();
  made_ = 0;
  free_ = nullptr;
}

}  // namespace ankole::replica

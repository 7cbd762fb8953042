#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/intrusive_list.h"

// Rule 4: writes that overlap go one after the other, a read waits for a write it overlaps.
namespace ankole::engine {

// What one operation locks: whole blocks, [begin, end). Reads share, all else is alone.
struct LockRequest {
  uint64_t begin_block = 0;
  uint64_t end_block = 0;
  bool exclusive = false;
  void (*granted)(LockRequest*) = nullptr;  // from within Release of another one
  void* owner = nullptr;

  // The table's:
  uint32_t held_index = 0;
  ListNode waiting_node;
};

// Held ranges in a dense array that is scanned: at a queue depth of 128 that is 3 KiB, less than a
// cache miss of a tree. Those who must wait stand in a queue in the order of their coming, and
// nobody overtakes a waiter that it overlaps; so that nobody starves and the order is one. Never
// allocates after construction.
class RangeLock {
 public:
  explicit RangeLock(size_t held_max) { held_.reserve(held_max); }

  // True: held now. False: `granted` will be called.
  bool Acquire(LockRequest* request);
  void Release(LockRequest* request);
  // One that waits does not any more; `granted` will not be called.
  void Cancel(LockRequest* request);
  size_t held() const { return held_.size(); }
  size_t waiting() const { return waiting_.size(); }

 private:
  struct Range {
    uint64_t begin_block;
    uint64_t end_block;
    LockRequest* request;
    bool exclusive;
  };
  bool HeldConflicts(const LockRequest& request) const;
  bool WaiterConflicts(const LockRequest& request, const LockRequest* before) const;
  void Hold(LockRequest* request);
  void GrantAfter(const LockRequest& gone);

  std::vector<Range> held_;
  IntrusiveList<LockRequest, &LockRequest::waiting_node> waiting_;
};

}  // namespace ankole::engine

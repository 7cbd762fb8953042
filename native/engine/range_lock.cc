#include "engine/range_lock.h"

#include "base/check.h"

namespace ankole::engine {
namespace {

bool Conflict(const LockRequest& a, const LockRequest& b) {
  return (a.exclusive || b.exclusive) && a.begin_block < b.end_block && b.begin_block < a.end_block;
}

}  // namespace

bool RangeLock::HeldConflicts(const LockRequest& request) const {
  for (const Range& range : held_) {
    if (range.begin_block < request.end_block && request.begin_block < range.end_block &&
        (range.exclusive || request.exclusive)) {
      return true;
    }
  }
  return false;
}

// Whether a waiter that came earlier (than `before`; null: than all) is overlapped.
bool RangeLock::WaiterConflicts(const LockRequest& request, const LockRequest* before) const {
  for (LockRequest* waiter = waiting_.front(); waiter != nullptr && waiter != before;
       waiter = waiting_.Next(waiter)) {
    if (Conflict(*waiter, request)) return true;
  }
  return false;
}

void RangeLock::Hold(LockRequest* request) {
  CHECK(held_.size() < held_.capacity());
  request->held_index = static_cast<uint32_t>(held_.size());
  held_.push_back({request->begin_block, request->end_block, request, request->exclusive});
}

bool RangeLock::Acquire(LockRequest* request) {
  CHECK(request->begin_block < request->end_block);
  if (HeldConflicts(*request) || WaiterConflicts(*request, nullptr)) {
    waiting_.PushBack(request);
    return false;
  }
  Hold(request);
  return true;
}

void RangeLock::Release(LockRequest* request) {
  const uint32_t index = request->held_index;
  CHECK(index < held_.size() && held_[index].request == request);
  held_[index] = held_.back();
  held_[index].request->held_index = index;
  held_.pop_back();
  GrantAfter(*request);
}

void RangeLock::Cancel(LockRequest* request) {
  CHECK(request->waiting_node.linked());
  waiting_.Remove(request);
  GrantAfter(*request);
}

void RangeLock::GrantAfter(const LockRequest& gone) {
  LockRequest* waiter = waiting_.front();
  while (waiter != nullptr) {
    LockRequest* next = waiting_.Next(waiter);
    // Only those who stood in the way of the one that left can go on now; the rest still wait for
    // what they waited for.
    if (Conflict(*waiter, gone) && !HeldConflicts(*waiter) && !WaiterConflicts(*waiter, waiter)) {
      waiting_.Remove(waiter);
      Hold(waiter);
      waiter->granted(waiter);
      // `granted` may have queued or finished others.
      next = waiting_.front();
    }
    waiter = next;
  }
}

}  // namespace ankole::engine

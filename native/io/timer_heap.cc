#include "io/timer_heap.h"

#include <algorithm>

#include "base/check.h"

namespace ankole::io {

void TimerHeap::Arm(Timer* timer, uint64_t deadline_ns) {
  timer->deadline_ns = deadline_ns;
  if (timer->armed()) {
    const size_t index = timer->heap_index;
    CHECK(index < heap_.size() && heap_[index] == timer);
    Up(timer, index);
    if (timer->heap_index == index) Down(timer, index);
    return;
  }
  heap_.push_back(timer);
  Up(timer, heap_.size() - 1);
}

void TimerHeap::Remove(Timer* timer) {
  const size_t index = timer->heap_index;
  CHECK(index < heap_.size() && heap_[index] == timer);
  timer->heap_index = SIZE_MAX;
  Timer* const last = heap_.back();
  heap_.pop_back();
  if (last == timer) return;
  Up(last, index);
  if (last->heap_index == index) Down(last, index);
}

void TimerHeap::Up(Timer* timer, size_t index) {
  while (index > 0) {
    const size_t parent = (index - 1) / kChildren;
    if (heap_[parent]->deadline_ns <= timer->deadline_ns) break;
    Put(heap_[parent], index);
    index = parent;
  }
  Put(timer, index);
}

void TimerHeap::Down(Timer* timer, size_t index) {
  for (;;) {
    const size_t first = index * kChildren + 1;
    if (first >= heap_.size()) break;
    const size_t end = std::min(first + kChildren, heap_.size());
    size_t least = first;
    for (size_t child = first + 1; child < end; ++child) {
      if (heap_[child]->deadline_ns < heap_[least]->deadline_ns) least = child;
    }
    if (timer->deadline_ns <= heap_[least]->deadline_ns) break;
    Put(heap_[least], index);
    index = least;
  }
  Put(timer, index);
}

}  // namespace ankole::io

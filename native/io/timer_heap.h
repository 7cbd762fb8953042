#pragma once

#include <cstddef>
#include <vector>

#include "io/reactor.h"

namespace ankole::io {

// Armed timers by deadline: a heap of four children a node, where each timer knows its place, so
// that arming, moving and cancelling cost O(log n) and a few cache lines.
class TimerHeap {
 public:
  TimerHeap() { heap_.reserve(64); }
  TimerHeap(const TimerHeap&) = delete;
  TimerHeap& operator=(const TimerHeap&) = delete;

  bool empty() const { return heap_.empty(); }
  size_t size() const { return heap_.size(); }
  // The earliest. Not when empty.
  Timer* top() const { return heap_.front(); }
  // Adds the timer, or moves it when it is in already.
  void Arm(Timer* timer, uint64_t deadline_ns);
  // Takes it out. Only when armed.
  void Remove(Timer* timer);

 private:
  static constexpr size_t kChildren = 4;
  void Up(Timer* timer, size_t index);
  void Down(Timer* timer, size_t index);
  void Put(Timer* timer, size_t index) {
    heap_[index] = timer;
    timer->heap_index = index;
  }

  std::vector<Timer*> heap_;
};

}  // namespace ankole::io

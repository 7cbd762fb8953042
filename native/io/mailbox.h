#pragma once

#include <atomic>

#include "io/operation_queue.h"
#include "io/reactor.h"

namespace ankole::io {

// How other threads hand operations to the loop: a lock-free list, and an eventfd that is written
// only when the loop sleeps. Nothing ever reads the eventfd: both back ends watch it by edge.
class Mailbox {
 public:
  Mailbox();
  ~Mailbox();
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;

  int fd() const { return fd_; }  // -1: no descriptor was left

  // Any thread.
  void Push(Operation* operation);

  // The loop's thread:
  bool empty() const { return head_.load(std::memory_order_acquire) == nullptr; }
  // Moves all that came to the end of `to`, in the order of the pushes.
  void TakeAll(OperationQueue* to);
  // Says that the loop is about to sleep. False when something is there, so that it must not.
  bool PrepareSleep();
  void Awake() { sleeping_.store(false, std::memory_order_relaxed); }

 private:
  int fd_ = -1;
  std::atomic<Operation*> head_ = nullptr;  // newest first
  std::atomic<bool> sleeping_ = false;
};

}  // namespace ankole::io

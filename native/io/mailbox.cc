#include "io/mailbox.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "base/check.h"

namespace ankole::io {

Mailbox::Mailbox() : fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

Mailbox::~Mailbox() {
  if (fd_ >= 0) close(fd_);
}

void Mailbox::Push(Operation* operation) {
  Operation* head = head_.load(std::memory_order_relaxed);
  do {
    operation->next = head;
  } while (!head_.compare_exchange_weak(head, operation, std::memory_order_seq_cst,
                                        std::memory_order_relaxed));
  // From here on the operation may be gone. Either this sees the sleeper, or the sleeper, which
  // looks after it said that it sleeps, sees the operation: all four accesses are sequentially
  // consistent.
  if (sleeping_.load(std::memory_order_seq_cst) &&
      sleeping_.exchange(false, std::memory_order_seq_cst)) {
    const uint64_t one = 1;
    ssize_t written;
    do {
      written = write(fd_, &one, sizeof(one));
    } while (written < 0 && errno == EINTR);
    CHECK(written == sizeof(one));
  }
}

void Mailbox::TakeAll(OperationQueue* to) {
  if (empty()) return;
  Operation* newest = head_.exchange(nullptr, std::memory_order_acquire);
  Operation* oldest = nullptr;
  while (newest != nullptr) {
    Operation* const following = newest->next;
    newest->next = oldest;
    oldest = newest;
    newest = following;
  }
  while (oldest != nullptr) {
    Operation* const following = oldest->next;
    to->Push(oldest);
    oldest = following;
  }
}

bool Mailbox::PrepareSleep() {
  sleeping_.store(true, std::memory_order_seq_cst);
  if (head_.load(std::memory_order_seq_cst) == nullptr) return true;
  Awake();
  return false;
}

}  // namespace ankole::io

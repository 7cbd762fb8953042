#pragma once

#include "io/reactor.h"

namespace ankole::io {

// First in, first out, through Operation::next. For one thread.
class OperationQueue {
 public:
  bool empty() const { return head_ == nullptr; }
  void Push(Operation* operation) {
    operation->next = nullptr;
    if (tail_ != nullptr) {
      tail_->next = operation;
    } else {
      head_ = operation;
    }
    tail_ = operation;
  }
  Operation* Pop() {
    Operation* operation = head_;
    if (operation == nullptr) return nullptr;
    head_ = operation->next;
    if (head_ == nullptr) tail_ = nullptr;
    operation->next = nullptr;
    return operation;
  }

 private:
  Operation* head_ = nullptr;
  Operation* tail_ = nullptr;
};

}  // namespace ankole::io

#pragma once

#include <cstddef>

#include "base/check.h"

namespace ankole {

// A link that an object carries for each list it can be on.
struct ListNode {
  ListNode* next = nullptr;
  ListNode* previous = nullptr;
  // Invariant: next and previous are both null (on no list) or both set.
  bool linked() const { return next != nullptr; }
};

// A doubly linked list through a ListNode member of T; never allocates, never owns.
template <typename T, ListNode T::*kNode>
class IntrusiveList {
 public:
  IntrusiveList() { head_.next = head_.previous = &head_; }
  IntrusiveList(const IntrusiveList&) = delete;
  IntrusiveList& operator=(const IntrusiveList&) = delete;

  bool empty() const { return head_.next == &head_; }
  size_t size() const { return size_; }
  T* front() const { return empty() ? nullptr : Owner(head_.next); }
  T* back() const { return empty() ? nullptr : Owner(head_.previous); }
  // The element after `item`, or null at the end.
  T* Next(T* item) const {
    ListNode* next = (item->*kNode).next;
    return next == &head_ ? nullptr : Owner(next);
  }
  void PushBack(T* item) { InsertBefore(&head_, item); }
  void PushFront(T* item) { InsertBefore(head_.next, item); }
  void Remove(T* item) {
    ListNode* node = &(item->*kNode);
    CHECK(node->linked());
    node->previous->next = node->next;
    node->next->previous = node->previous;
    node->next = node->previous = nullptr;
    --size_;
  }
  T* PopFront() {
    T* item = front();
    if (item != nullptr) Remove(item);
    return item;
  }

 private:
  void InsertBefore(ListNode* position, T* item) {
    ListNode* node = &(item->*kNode);
    CHECK(!node->linked());
    node->next = position;
    node->previous = position->previous;
    position->previous->next = node;
    position->previous = node;
    ++size_;
  }
  static T* Owner(ListNode* node) {
    // The offset of the member within T, found without an object.
    alignas(T) static char anchor[sizeof(T)];
    const auto* object = reinterpret_cast<const T*>(anchor);
    const ptrdiff_t offset =
        reinterpret_cast<const char*>(&(object->*kNode)) - reinterpret_cast<const char*>(object);
    return reinterpret_cast<T*>(reinterpret_cast<char*>(node) - offset);
  }

  ListNode head_;
  size_t size_ = 0;
};

}  // namespace ankole

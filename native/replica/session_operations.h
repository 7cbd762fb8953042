#pragma once

#include <cstddef>
#include <cstdint>

#include "base/buffer_pool.h"
#include "base/intrusive_list.h"
#include "base/limits.h"
#include "base/result.h"
#include "replica/operation.h"
#include "wire/connection.h"
#include "wire/frame.h"

namespace ankole::replica {

class Session;

// One request of an engine from its frame until its answer has left.
struct SessionOperation {
  ReplicaOperation storage;
  wire::OutgoingFrame reply;
  wire::Header header;  // the request's
  Session* session = nullptr;
  BufferPool::Chunk* chunk = nullptr;  // data of READ and WRITE, extents of STATUS, …
  // Room for the checksums of a WRITE, which last as long as the storage needs them. Aligned.
  uint32_t* table = nullptr;
  uint64_t started_ns = 0;
  bool shared = false;    // came through shared memory, and is answered there
  ListNode waiting_node;  // waits for a chunk
  SessionOperation* next_free = nullptr;
};

// The operations of one session: kSessionOperationsMax of them at fixed addresses, made by first
// use, so that a session that has few in flight takes little memory and none allocates for an I/O.
class SessionOperations {
 public:
  SessionOperations() = default;
  ~SessionOperations();
  SessionOperations(const SessionOperations&) = delete;
  SessionOperations& operator=(const SessionOperations&) = delete;

  // Once, before the first Acquire.
  Status Reserve();
  // Null when all are in use.
  SessionOperation* Acquire();
  void Release(SessionOperation* operation);
  size_t used() const { return used_; }
  // Gives the memory back; none is in use.
  void Trim();

 private:
  void DestroyAll();

  SessionOperation* array_ = nullptr;
  std::byte* tables_ = nullptr;  // kSharedTableBytes each
  size_t made_ = 0;              // Invariant: array_[0, made_) are alive
  size_t used_ = 0;
  SessionOperation* free_ = nullptr;
};

}  // namespace ankole::replica

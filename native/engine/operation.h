#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/block_device.h"
#include "base/intrusive_list.h"
#include "engine/range_lock.h"
#include "wire/connection.h"

namespace ankole::engine {

struct Operation;

// One operation at one member.
struct MemberPart {
  enum class State : uint8_t {
    kUnused,    // not for this member
    kWaiting,   // must be answered by this member; sent if its link is up
    kAnswered,  // with kOk
    kFailed,    // with `error`
    kGone,      // the member left, or the operation no longer wants its answer
  };
  Operation* operation = nullptr;  // it is part of
  uint8_t index = 0;               // of the link
  State state = State::kUnused;
  bool answer_due = false;  // sent on the present connection
  bool frame_out = false;   // the frame is on its way to the kernel
  bool receiving = false;   // a large answer is on its way into the request's memory
  ErrorCode error = ErrorCode::kOk;
  uint64_t sent_ns = 0;
  BufferPool::Chunk* chunk = nullptr;  // a READ through shared memory: where its data comes
  wire::OutgoingFrame frame;
};

// A request on its way through the engine. Lives in a slot of OperationPool; the slot's number goes
// with the frames, so that an answer finds it without a search.
struct Operation {
  void* engine = nullptr;
  BlockRequest* request = nullptr;  // null once the front end was answered
  uint32_t slot = 0;
  uint64_t tag = 0;  // grows with each dispatch; never used twice in an epoch
  BlockOperation kind = BlockOperation::kRead;
  uint64_t offset_bytes = 0;
  uint32_t length_bytes = 0;
  bool locked = false;
  ErrorCode status = ErrorCode::kOk;
  // Invariants: each counts the parts of which the same is true.
  uint8_t waiting = 0;      // kWaiting
  uint8_t answered = 0;     // kAnswered
  uint8_t failed = 0;       // kFailed
  uint8_t answers_due = 0;  // answer_due
  uint8_t frames_out = 0;   // frame_out
  uint64_t last_answer_ns = 0;
  uint64_t retry_ns = 0;  // out of space: when it is, or was, tried again; 0: it never was
  // Its regions are pinned in the table of dirty ones (rule 5).
  bool pinned = false;
  uint64_t queued_ns = 0;  // since when it waits for regions to be cleaned
  // kFlush: what RegionTable gave for it; 0: it does not go to all that matter.
  uint64_t flush_ticket = 0;
  // What a flush or write is to a joiner: it takes part from Dispatch on.
  bool to_joiner = false;
  bool own = false;      // an OwnRequest
  bool anyway = false;   // kRead: also from a member where a sync failed
  bool refused = false;  // kClean: at a replica that holds another record by now
  bool partly = false;   // kClean: a replica needs another one for the rest of it
  // Its range is made equal before it goes to the members (rule 7), or repaired (rule 9).
  bool repair = false;
  bool repaired = false;        // that was tried
  uint64_t prepared_bytes = 0;  // how far
  ErrorCode prepare_status = ErrorCode::kOk;
  void* preparer = nullptr;
  void (*ready)(Operation*) = nullptr;
  uint32_t table_bytes = 0;
  uint32_t table_crc32c = 0;
  std::byte* table = nullptr;  // room for the checksums of kDataBytesMax
  LockRequest lock;
  std::array<MemberPart, kReplicasMax> parts;
  ListNode node;        // in flight in the order of tags, or left over
  ListNode queue_node;  // to be judged, held acknowledgements, or retries
  Operation* next_free = nullptr;

  bool is_write() const {
    return kind == BlockOperation::kWrite || kind == BlockOperation::kZero ||
           kind == BlockOperation::kUnmap || kind == BlockOperation::kStoreState;
  }
  // Data goes with it, with its checksums in `table`.
  bool carries_data() const {
    return kind == BlockOperation::kWrite || kind == BlockOperation::kStoreState;
  }
  // To all members, rather than one.
  bool fans_out() const {
    return is_write() || kind == BlockOperation::kFlush || kind == BlockOperation::kClean;
  }
  // Changes data of regions of the volume.
  bool dirties() const { return is_write() && kind != BlockOperation::kStoreState; }
  // How long it takes is not for the replica to promise: it is waited for while that says that it
  // works.
  bool takes_its_time() const {
    return kind == BlockOperation::kFlush || kind == BlockOperation::kUnmap ||
           kind == BlockOperation::kZero;
  }
  // Nothing outside refers to it: no frame on its way out, no answer due.
  bool quiet() const { return frames_out == 0 && answers_due == 0; }
};

inline bool IsState(BlockOperation kind) {
  return kind == BlockOperation::kLoadState || kind == BlockOperation::kStoreState;
}

// The target state is locked as a block that no volume has.
inline constexpr uint64_t kStateBlock = UINT64_MAX - 1;

// The request that a member gets for it. Not for kHold.
wire::Opcode OpcodeOf(BlockOperation kind);

// Slots for operations in memory that is only touched as deep as the queue ever was.
class OperationPool {
 public:
  explicit OperationPool(size_t slots);
  ~OperationPool();
  OperationPool(const OperationPool&) = delete;
  OperationPool& operator=(const OperationPool&) = delete;

  Operation* Acquire();  // null: all are out
  void Release(Operation* operation);
  // The operation in that slot, or null when there never was one (a peer may send any number).
  Operation* At(uint32_t slot);
  size_t used() const { return used_; }

 private:
  std::byte* memory_ = nullptr;
  std::byte* tables_ = nullptr;
  size_t slots_;
  size_t touched_ = 0;
  size_t used_ = 0;
  Operation* free_ = nullptr;
};

}  // namespace ankole::engine

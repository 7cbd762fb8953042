#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/buffer_pool.h"
#include "base/result.h"

// The face that an engine shows to its front ends (nbd, scsi).
namespace ankole {

// A run of blocks of one kind, for NBD's block status and SCSI's GET LBA STATUS.
struct BlockExtent {
  uint64_t length_bytes = 0;
  bool hole = false;  // takes up no space in any layer
  bool zero = false;  // reads as zeros
};

enum class BlockOperation : uint8_t {
  kRead,
  kWrite,
  kZero,
  kUnmap,
  kFlush,
  kStatus,
  // Reads and writes the target state: what a SCSI target has to know again when another engine
  // serves the volume (persistent reservations). One blob of kTargetStateBytes, zeros at first,
  // outside of the blocks; kept by all members. A store is on stable storage of all before `done`.
  kLoadState,
  kStoreState,
  // Takes the range for its submitter alone: `done` runs when every request that overlaps it and
  // came before has ended, and later ones wait until Release. Meanwhile the requests that name it
  // in `hold` go on within it; so several of them are one atomic step for everybody else.
  kHold,
  // The device's own: regions that are the same everywhere. Never submitted by others.
  kClean,
};
// Those that are counted one by one: the first six.
inline constexpr size_t kBlockOperations = 6;

// One request. The submitter owns it and keeps it, and the memory at `data`, alive and unchanged
// until `done` runs. The front end has checked range and alignment: Submit CHECKs them.
struct BlockRequest {
  BlockOperation operation = BlockOperation::kRead;
  bool force_unit_access = false;  // kWrite, kZero, kUnmap: on stable storage before `done`
  bool keep_allocated = false;     // kZero: do not free the space (NBD_CMD_FLAG_NO_HOLE)
  uint64_t offset_bytes = 0;       // multiple of kSectorBytes; 0 for kFlush and the state
  uint64_t length_bytes = 0;       // multiple of kSectorBytes, > 0; 0 for kFlush; the state's size.
                                   // Invariant: kRead, kWrite: <= kDataBytesMax
  // kWrite, kStoreState: source; kRead, kLoadState: destination. From BlockDevice::buffers().
  std::byte* data = nullptr;
  // kRead to kUnmap: a kHold that is held and covers the range, or null.
  BlockRequest* hold = nullptr;
  BlockExtent* extents = nullptr;  // kStatus: filled in order from offset_bytes
  uint32_t extents_max = 0;        // kStatus: room in `extents`, > 0
  uint32_t extents_count = 0;      // kStatus: how many were filled; they may cover less than asked
  ErrorCode status = ErrorCode::kOk;      // the outcome, valid in `done`
  void (*done)(BlockRequest*) = nullptr;  // on the reactor's thread, never from within Submit
  BlockRequest* next = nullptr;           // the device's while submitted
  uint64_t submitted_ns = 0;              // the device's: for the latency histogram
  void* held_by = nullptr;                // kHold: the device's while it is held
};

class BlockDevice {
 public:
  virtual ~BlockDevice() = default;
  virtual const std::string& name() const = 0;
  virtual uint64_t size_bytes() const = 0;
  // Where data of requests lives (it may be memory shared with disk hosts).
  virtual BufferPool& buffers() = 0;
  // Takes the request; `done` will run exactly once, later.
  virtual void Submit(BlockRequest* request) = 0;
  // Ends a kHold whose `done` ran with kOk. No request that names it is submitted any more. What
  // waited for it may be answered from within.
  virtual void Release(BlockRequest* hold) = 0;
  // Takes kRead, kStatus and kFlush alone, and answers all else with kReadOnly.
  virtual bool read_only() const { return false; }
  // A front end's client has begun to use it, and has ended; it stays until all have.
  virtual void ClientCame() {}
  virtual void ClientLeft() {}
};

// Devices that there are beside the one that a front end is made for.
class BlockDevices {
 public:
  // Null: there is none of that name.
  virtual BlockDevice* Find(std::string_view name) = 0;

 protected:
  ~BlockDevices() = default;
};

}  // namespace ankole

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

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

enum class BlockOperation : uint8_t { kRead, kWrite, kZero, kUnmap, kFlush, kStatus };
inline constexpr size_t kBlockOperations = 6;

// One request. The submitter owns it and keeps it, and the memory at `data`, alive and unchanged
// until `done` runs. The front end has checked range and alignment: Submit CHECKs them.
struct BlockRequest {
  BlockOperation operation = BlockOperation::kRead;
  bool force_unit_access = false;  // kWrite, kZero, kUnmap: on stable storage before `done`
  bool keep_allocated = false;     // kZero: do not free the space (NBD_CMD_FLAG_NO_HOLE)
  uint64_t offset_bytes = 0;       // multiple of kSectorBytes; 0 for kFlush
  uint64_t length_bytes = 0;       // multiple of kSectorBytes, > 0; 0 for kFlush.
                                   // Invariant: kRead, kWrite: <= kDataBytesMax
  std::byte* data = nullptr;  // kWrite: source; kRead: destination. From BlockDevice::buffers()
  BlockExtent* extents = nullptr;  // kStatus: filled in order from offset_bytes
  uint32_t extents_max = 0;        // kStatus: room in `extents`, > 0
  uint32_t extents_count = 0;      // kStatus: how many were filled; they may cover less than asked
  ErrorCode status = ErrorCode::kOk;      // the outcome, valid in `done`
  void (*done)(BlockRequest*) = nullptr;  // on the reactor's thread, never from within Submit
  BlockRequest* next = nullptr;           // the device's while submitted
  uint64_t submitted_ns = 0;              // the device's: for the latency histogram
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
};

}  // namespace ankole

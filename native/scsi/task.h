#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/block_device.h"
#include "base/intrusive_list.h"
#include "base/limits.h"
#include "scsi/command.h"
#include "scsi/limits.h"
#include "scsi/sense.h"

// One SCSI command on its way through the logical unit (SAM-5, 8: «task»; later drafts say
// command).
namespace ankole::scsi {

class Nexus;

// SAM-5, 5.3.1.
enum class ScsiStatus : uint8_t {
  kGood = 0x00,
  kCheckCondition = 0x02,
  kConditionMet = 0x04,
  kBusy = 0x08,
  kReservationConflict = 0x18,
  kTaskSetFull = 0x28,
  kTaskAborted = 0x40,
};

// SAM-5, 8.6.
enum class TaskAttribute : uint8_t { kSimple, kOrdered, kHeadOfQueue, kAca };

// Memory of BlockDevice::buffers().
struct Segment {
  std::byte* data = nullptr;
  uint32_t bytes = 0;
};
// All but the last are kDataBytesMax long, so that a byte is found by division.
using Segments = std::array<Segment, kSegmentsMax>;

struct Task;

struct TaskRequest : BlockRequest {
  Task* task = nullptr;
};

// The logical unit's view of a task.
enum class Stage : uint8_t {
  kIdle,      // the transport's
  kDormant,   // waits for earlier tasks (SAM-5, 8.5)
  kQueued,    // a PERSISTENT RESERVE OUT that waits for another one to be stored
  kRunning,   // requests are at the device
  kFinished,  // `done` is about to run
};

// Owned by the transport, from a fixed pool.
struct Task {
  // --- set by the transport before Prepare
  Nexus* nexus = nullptr;
  std::array<uint8_t, 8> lun = {};  // as it came (SAM-5, 4.7)
  TaskAttribute attribute = TaskAttribute::kSimple;
  std::array<uint8_t, 16> cdb = {};
  // On the reactor's thread, once for each Execute, never from within it.
  void (*done)(Task*) = nullptr;
  void* owner = nullptr;

  // --- set by the transport before Execute
  // Data-Out that the initiator announced, which may be more than `Needs` asked for; 0 if none.
  // COMPARE AND WRITE and WRITE SAME are refused when it is not what the CDB says, as one of the
  // two is then not what was meant.
  uint32_t announced_out_bytes = 0;
  // What has come. Fewer bytes than `Needs` asked for where the initiator announced fewer.
  uint32_t out_bytes = 0;
  Segments out;
  // Room for what Needs asked for, or less where the initiator expects less (in_room_bytes). The
  // memory itself reaches on to the next multiple of kSectorBytes, so that part of a block can be
  // read.
  uint32_t in_room_bytes = 0;
  Segments in;
  Segments scratch;

  // --- the outcome, valid in `done`
  ScsiStatus status = ScsiStatus::kGood;
  Sense sense;            // with kCheckCondition
  uint32_t in_bytes = 0;  // valid Data-In in `in`, <= in_room_bytes
  // What the command wanted to move, for the residual count: of Data-In before it was cut to
  // in_room_bytes, or of Data-Out.
  uint32_t wanted_bytes = 0;

  // --- the logical unit's from Prepare until `done`
  Command command;
  bool prepared = false;
  bool refused = false;  // by Prepare: status and sense stand
  bool aborted = false;  // `done` comes all the same; the initiator gets no answer
  Stage stage = Stage::kIdle;
  bool holding = false;  // `hold` is held
  // What goes on when all requests have ended well; null: GOOD.
  void (*proceed)(Task*) = nullptr;
  uint64_t next_bytes = 0;  // how far a command of several steps has come
  // EXTENDED COPY: segments that are done, and what has been copied of all.
  uint32_t next_segment = 0;
  uint32_t copied_bytes = 0;
  uint32_t requests_busy = 0;
  // The first request that failed, and whether it was to change the medium.
  ErrorCode fault = ErrorCode::kOk;
  bool fault_of_write = false;
  std::array<TaskRequest, kSegmentsMax> requests;
  TaskRequest hold;
  ListNode node;
};

}  // namespace ankole::scsi

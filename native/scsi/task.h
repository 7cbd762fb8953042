#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/block_device.h"
#include "base/intrusive_list.h"
#include "base/limits.h"
#include "scsi/command.h"
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

// The longest transfer of one command, as VPD page B0h says. It bounds what one command pins.
inline constexpr uint32_t kTransferBytesMax = 8 * kMiB;
inline constexpr size_t kSegmentsMax = kTransferBytesMax / kDataBytesMax;

// Memory of BlockDevice::buffers().
struct Segment {
  std::byte* data = nullptr;
  uint32_t bytes = 0;
};
// All but the last are kDataBytesMax long, so that a byte is found by division.
using Segments = std::array<Segment, kSegmentsMax>;

// The memory that a command needs to be executed. The transport provides it, as it owns the bounds.
struct Needs {
  uint32_t out_bytes = 0;      // Data-Out that the CDB asks for; <= kTransferBytesMax
  uint32_t in_bytes = 0;       // room for Data-In; <= kTransferBytesMax
  uint32_t scratch_bytes = 0;  // for what is read only to be compared or merged
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
  void (*proceed)(Task*) = nullptr;
  uint64_t next_bytes = 0;
  uint32_t requests_busy = 0;
  std::array<BlockRequest, kSegmentsMax> requests;
  BlockRequest hold;
  ListNode node;
};

}  // namespace ankole::scsi

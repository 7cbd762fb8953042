#pragma once

#include <array>
#include <cstdint>

#include "base/buffer_pool.h"
#include "base/intrusive_list.h"
#include "iscsi/limits.h"
#include "iscsi/pdu.h"
#include "scsi/task.h"

namespace ankole::iscsi {

class Connection;

// Where a request is. Only Connection moves it.
enum class RequestState : uint8_t {
  kFree,
  kHeld,       // no SCSI command: came before its turn (CmdSN)
  kGathering,  // SCSI: its turn, memory or Data-Out is missing
  kAtUnit,     // the logical unit has it
  kReady,      // its answer is to be sent, or is being sent
};

// Why a command is not carried out though its CDB is fine (RFC 7143, 11.4.7.2).
enum class DataFault : uint8_t {
  kNone,
  kBidirectional,  // no command has data both ways
  kUnexpected,     // unsolicited data that was not agreed on, or too much
  kMissing,        // less data than was asked for, or in another order
};

// What an initiator sent and is owed an answer: a SCSI command, or anything else with a CmdSN. From
// a fixed pool of its connection.
struct Request : scsi::Task {
  Connection* connection = nullptr;
  ListNode link;       // on one of the connection's lists, by stage
  ListNode r2t_link;   // R2Ts are to be sent
  uint32_t index = 0;  // in the pool, for transfer tags

  RequestState state = RequestState::kFree;
  bool immediate = false;
  bool turn = false;    // all commands before it have come
  bool doomed = false;  // aborted while it could not be freed; goes without an answer
  uint32_t tag = kNoTag;
  uint32_t command_number = 0;
  BasicHeader header;

  // --- Data-Out
  uint32_t expected_bytes = 0;  // Expected Data Transfer Length
  uint32_t want_bytes = 0;      // what of it the command takes; the rest is thrown away
  uint32_t received_bytes = 0;  // from the beginning, in order
  bool unsolicited = false;     // PDUs that nobody asked for are still to come
  DataFault fault = DataFault::kNone;
  uint32_t data_number = 0;         // DataSN of the next PDU of this sequence
  uint32_t solicited_bytes = 0;     // R2Ts were sent up to here
  uint32_t sequence_end_bytes = 0;  // of the R2T that is being answered
  uint32_t r2t_sent = 0;            // the next one's R2TSN
  uint32_t r2t_answered = 0;

  // --- memory
  scsi::Needs needs;
  bool has_memory = false;
  // Of the reserve: the window in which small data arrived, or a first burst.
  BufferPool::Chunk* reserved = nullptr;
  std::array<BufferPool::Chunk*, 2 * scsi::kSegmentsMax + 1> chunks;
  uint32_t chunks_count = 0;

  // --- the answer
  uint8_t response = 0;         // of task management and logout
  uint32_t sent_bytes = 0;      // of Data-In
  uint32_t data_in_number = 0;  // DataSN
  // Ping data, or a text that waits for its turn: within `reserved`.
  const std::byte* data = nullptr;
  uint32_t data_bytes = 0;
};

}  // namespace ankole::iscsi

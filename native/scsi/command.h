#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "scsi/sense.h"

// What a CDB says, decoded and within its bounds.
namespace ankole::scsi {

using Cdb = std::array<uint8_t, 16>;

// What is done; commands that differ only in the size of their fields are one kind.
enum class Kind : uint8_t {
  kTestUnitReady,
  kRequestSense,
  kInquiry,
  kReportLuns,
  kModeSense,
  kModeSelect,
  kLogSense,
  kStartStopUnit,
  kPreventAllow,
  kReserve,
  kRelease,
  kPersistentIn,
  kPersistentOut,
  kReportOperationCodes,
  kReportTaskManagement,
  kReadCapacity10,
  kReadCapacity16,
  kReadDefectData,
  kGetLbaStatus,
  kRead,
  kWrite,
  kWriteAndVerify,
  kVerify,
  kCompareAndWrite,
  kOrWrite,
  kPreFetch,
  kSynchronizeCache,
  kUnmap,
  kWriteSame,
  kExtendedCopy,
  kCopyStatus,
  kCopyParameters,
};
inline constexpr int kKinds = 32;

// What a reservation of somebody else leaves allowed (SPC-4, table 66; SBC-3, table 13).
enum class Access : uint8_t {
  kAlways,  // harmless, or with rules of its own
  kReads,   // conflicts with an exclusive access reservation
  kWrites,  // conflicts with any reservation
};

// BYTCHK (SBC-3, 5.36).
enum class ByteCheck : uint8_t {
  kMedium = 0,    // the blocks can be read
  kCompare = 1,   // they are equal to Data-Out
  kRepeated = 3,  // each is equal to the one block of Data-Out
};

struct Command {
  Kind kind = Kind::kTestUnitReady;
  Access access = Access::kAlways;
  uint8_t operation = 0;
  uint8_t service_action = 0;
  uint8_t cdb_bytes = 6;

  // Invariant: lba + blocks <= the capacity.
  uint64_t lba = 0;
  uint64_t blocks = 0;
  uint32_t parameter_bytes = 0;   // of Data-Out that is not data of the medium
  uint32_t allocation_bytes = 0;  // Data-In that is not data of the medium is cut to it

  bool force_unit_access = false;
  ByteCheck byte_check = ByteCheck::kMedium;
  bool unmap = false;        // WRITE SAME: blocks may be unmapped
  bool no_data_out = false;  // WRITE SAME: zeros, and no Data-Out
  bool vital_data = false;   // INQUIRY: the page and not the standard data
  bool descriptor = false;   // REQUEST SENSE: in that format
  uint8_t page = 0;          // INQUIRY, MODE SENSE, LOG SENSE; READ DEFECT DATA: lists and format
  uint8_t subpage = 0;       // MODE SENSE, LOG SENSE
  uint8_t page_control = 0;  // MODE SENSE: current, changeable, default, saved
  bool no_block_descriptors = false;  // MODE SENSE
  bool long_addresses = false;        // MODE SENSE: the block descriptor of 16 bytes will do
  uint8_t select = 0;                 // REPORT LUNS; REPORT SUPPORTED OPERATION CODES: options
  uint8_t asked_operation = 0;        // REPORT SUPPORTED OPERATION CODES
  uint16_t asked_service_action = 0;
  bool timeouts = false;  // REPORT SUPPORTED OPERATION CODES: RCTD
  bool extended = false;  // REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS: REPD
  uint8_t scope = 0;      // PERSISTENT RESERVE OUT
  uint8_t type = 0;
  uint8_t list_identifier = 0;  // RECEIVE COPY RESULTS: of which copy
  bool start = false;           // START STOP UNIT
  bool flush_first = false;     // START STOP UNIT
};

// One supported command, for Decode and REPORT SUPPORTED OPERATION CODES.
struct Supported {
  uint8_t operation;
  bool has_service_action;
  uint8_t service_action;  // Invariant: 0 without has_service_action
  uint8_t cdb_bytes;
  Kind kind;
  Access access;
  // Which bits are looked at (SPC-4, 6.35.3: CDB usage data). The operation code and the service
  // action stand for themselves.
  Cdb usage;
};
std::span<const Supported> SupportedCommands();
// Those with that operation code: none, one, or one a service action.
std::span<const Supported> SupportedCommands(uint8_t operation);

// Decodes the CDB for a medium of `capacity_blocks`; the Sense says why it cannot be. Reserved bits
// are not looked at (SPC-4, 4.2.5.1 leaves that open), values that are reserved in a field are.
std::optional<Sense> Decode(const Cdb& cdb, uint64_t capacity_blocks, Command* to);

// The memory that a command needs to be executed. The transport provides it, as it owns the bounds.
struct Needs {
  uint32_t out_bytes = 0;      // Data-Out that the CDB asks for; <= kTransferBytesMax
  uint32_t in_bytes = 0;       // room for Data-In; <= kTransferBytesMax
  uint32_t scratch_bytes = 0;  // for what is read only to be compared or merged
};
Needs NeedsOf(const Command& command);

}  // namespace ankole::scsi

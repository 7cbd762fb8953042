#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/limits.h"
#include "base/result.h"

// Frames of the replication protocol, version 1. The text is docs/internals/wire-protocol.md;
// numbers and offsets here and there must be the same.
namespace ankole::wire {

inline constexpr uint32_t kMagic = 0x4b4e4131;  // "1ANK" on the wire
inline constexpr uint8_t kVersion = 1;
inline constexpr size_t kHeaderBytes = 64;

enum class Opcode : uint8_t {
  kHello = 1,    // engine introduces itself; the answer is the challenge
  kAuth = 2,     // the engine's proof; from its answer on the rest is allowed
  kInquire = 3,  // asks for the replica's state, fences nobody
  kWelcome = 4,  // takes the replica for this epoch, fences off every other connection
  kRecord = 5,   // writes the membership record, durable before the answer
  kRead = 6,
  kWrite = 7,
  kZero = 8,
  kUnmap = 9,
  kFlush = 10,
  kStatus = 11,      // which parts are holes or zeros
  kPing = 12,        // «working»: answered whatever else is going on
  kClose = 13,       // clean stop: flush, and note that it is clean
  kShare = 14,       // brings one descriptor for frames through shared memory
  kLoadState = 15,   // what a SCSI target keeps with the volume
  kStoreState = 16,  // durable before the answer
  kMark = 17,        // regions dirty, durable before the answer (rule 5)
  kClean = 18,       // regions that are equal on all members
  kSum = 19,         // checksums of blocks, computed where they lie
  kMaps = 20,        // which missing maps there are
  kMap = 21,         // the regions of one map
  kMissing = 22,     // begins or frees the missing map of a replica
  kRecent = 23,      // regions of writes that may not be complete (rule 7)
  kBad = 24,         // blocks that are good nowhere (rule 9)
  kLayers = 25,      // which layers there are
  kPrepare = 26,     // makes the head that a RECORD may switch to (rule 8)
  kSwitch = 27,      // switches to it: at a joiner
  kSeal = 28,        // what is under the head is durable at all members
  kDelete = 29,      // a snapshot goes
  kView = 30,        // opens a snapshot for READ, SUM and STATUS
  kCloseView = 31,
  kChanged = 32,  // regions that may differ between two layers
  kExpand = 33,   // the volume becomes larger, durable before the answer
};
inline constexpr uint8_t kReplyBit = 0x80;

// Header flags.
inline constexpr uint16_t kFlagForceUnitAccess = 1;  // kWrite, kZero, kUnmap
inline constexpr uint16_t kFlagKeepAllocated = 2;    // kZero
inline constexpr uint16_t kFlagResynced = 4;         // kRecord: the replica was made equal (rule 7)
inline constexpr uint16_t kFlagAnyway = 8;  // kRead, kSum: also where a sync failed (rule 1)
inline constexpr uint16_t kFlagStillLost =
    16;  // kRecord: what it lost before counts still (rule 7)
// kRead, kWrite, kSum: not to be kept in the page cache, as nobody asks for it again soon (DPO in
// SBC).
inline constexpr uint16_t kFlagDisablePageOut = 128;
inline constexpr uint16_t kFlagsKnown = 159;

// A header after Decode: every field within its bounds.
struct Header {
  Opcode opcode = Opcode::kPing;
  bool reply = false;
  uint16_t flags = 0;
  ErrorCode status = ErrorCode::kOk;  // replies
  uint64_t tag = 0;                   // the request's; its reply repeats it
  uint32_t slot = 0;                  // the sender's own index; its reply repeats it
  uint16_t view = 0;  // requests READ, SUM and STATUS: a snapshot that VIEW opened; 0: the head
  uint64_t offset_bytes = 0;
  uint32_t length_bytes = 0;   // of the range of the volume
  uint64_t complete_tag = 0;   // requests: all tags up to this one are complete (rule 7)
  uint32_t payload_bytes = 0;  // what follows the header
  uint32_t payload_crc32c = 0;
  // In shared memory only: where the data of a READ or WRITE lies. Such frames have no payload
  // behind the header.
  bool shared = false;
  uint64_t shared_offset_bytes = 0;

  // Whether the payload is a table of block checksums and then data.
  bool carries_data() const {
    return (!reply && (opcode == Opcode::kWrite || opcode == Opcode::kStoreState)) ||
           (reply && (opcode == Opcode::kRead || opcode == Opcode::kLoadState) &&
            status == ErrorCode::kOk);
  }
  // Bytes of the table of checksums: the payload's CRC covers the table, the table covers the data.
  uint32_t table_bytes() const {
    return carries_data() ? BlocksTouched(offset_bytes, length_bytes) * 4 : 0;
  }
};

using EncodedHeader = std::byte[kHeaderBytes];

// Offsets of the fields; all little-endian.
inline constexpr size_t kMagicAt = 0;          // u32
inline constexpr size_t kVersionAt = 4;        // u8
inline constexpr size_t kOpcodeAt = 5;         // u8, with kReplyBit
inline constexpr size_t kFlagsAt = 6;          // u16
inline constexpr size_t kTagAt = 8;            // u64
inline constexpr size_t kOffsetAt = 16;        // u64
inline constexpr size_t kLengthAt = 24;        // u32
inline constexpr size_t kStatusAt = 28;        // u16
inline constexpr size_t kViewAt = 30;          // u16
inline constexpr size_t kCompleteTagAt = 32;   // u64
inline constexpr size_t kSlotAt = 40;          // u32
inline constexpr size_t kPayloadBytesAt = 44;  // u32
inline constexpr size_t kPayloadCrcAt = 48;    // u32
inline constexpr size_t kSharedOffsetAt = 52;  // u64; zero on a stream
inline constexpr size_t kHeaderCrcAt = 60;     // u32, of the 60 bytes before
static_assert(kHeaderCrcAt + 4 == kHeaderBytes);

// CHECKs that the header obeys the rules of Decode.
void EncodeHeader(const Header& header, std::byte* to);
// kProtocolError naming the cause. Checks everything that can be told without knowing the volume:
// magic, version, checksum, opcode, flags, reserved bytes, and that the lengths fit each other and
// base/limits.h.
Result<Header> DecodeHeader(std::span<const std::byte, kHeaderBytes> from);
// The same for an entry of a ring in shared memory.
Result<Header> DecodeSharedHeader(std::span<const std::byte, kHeaderBytes> from);

// Whether the payload of a control frame, or the table of a data frame, matches its checksum.
bool PayloadMatches(const Header& header, const std::byte* payload_or_table);
// Whether the data matches the table (`table` need not be aligned).
bool DataMatches(const Header& header, const std::byte* table, const std::byte* data);

const char* OpcodeName(Opcode opcode);

}  // namespace ankole::wire

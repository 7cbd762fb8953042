#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "base/bytes.h"
#include "base/limits.h"

// The bytes of iSCSI's protocol data units (RFC 7143, section 11), as pure functions. Everything is
// big-endian. Each format is 48 bytes, the basic header segment; what follows it is additional
// header segments, a header digest, data padded to four bytes, and a data digest.
namespace ankole::iscsi {

template <typename T, size_t kBytes>
class BigEndian {
 public:
  BigEndian() = default;
  BigEndian(T value) { *this = value; }  // NOLINT: implicit, it is the same number
  BigEndian& operator=(T value) {
    for (size_t i = 0; i < kBytes; ++i) {
      bytes_[i] = static_cast<uint8_t>(value >> (8 * (kBytes - 1 - i)));
    }
    return *this;
  }
  operator T() const {  // NOLINT: implicit, it is the same number
    T value = 0;
    for (const uint8_t byte : bytes_) value = static_cast<T>(value << 8 | byte);
    return value;
  }

 private:
  uint8_t bytes_[kBytes] = {};
};
using Big16 = BigEndian<uint16_t, 2>;
using Big24 = BigEndian<uint32_t, 3>;
using Big32 = BigEndian<uint32_t, 4>;

using Lun = std::array<uint8_t, 8>;
using Isid = std::array<uint8_t, 6>;

enum class Opcode : uint8_t {
  kNopOut = 0x00,
  kScsiCommand = 0x01,
  kTaskManagementRequest = 0x02,
  kLoginRequest = 0x03,
  kTextRequest = 0x04,
  kDataOut = 0x05,
  kLogoutRequest = 0x06,
  kSnack = 0x10,
  kNopIn = 0x20,
  kScsiResponse = 0x21,
  kTaskManagementResponse = 0x22,
  kLoginResponse = 0x23,
  kTextResponse = 0x24,
  kDataIn = 0x25,
  kLogoutResponse = 0x26,
  kReadyToTransfer = 0x31,
  kAsyncMessage = 0x32,
  kReject = 0x3f,
};

inline constexpr uint8_t kOpcodeMask = 0x3f;
inline constexpr uint8_t kFlagImmediate = 0x40;  // beside the opcode of requests
inline constexpr uint32_t kNoTag = 0xffffffff;

inline constexpr uint8_t kFlagFinal = 0x80;
inline constexpr uint8_t kFlagTransit = 0x80;   // login
inline constexpr uint8_t kFlagContinue = 0x40;  // login and text
inline constexpr uint8_t kFlagRead = 0x40;      // SCSI Command
inline constexpr uint8_t kFlagWrite = 0x20;
inline constexpr uint8_t kAttributeMask = 0x07;
inline constexpr uint8_t kFlagOverflow = 0x04;  // SCSI Response and Data-In
inline constexpr uint8_t kFlagUnderflow = 0x02;
inline constexpr uint8_t kFlagStatus = 0x01;  // Data-In carries the status

// RFC 7143, 11.17.1.
enum class RejectReason : uint8_t {
  kDataDigest = 0x02,
  kSnack = 0x03,
  kProtocolError = 0x04,
  kNotSupported = 0x05,
  kImmediate = 0x06,
  kTaskInProgress = 0x07,
  kInvalidField = 0x09,
};

enum class TaskFunction : uint8_t {
  kAbortTask = 1,
  kAbortTaskSet = 2,
  kClearAca = 3,
  kClearTaskSet = 4,
  kLogicalUnitReset = 5,
  kTargetWarmReset = 6,
  kTargetColdReset = 7,
  kTaskReassign = 8,
};

enum class TaskFunctionResponse : uint8_t {
  kComplete = 0,
  kNoTask = 1,
  kNoLun = 2,
  kNoReassign = 4,
  kNotSupported = 5,
  kRejected = 255,
};

enum class LogoutReason : uint8_t { kSession = 0, kConnection = 1, kRecovery = 2 };
enum class LogoutResponseCode : uint8_t { kClosed = 0, kNoConnection = 1, kNoRecovery = 2 };

enum class AsyncEvent : uint8_t { kDropsAllConnections = 3 };

// --- formats -----------------------------------------------------------------------------------

struct BasicHeader {
  uint8_t opcode = 0;
  uint8_t flags = 0;
  uint8_t specific[2] = {};
  uint8_t ahs_words = 0;  // TotalAHSLength, in units of four bytes
  Big24 data_bytes;       // DataSegmentLength, without padding
  Lun lun = {};
  Big32 task_tag;  // Initiator Task Tag
  uint8_t fields[28] = {};
};
inline constexpr uint32_t kHeaderBytes = 48;
static_assert(sizeof(BasicHeader) == kHeaderBytes && alignof(BasicHeader) == 1);
static_assert(offsetof(BasicHeader, data_bytes) == 5);
static_assert(offsetof(BasicHeader, lun) == 8);
static_assert(offsetof(BasicHeader, task_tag) == 16);

struct ScsiCommand {
  uint8_t opcode = 0;
  uint8_t flags = 0;
  uint8_t reserved[2] = {};
  uint8_t ahs_words = 0;
  Big24 data_bytes;
  Lun lun = {};
  Big32 task_tag;
  Big32 expected_bytes;  // Expected Data Transfer Length
  Big32 command_number;  // CmdSN
  Big32 expected_status;
  std::array<uint8_t, 16> cdb = {};
};
static_assert(sizeof(ScsiCommand) == kHeaderBytes);
static_assert(offsetof(ScsiCommand, expected_bytes) == 20);
static_assert(offsetof(ScsiCommand, command_number) == 24);
static_assert(offsetof(ScsiCommand, cdb) == 32);

struct ScsiResponse {
  uint8_t opcode = 0;
  uint8_t flags = 0;
  uint8_t response = 0;
  uint8_t status = 0;
  uint8_t ahs_words = 0;
  Big24 data_bytes;
  uint8_t reserved[8] = {};
  Big32 task_tag;
  Big32 snack_tag;
  Big32 status_number;
  Big32 expected_command;
  Big32 max_command;
  Big32 expected_data;
  Big32 read_residual;
  Big32 residual;
};
static_assert(sizeof(ScsiResponse) == kHeaderBytes);
static_assert(offsetof(ScsiResponse, status_number) == 24);
static_assert(offsetof(ScsiResponse, expected_data) == 36);
static_assert(offsetof(ScsiResponse, residual) == 44);

struct TaskManagementRequest {
  uint8_t opcode = 0;
  uint8_t flags = 0;  // and the function
  uint8_t reserved[2] = {};
  uint8_t ahs_words = 0;
  Big24 data_bytes;
  Lun lun = {};
  Big32 task_tag;
  Big32 referenced_tag;
  Big32 command_number;
  Big32 expected_status;
  Big32 referenced_command;
  Big32 expected_data;
  uint8_t reserved_end[8] = {};
};
static_assert(sizeof(TaskManagementRequest) == kHeaderBytes);
static_assert(offsetof(TaskManagementRequest, referenced_tag) == 20);
static_assert(offsetof(TaskManagementRequest, referenced_command) == 32);

// Also the answer to Logout and Text, as far as they are alike; and Reject.
struct TaskManagementResponse {
  uint8_t opcode = 0;
  uint8_t flags = 0;
  uint8_t response = 0;
  uint8_t reserved = 0;
  uint8_t ahs_words = 0;
  Big24 data_bytes;
  uint8_t reserved_lun[8] = {};
  Big32 task_tag;
  Big32 reserved_tag;
  Big32 status_number;
  Big32 expected_command;
  Big32 max_command;
  uint8_t reserved_end[12] = {};
};
static_assert(sizeof(TaskManagementResponse) == kHeaderBytes);
static_assert(offsetof(TaskManagementResponse, max_command) == 32);

struct DataOut {
  uint8_t opcode = 0;
  uint8_t flags = 0;
  uint8_t reserved[2] = {};
  uint8_t ahs_words = 0;
  Big24 data_bytes;
  Lun lun = {};
  Big32 task_tag;
  Big32 transfer_tag;
  Big32 reserved_number;
  Big32 expected_status;
  Big32 reserved_word;
  Big32 data_number;
  Big32 offset_bytes;
  Big32 reserved_end;
};
static_assert(sizeof(DataOut) == kHeaderBytes);
static_assert(offsetof(DataOut, transfer_tag) == 20);
static_assert(offsetof(DataOut, data_number) == 36);
static_assert(offsetof(DataOut, offset_bytes) == 40);

struct DataIn {
  uint8_t opcode = 0;
  uint8_t flags = 0;
  uint8_t reserved = 0;
  uint8_t status = 0;
  uint8_t ahs_words = 0;
  Big24 data_bytes;
  Lun lun = {};
  Big32 task_tag;
  Big32 transfer_tag;
  Big32 status_number;
  Big32 expected_command;
  Big32 max_command;
  Big32 data_number;
  Big32 offset_bytes;
  Big32 residual;
};
static_assert(sizeof(DataIn) == kHeaderBytes);
static_assert(offsetof(DataIn, data_number) == 36);
static_assert(offsetof(DataIn, residual) == 44);

struct ReadyToTransfer {
  uint8_t opcode = 0;
  uint8_t flags = 0;
  uint8_t reserved[2] = {};
  uint8_t ahs_words = 0;
  Big24 data_bytes;
  Lun lun = {};
  Big32 task_tag;
  Big32 transfer_tag;
  Big32 status_number;
  Big32 expected_command;
  Big32 max_command;
  Big32 number;  // R2TSN
  Big32 offset_bytes;
  Big32 desired_bytes;
};
static_assert(sizeof(ReadyToTransfer) == kHeaderBytes);
static_assert(offsetof(ReadyToTransfer, number) == 36);
static_assert(offsetof(ReadyToTransfer, desired_bytes) == 44);

struct AsyncMessage {
  uint8_t opcode = 0;
  uint8_t flags = 0;
  uint8_t reserved[2] = {};
  uint8_t ahs_words = 0;
  Big24 data_bytes;
  Lun lun = {};
  Big32 task_tag;
  Big32 reserved_tag;
  Big32 status_number;
  Big32 expected_command;
  Big32 max_command;
  uint8_t event = 0;
  uint8_t vendor_code = 0;
  Big16 parameter1;
  Big16 parameter2;
  Big16 parameter3;
  Big32 reserved_end;
};
static_assert(sizeof(AsyncMessage) == kHeaderBytes);
static_assert(offsetof(AsyncMessage, event) == 36);
static_assert(offsetof(AsyncMessage, parameter3) == 42);

struct TextRequest {
  uint8_t opcode = 0;
  uint8_t flags = 0;
  uint8_t reserved[2] = {};
  uint8_t ahs_words = 0;
  Big24 data_bytes;
  Lun lun = {};
  Big32 task_tag;
  Big32 transfer_tag;
  Big32 command_number;
  Big32 expected_status;
  uint8_t reserved_end[16] = {};
};
static_assert(sizeof(TextRequest) == kHeaderBytes);
static_assert(offsetof(TextRequest, command_number) == 24);

// NOP-Out is laid out like a Text Request; NOP-In and Text Response alike, too.
using NopOut = TextRequest;

struct TextResponse {
  uint8_t opcode = 0;
  uint8_t flags = 0;
  uint8_t reserved[2] = {};
  uint8_t ahs_words = 0;
  Big24 data_bytes;
  Lun lun = {};
  Big32 task_tag;
  Big32 transfer_tag;
  Big32 status_number;
  Big32 expected_command;
  Big32 max_command;
  uint8_t reserved_end[12] = {};
};
static_assert(sizeof(TextResponse) == kHeaderBytes);
static_assert(offsetof(TextResponse, max_command) == 32);
using NopIn = TextResponse;

struct LoginRequest {
  uint8_t opcode = 0;
  uint8_t flags = 0;  // T, C and both stages
  uint8_t version_max = 0;
  uint8_t version_min = 0;
  uint8_t ahs_words = 0;
  Big24 data_bytes;
  Isid isid = {};
  Big16 tsih;
  Big32 task_tag;
  Big16 connection;  // CID
  Big16 reserved;
  Big32 command_number;
  Big32 expected_status;
  uint8_t reserved_end[16] = {};
};
static_assert(sizeof(LoginRequest) == kHeaderBytes);
static_assert(offsetof(LoginRequest, tsih) == 14);
static_assert(offsetof(LoginRequest, connection) == 20);
static_assert(offsetof(LoginRequest, command_number) == 24);

struct LoginResponse {
  uint8_t opcode = 0;
  uint8_t flags = 0;
  uint8_t version_max = 0;
  uint8_t version_active = 0;
  uint8_t ahs_words = 0;
  Big24 data_bytes;
  Isid isid = {};
  Big16 tsih;
  Big32 task_tag;
  Big32 reserved;
  Big32 status_number;
  Big32 expected_command;
  Big32 max_command;
  Big16 status;  // class and detail
  uint8_t reserved_end[10] = {};
};
static_assert(sizeof(LoginResponse) == kHeaderBytes);
static_assert(offsetof(LoginResponse, status_number) == 24);
static_assert(offsetof(LoginResponse, status) == 36);

struct LogoutRequest {
  uint8_t opcode = 0;
  uint8_t flags = 0;  // and the reason
  uint8_t reserved[2] = {};
  uint8_t ahs_words = 0;
  Big24 data_bytes;
  uint8_t reserved_lun[8] = {};
  Big32 task_tag;
  Big16 connection;
  Big16 reserved_word;
  Big32 command_number;
  Big32 expected_status;
  uint8_t reserved_end[16] = {};
};
static_assert(sizeof(LogoutRequest) == kHeaderBytes);
static_assert(offsetof(LogoutRequest, connection) == 20);

struct LogoutResponse {
  uint8_t opcode = 0;
  uint8_t flags = 0;
  uint8_t response = 0;
  uint8_t reserved = 0;
  uint8_t ahs_words = 0;
  Big24 data_bytes;
  uint8_t reserved_lun[8] = {};
  Big32 task_tag;
  Big32 reserved_tag;
  Big32 status_number;
  Big32 expected_command;
  Big32 max_command;
  Big32 reserved_word;
  Big16 time_to_wait;
  Big16 time_to_retain;
  Big32 reserved_end;
};
static_assert(sizeof(LogoutResponse) == kHeaderBytes);
static_assert(offsetof(LogoutResponse, time_to_wait) == 40);

// Between the types above, which are all plain bytes.
template <typename To, typename From>
To As(const From& from) {
  static_assert(sizeof(To) == kHeaderBytes);
  return std::bit_cast<To>(from);
}

// --- framing -----------------------------------------------------------------------------------

// How a PDU is laid out on the stream, from its first 48 bytes.
struct Frame {
  BasicHeader header;
  uint32_t header_bytes = 0;  // with additional segments and digest
  uint32_t data_bytes = 0;
  uint32_t trailer_bytes = 0;  // padding and digest behind the data
  Opcode opcode() const { return static_cast<Opcode>(header.opcode & kOpcodeMask); }
  bool immediate() const { return (header.opcode & kFlagImmediate) != 0; }
  uint64_t bytes() const { return uint64_t{header_bytes} + data_bytes + trailer_bytes; }
};

struct Digests {
  bool header = false;
  bool data = false;
};
inline constexpr uint32_t kDigestBytes = 4;

constexpr uint32_t PadBytes(uint32_t data_bytes) { return (4 - data_bytes % 4) % 4; }

// `bytes`: kHeaderBytes. nullopt: more data than was declared. The caller has bounded nothing yet;
// additional segments are at most 1020 bytes by their own format.
std::optional<Frame> DecodeFrame(const std::byte* bytes, Digests digests,
                                 uint32_t segment_bytes_max);
// `bytes`: frame.header_bytes. Always true without a header digest.
bool HeaderDigestMatches(const Frame& frame, const std::byte* bytes);

// What the additional header segments say (RFC 7143, 11.2.2).
enum class AdditionalHeaders : uint8_t {
  kNone,
  kExtendedCdb,    // a CDB longer than 16 bytes; its begin is in the basic header
  kBidirectional,  // data both ways, which no command of a disk has
  kMalformed,
};
AdditionalHeaders DecodeAdditionalHeaders(const Frame& frame, const std::byte* bytes);

// Serial number arithmetic (RFC 1982 with 32 bits): whether `a` comes before `b`.
constexpr bool Before(uint32_t a, uint32_t b) { return static_cast<int32_t>(a - b) < 0; }

}  // namespace ankole::iscsi

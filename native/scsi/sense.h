#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "base/result.h"

// Sense data (SPC-4, 4.5): why a command was not carried out.
namespace ankole::scsi {

enum class SenseKey : uint8_t {
  kNoSense = 0x0,
  kNotReady = 0x2,
  kMediumError = 0x3,
  kHardwareError = 0x4,
  kIllegalRequest = 0x5,
  kUnitAttention = 0x6,
  kDataProtect = 0x7,
  kCopyAborted = 0xa,
  kAbortedCommand = 0xb,
  kMiscompare = 0xe,
};

// Additional sense code and its qualifier (SPC-4, table F.1).
enum class SenseCode : uint16_t {
  kNone = 0x0000,
  kOperationInProgress = 0x0016,
  kInitializingCommandRequired = 0x0402,
  kUnreachableCopyTarget = 0x0804,
  kWriteError = 0x0c00,
  kThirdPartyDeviceFailure = 0x0d01,
  kCopyTargetNotReachable = 0x0d02,
  kIncorrectCopyTargetType = 0x0d03,
  kInvalidFieldInInformationUnit = 0x0e03,
  kUnrecoveredReadError = 0x1100,
  kParameterListLengthError = 0x1a00,
  kMiscompareDuringVerify = 0x1d00,
  kInvalidOperationCode = 0x2000,
  kBlockAddressOutOfRange = 0x2100,
  kInvalidFieldInCdb = 0x2400,
  kLogicalUnitNotSupported = 0x2500,
  kInvalidFieldInParameterList = 0x2600,
  kInvalidRelease = 0x2604,
  kTooManyTargetDescriptors = 0x2606,
  kUnsupportedTargetDescriptor = 0x2607,
  kTooManySegmentDescriptors = 0x2608,
  kUnsupportedSegmentDescriptor = 0x2609,
  kInlineDataLengthExceeded = 0x260b,
  kWriteProtected = 0x2700,
  kSoftwareWriteProtected = 0x2702,
  kSpaceAllocationFailed = 0x2707,
  kPowerOn = 0x2900,  // power on, reset, or bus device reset occurred
  kBusDeviceReset = 0x2903,
  kModeParametersChanged = 0x2a01,
  kReservationsPreempted = 0x2a03,
  kReservationsReleased = 0x2a04,
  kRegistrationsPreempted = 0x2a05,
  kCapacityDataHasChanged = 0x2a09,
  kCommandsCleared = 0x2f00,                // by another initiator
  kThinProvisioningSoftThreshold = 0x3807,  // reached
  kSavingNotSupported = 0x3900,
  kInternalTargetFailure = 0x4400,
  kInsufficientRegistrations = 0x5504,
};

// Where the field lies that a request was refused for (SPC-4, 4.5.2.4.2).
struct FieldPointer {
  bool in_cdb = false;  // else in the parameter list
  uint16_t byte = 0;
  uint8_t bit = 7;  // the field's most significant one
};

struct Sense {
  SenseKey key = SenseKey::kNoSense;
  SenseCode code = SenseCode::kNone;
  // In the descriptor format; else in the fixed one. By the control mode page's D_SENSE.
  bool descriptor = false;
  std::optional<FieldPointer> field;    // with kIllegalRequest, kCopyAborted
  std::optional<uint64_t> information;  // kMiscompare: the offset in bytes of the first difference
};

Sense InvalidFieldInCdb(uint16_t byte, uint8_t bit = 7);
Sense InvalidFieldInParameterList(uint16_t byte, uint8_t bit = 7);
inline Sense IllegalRequest(SenseCode code) {
  return {SenseKey::kIllegalRequest, code, {}, {}, {}};
}

inline constexpr size_t kSenseBytesMax = 64;
// Writes at most kSenseBytesMax bytes and returns how many. An information field over 32 bits does
// not fit into the fixed format, and is left out there (VALID = 0).
size_t EncodeSense(const Sense& sense, std::byte* to);

}  // namespace ankole::scsi

#include "scsi/fault.h"

namespace ankole::scsi {

namespace {

Outcome Check(SenseKey key, SenseCode code) {
  return {ScsiStatus::kCheckCondition, {key, code, {}, {}, {}}};
}

}  // namespace

Outcome OutcomeOf(ErrorCode fault, bool of_write) {
  switch (fault) {
    case ErrorCode::kOk:
      return {};
    case ErrorCode::kNoSpace:
      return Check(SenseKey::kDataProtect, SenseCode::kSpaceAllocationFailed);
    case ErrorCode::kReadOnly:
    case ErrorCode::kPermissionDenied:
      return Check(SenseKey::kDataProtect, SenseCode::kWriteProtected);
    case ErrorCode::kIoError:
    case ErrorCode::kCorrupt:
    case ErrorCode::kSuspect:
      return Check(SenseKey::kMediumError,
                   of_write ? SenseCode::kWriteError : SenseCode::kUnrecoveredReadError);
    case ErrorCode::kUnavailable:
    case ErrorCode::kFenced:
    case ErrorCode::kBusy:
    case ErrorCode::kTimedOut:
    case ErrorCode::kConnectionLost:
    case ErrorCode::kNotEnoughReplicas:
    case ErrorCode::kCancelled:
      return {ScsiStatus::kBusy, {}};
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kOutOfRange:
    case ErrorCode::kNotFound:
    case ErrorCode::kAlreadyExists:
    case ErrorCode::kAddressInUse:
    case ErrorCode::kProtocolError:
    case ErrorCode::kAuthenticationFailed:
    case ErrorCode::kUnsupported:
    case ErrorCode::kInternal:
      break;
  }
  return Check(SenseKey::kHardwareError, SenseCode::kInternalTargetFailure);
}

}  // namespace ankole::scsi

#include "base/result.h"

#include <cerrno>
#include <cstring>

namespace ankole {

const char* ErrorCodeName(ErrorCode code) {
  switch (code) {
#define ANKOLE_NAME(name, number, text) \
  case ErrorCode::name:                 \
    return text;
    ANKOLE_ERROR_CODES(ANKOLE_NAME)
#undef ANKOLE_NAME
  }
  return "internal";
}

bool IsErrorCode(uint16_t number) {
  switch (number) {
#define ANKOLE_NUMBER(name, number, text) case number:
    ANKOLE_ERROR_CODES(ANKOLE_NUMBER)
#undef ANKOLE_NUMBER
    return true;
    default:
      return false;
  }
}

ErrorCode ErrorCodeFromErrno(int error_number) {
  switch (error_number) {
    case 0:
      return ErrorCode::kOk;
    case EINVAL:
    case ENAMETOOLONG:
      return ErrorCode::kInvalidArgument;
    case ENOENT:
    case ENOTDIR:
      return ErrorCode::kNotFound;
    case EEXIST:
    case ENOTEMPTY:
      return ErrorCode::kAlreadyExists;
    case EACCES:
    case EPERM:
      return ErrorCode::kPermissionDenied;
    case ENOSPC:
    case EDQUOT:
      return ErrorCode::kNoSpace;
    case EROFS:
      return ErrorCode::kReadOnly;
    case EAGAIN:
    case EBUSY:
      return ErrorCode::kBusy;
    case EADDRINUSE:
      return ErrorCode::kAddressInUse;
    case ETIMEDOUT:
      return ErrorCode::kTimedOut;
    case ECONNREFUSED:
    case ECONNRESET:
    case ECONNABORTED:
    case EPIPE:
    case ENOTCONN:
    case ENETUNREACH:
    case EHOSTUNREACH:
      return ErrorCode::kConnectionLost;
    case EFBIG:  // larger than a file of this file system can be
    case EOPNOTSUPP:
    case ENOSYS:
      return ErrorCode::kUnsupported;
    case ECANCELED:
      return ErrorCode::kCancelled;
    default:
      return ErrorCode::kIoError;
  }
}

Status Status::FromErrno(int error_number, const std::string& what) {
  char text[128];
  return {ErrorCodeFromErrno(error_number),
          what + ": " + strerror_r(error_number, text, sizeof(text))};
}

}  // namespace ankole

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "base/check.h"
#include "base/error_codes.h"

namespace ankole {

enum class ErrorCode : uint16_t {
#define ANKOLE_ENUM(name, number, text) name = number,
  ANKOLE_ERROR_CODES(ANKOLE_ENUM)
#undef ANKOLE_ENUM
};

// The code's name as JSON, logs and the documentation spell it. Unknown numbers give "internal".
const char* ErrorCodeName(ErrorCode code);
// False for a number that is not in the table (a peer may send any).
bool IsErrorCode(uint16_t number);
// Maps errno (positive) to the closest code; kIoError where nothing is closer.
ErrorCode ErrorCodeFromErrno(int error_number);

// The outcome of an operation that the world may fail. On the I/O path a bare ErrorCode travels
// instead, as building a message allocates.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(ErrorCode code, std::string message) : code_(code), message_(std::move(message)) {}

  static Status Ok() { return {}; }
  // «what: strerror(error_number)» with the code that fits; `error_number` is positive.
  static Status FromErrno(int error_number, const std::string& what);

  bool ok() const { return code_ == ErrorCode::kOk; }
  ErrorCode code() const { return code_; }
  // Names the object, the operation and the cause.
  const std::string& message() const { return message_; }
  // The same failure, with `prefix: ` before its message.
  Status Within(const std::string& prefix) const {
    return ok() ? *this : Status(code_, prefix + ": " + message_);
  }

 private:
  ErrorCode code_ = ErrorCode::kOk;
  std::string message_;
};

// A value or the Status that says why there is none.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}                                 // NOLINT: implicit
  Result(Status status) : status_(std::move(status)) { CHECK(!status_.ok()); }  // NOLINT: implicit

  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }
  T& value() {
    CHECK(value_.has_value());
    return *value_;
  }
  const T& value() const {
    CHECK(value_.has_value());
    return *value_;
  }
  T Take() {
    CHECK(value_.has_value());
    return std::move(*value_);
  }

 private:
  std::optional<T> value_;
  Status status_;
};

}  // namespace ankole

// Returns the enclosing function's Status (or Result) when `expression` failed.
#define RETURN_IF_ERROR(expression)                              \
  do {                                                           \
    ::ankole::Status status_of_expression = (expression);        \
    if (!status_of_expression.ok()) return status_of_expression; \
  } while (0)

#pragma once

// The one list of error codes of the native core: C++ name, number on the replication protocol, and
// the name used in JSON, logs and docs/reference/errors.md. Numbers are never reused.
#define ANKOLE_ERROR_CODES(X)                           \
  X(kOk, 0, "ok")                                       \
  X(kInvalidArgument, 1, "invalid-argument")            \
  X(kOutOfRange, 2, "out-of-range")                     \
  X(kNotFound, 3, "not-found")                          \
  X(kAlreadyExists, 4, "already-exists")                \
  X(kPermissionDenied, 5, "permission-denied")          \
  X(kIoError, 6, "io-error")                            \
  X(kNoSpace, 7, "no-space")                            \
  X(kReadOnly, 8, "read-only")                          \
  X(kCorrupt, 9, "corrupt")                             \
  X(kBusy, 10, "busy")                                  \
  X(kAddressInUse, 11, "address-in-use")                \
  X(kTimedOut, 12, "timed-out")                         \
  X(kConnectionLost, 13, "connection-lost")             \
  X(kProtocolError, 14, "protocol-error")               \
  X(kAuthenticationFailed, 15, "authentication-failed") \
  X(kFenced, 16, "fenced")                              \
  X(kNotEnoughReplicas, 17, "not-enough-replicas")      \
  X(kUnsupported, 18, "unsupported")                    \
  X(kCancelled, 19, "cancelled")                        \
  X(kSuspect, 20, "suspect")                            \
  X(kUnavailable, 21, "unavailable")                    \
  X(kInternal, 22, "internal")

#pragma once

#include <cstdint>

// Why a replica is no member: named once, and told by the same name in the `replica` event, in
// status, in metrics and in docs/reference/faults.md.
namespace ankole::engine {

enum class Fault : uint8_t {
  kNone,
  kConnectionLost,  // its connection broke and was not back in time
  kNoAnswer,        // it is connected and does not answer in time: the process or the disk hangs
  kIoError,         // it answered a request with an error
  kFlushFailed,     // it could not sync what it had acknowledged (rule 1)
  kNoSpace,         // its disk is full, and others have room
  kRecordFailed,    // it could not write the record
  kSuspect,         // it may have lost what it had acknowledged (rule 7)
  kOlderRecord,     // it holds an older record, or none; or lacks snapshots
  kRefused,         // it refused the engine: unknown there, another secret, damaged files
  kWrongSize,       // it is not as large as the volume
  kNotHeard,        // it did not answer while the engine started
};
inline constexpr uint8_t kFaults = 12;

// The name; empty for kNone.
constexpr const char* FaultCode(Fault fault) {
  switch (fault) {
    case Fault::kNone:
      return "";
    case Fault::kConnectionLost:
      return "connection-lost";
    case Fault::kNoAnswer:
      return "no-answer";
    case Fault::kIoError:
      return "io-error";
    case Fault::kFlushFailed:
      return "flush-failed";
    case Fault::kNoSpace:
      return "no-space";
    case Fault::kRecordFailed:
      return "record-failed";
    case Fault::kSuspect:
      return "suspect";
    case Fault::kOlderRecord:
      return "older-record";
    case Fault::kRefused:
      return "refused";
    case Fault::kWrongSize:
      return "wrong-size";
    case Fault::kNotHeard:
      return "not-heard";
  }
  return "";
}

// What I/O waits for.
enum class WaitsFor : uint8_t {
  kNothing,
  kMembers,   // no member can be reached, or none has written the record
  kMajority,  // members that must answer before a read may be answered (rule 4)
  kStore,     // a change of members that the store must record (rule 2)
  kSpace,     // all members' disks are full
};

// The name; empty for kNothing.
constexpr const char* WaitsForCode(WaitsFor what) {
  switch (what) {
    case WaitsFor::kNothing:
      return "";
    case WaitsFor::kMembers:
      return "members";
    case WaitsFor::kMajority:
      return "majority";
    case WaitsFor::kStore:
      return "store";
    case WaitsFor::kSpace:
      return "space";
  }
  return "";
}

}  // namespace ankole::engine

#pragma once

#include "replica/disk_host_testing.h"

// For the tests of what is said over one connection.
namespace ankole::replica::testing {

using wire::Opcode;

inline constexpr wire::ReplicaId kId = 0x1111;
inline constexpr wire::Epoch kEpoch = {3, 1};

inline wire::RecordPair ARecord(wire::Epoch epoch, uint64_t generation) {
  wire::RecordPair pair;
  pair.current.epoch = epoch;
  pair.current.generation = generation;
  pair.current.members.Add(kId);
  pair.complete = pair.current;
  return pair;
}

}  // namespace ankole::replica::testing

#pragma once

#include <array>

#include "engine/engine_testing.h"

// An engine with several scripted replicas.
namespace ankole::engine::testing {

using What = Verdict::What;

inline Verdict Hold(bool when) { return {when ? What::kHold : What::kServe, ErrorCode::kOk}; }
inline Verdict FailWith(bool when, ErrorCode error) {
  return {when ? What::kFail : What::kServe, error};
}

// Without its map it does not come back either.
inline Verdict FailWrites(const wire::Header& header) {
  return FailWith(header.opcode == wire::Opcode::kWrite || header.opcode == wire::Opcode::kMap,
                  ErrorCode::kIoError);
}

template <size_t kCount>
struct Several {
  explicit Several(uint64_t late_ms = 20'000) {
    bench.options.late_ns = late_ms * kNsPerMs;
    for (ScriptedReplica*& replica : replicas) replica = &bench.AddScripted();
  }
  ScriptedReplica& operator[](size_t i) { return *replicas[i]; }
  size_t Members() { return bench.Complete().members.count; }
  Bench bench;
  std::array<ScriptedReplica*, kCount> replicas;
};
using Two = Several<2>;
using Three = Several<3>;

}  // namespace ankole::engine::testing

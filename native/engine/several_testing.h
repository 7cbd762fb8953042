#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/engine_testing.h"

// An engine with several scripted replicas.
namespace ankole::engine::testing {

using What = Verdict::What;

inline Verdict Hold(bool when) { return {when ? What::kHold : What::kServe, ErrorCode::kOk}; }
inline Verdict FailWith(bool when, ErrorCode error) {
  return {when ? What::kFail : What::kServe, error};
}

// Without its map it does not come back either.
Verdict FailWrites(const wire::Header& header);

struct SomeReplicas {
  SomeReplicas(size_t count, uint64_t late_ms);
  ~SomeReplicas();
  ScriptedReplica& operator[](size_t i) { return *replicas[i]; }
  size_t Members();
  // Before the bench, whose thread may ask a verdict of a test, which looks here, until it ends.
  std::vector<ScriptedReplica*> replicas;
  Bench bench;
};

template <size_t kCount>
struct Several : SomeReplicas {
  explicit Several(uint64_t late_ms = 20'000) : SomeReplicas(kCount, late_ms) {}
};
using Two = Several<2>;
using Three = Several<3>;

}  // namespace ankole::engine::testing

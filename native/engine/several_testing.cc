#include "engine/several_testing.h"

namespace ankole::engine::testing {

Verdict FailWrites(const wire::Header& header) {
  return FailWith(header.opcode == wire::Opcode::kWrite || header.opcode == wire::Opcode::kMap,
                  ErrorCode::kIoError);
}

SomeReplicas::SomeReplicas(size_t count, uint64_t late_ms) {
  bench.options.late_ns = late_ms * kNsPerMs;
  for (size_t i = 0; i < count; ++i) replicas.push_back(&bench.AddScripted());
}

SomeReplicas::~SomeReplicas() = default;

size_t SomeReplicas::Members() { return bench.Complete().members.count; }

}  // namespace ankole::engine::testing

#include "engine/resync_testing.h"

namespace ankole::engine::testing {

bool ReturningReplicas::WaitForMembers(size_t count, int limit_ms) {
  return bench.Until([&] { return bench.engine->Report().record.members.count == count; },
                     limit_ms);
}

void ReturningReplicas::Leave(size_t i) {
  bench.On([&] { replicas[i]->Unlisten(); });
  if (!WaitForMembers(replicas.size() - 1)) test::Fail(__FILE__, __LINE__, "it does not leave");
}

void ReturningReplicas::Return(size_t i) {
  bench.On([&] {
    replicas[i]->written_bytes = replicas[i]->summed_bytes = 0;
    replicas[i]->Listen();
  });
}

bool ReturningReplicas::Same() {
  bool same = true;
  bench.On([&] {
    for (ScriptedReplica* replica : replicas) same &= replica->data == replicas[0]->data;
  });
  return same;
}

}  // namespace ankole::engine::testing

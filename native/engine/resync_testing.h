#pragma once

#include <array>

#include "engine/engine_testing.h"

// For the tests of what makes replicas equal: an engine with scripted replicas that
// go away and come back.
namespace ankole::engine::testing {

inline constexpr uint32_t kMiB32 = static_cast<uint32_t>(kMiB);

template <size_t kCount>
struct Scripted {
  Scripted() {
    bench.options.late_ns = 300 * kNsPerMs;
    for (ScriptedReplica*& replica : replicas) replica = &bench.AddScripted();
  }
  ScriptedReplica& operator[](size_t i) { return *replicas[i]; }
  size_t Members() { return bench.Complete().members.count; }
  bool WaitForMembers(size_t count, int limit_ms = 10'000) {
    return bench.Until([&] { return bench.engine->Report().record.members.count == count; },
                       limit_ms);
  }
  void Leave(size_t i) {
    bench.On([&] { replicas[i]->Unlisten(); });
    if (!WaitForMembers(kCount - 1)) test::Fail(__FILE__, __LINE__, "it does not leave");
  }
  void Return(size_t i) {
    bench.On([&] {
      replicas[i]->written_bytes = replicas[i]->summed_bytes = 0;
      replicas[i]->Listen();
    });
  }
  bool Same() {
    bool same = true;
    bench.On([&] {
      for (ScriptedReplica* replica : replicas) same &= replica->data == replicas[0]->data;
    });
    return same;
  }
  Bench bench;
  std::array<ScriptedReplica*, kCount> replicas;
};

}  // namespace ankole::engine::testing

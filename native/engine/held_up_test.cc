#include <chrono>
#include <thread>

#include "engine/several_testing.h"

// The engine's own process is held up: stopped, or starved. What came meanwhile is read before
// anybody is called late.
namespace ankole::engine::testing {
namespace {

// On the reactor's thread.
void HoldUp(int ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }

// Simulator, seed 313 of the worlds with missed reverts.
TEST(engine_held_up, AnErrandIsNotLateThatWasAnsweredMeanwhile) {
  Two two(400);
  for (ScriptedReplica* replica : two.replicas) {
    replica->state.unclean = true;
    replica->dirty = {1};
  }
  two[1].verdict = [](const wire::Header& header) {
    return Hold(header.opcode == wire::Opcode::kSum);
  };
  ASSERT(two.bench.StartAndWait());
  ASSERT(two.bench.Until([&] { return two[1].held() > 0; }));
  // It answers after the tick that the first time makes late, and is heard after the next one.
  io::Message again;
  again.owner = &two[1];
  again.done = [](io::Operation* operation) {
    auto* slow = static_cast<ScriptedReplica*>(operation->owner);
    slow->verdict = nullptr;
    slow->Release();
    HoldUp(700);
  };
  two.bench.On([&] {
    two.bench.reactor().Post(&again);
    HoldUp(10'500);
  });
  EXPECT(two.bench.Until([&] { return two[0].dirty.empty() && two[1].dirty.empty(); }));
  EXPECT_EQ(two.bench.At("replica 11 fault"), SIZE_MAX);
  EXPECT_EQ(two.Members(), 2U);
}

}  // namespace
}  // namespace ankole::engine::testing

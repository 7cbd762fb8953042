#include "engine/engine.h"

// Members that must leave for want of space, and cannot yet as that needs the store: nobody is told
// of an error for as long as they are whole.
namespace ankole::engine {

// Sends a read that no other member can answer to one that leaves for want of space, which may take
// as long as the store is away. False: there is none to ask.
//
// It is as good as any: what it refused is not acknowledged and keeps its range locked until it has
// left, so that where a read comes to, it has all that anybody was told of. That ends when it comes
// back as one that would have to leave for what it holds, and when it did not make a range equal.
// Where the others fail a change as well, or have lost something, it stays after all (KeepWhole).
bool Engine::RouteToWhole(Operation* operation) {
  for (const wire::ReplicaId id : whole_.all()) {
    const Link& link = *LinkOf(id);
    const MemberPart& part = operation->parts[link.index()];
    const bool tried =
        part.state == MemberPart::State::kWaiting || part.state == MemberPart::State::kFailed;
    if (tried || part.answer_due || part.frame_out || !link.up()) continue;
    AddPart(operation, link.index(), true);
    return true;
  }
  return false;
}

// All that were to stay failed this, otherwise than for want of space: those that leave for that
// stay instead. False: there is none.
bool Engine::KeepWhole(const Operation& operation) {
  wire::Members whole;
  for (const wire::ReplicaId id : whole_.all()) {
    const MemberPart::State state = operation.parts[LinkOf(id)->index()].state;
    const bool took_part =
        state == MemberPart::State::kAnswered || state == MemberPart::State::kFailed;
    if (took_part) whole.Add(id);
  }
  KeepWhole(whole);
  return whole.count > 0;
}

// They have what the others have, but for what is not acknowledged; that waits for space.
void Engine::KeepWhole(const wire::Members& whole) {
  for (const wire::ReplicaId id : whole.all()) {
    Link& link = *LinkOf(id);
    leaving_.Remove(id);
    whole_.Remove(id);
    log_.Log(LogLevel::kWarn, "replica " + wire::ReplicaIdText(id) +
                                  " is full and stays, as the others fail: writes may wait");
    // It was not sent again what was under way when its connection broke.
    if (link.up()) SendUnanswered(link);
  }
}

}  // namespace ankole::engine

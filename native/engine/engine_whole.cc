#include "engine/engine.h"

// Members that must leave as they failed a change, or cannot write the record, and cannot yet as
// that needs the store. They are as good as any: what they failed is not acknowledged and keeps its
// range locked until they have left, so that where a read comes to, they have all that anybody was
// told of. That ends for one that fails a flush, that comes back as one that would have to leave
// for what it holds, and that did not make a range equal.
namespace ankole::engine {

// Those that failed this, and have now to leave.
void Engine::NoteWhole(const Operation& operation) {
  if (!operation.dirties()) return;
  for (const std::unique_ptr<Link>& link : links_) {
    const MemberPart& part = operation.parts[link->index()];
    const bool failed = part.state == MemberPart::State::kFailed &&
                        (part.error == ErrorCode::kNoSpace || part.error == ErrorCode::kIoError);
    if (failed) NoteWhole(*link);
  }
}

void Engine::NoteWhole(const Link& link) {
  const bool leaves = leaving_.Contains(link.replica());
  if (leaves && equalizer_.AllEqual() && !joiner_.IsResynced(link.index())) {
    whole_.Add(link.replica());
  }
}

// Sends a read that no other member can answer to one that is whole, or has it wait for one that is
// down: that comes back or leaves. False: there is none to ask.
bool Engine::RouteToWhole(Operation* operation) {
  size_t best = SIZE_MAX;
  for (const wire::ReplicaId id : whole_.all()) {
    const Link& link = *LinkOf(id);
    const MemberPart& part = operation->parts[link.index()];
    const bool tried =
        part.state == MemberPart::State::kWaiting || part.state == MemberPart::State::kFailed;
    if (tried || part.answer_due || part.frame_out || link.gone()) continue;
    if (best == SIZE_MAX || link.up()) best = link.index();
  }
  if (best == SIZE_MAX) return false;
  AddPart(operation, best, true);
  return true;
}

// All that were to stay failed this, otherwise than for want of space: those that leave for that
// stay instead, and the client is told of no error. False: there is none.
bool Engine::KeepWhole(const Operation& operation) {
  wire::Members whole;
  for (const wire::ReplicaId id : whole_.all()) {
    const size_t index = LinkOf(id)->index();
    const MemberPart::State state = operation.parts[index].state;
    const bool took_part =
        state == MemberPart::State::kAnswered || state == MemberPart::State::kFailed;
    if (took_part && departures_[index].fault == Fault::kNoSpace) whole.Add(id);
  }
  KeepWhole(whole);
  return whole.count > 0;
}

// They have what the others have, but for what is not acknowledged. That waits for space, or fails.
void Engine::KeepWhole(const wire::Members& whole) {
  for (const wire::ReplicaId id : whole.all()) {
    Link& link = *LinkOf(id);
    leaving_.Remove(id);
    whole_.Remove(id);
    log_.Log(LogLevel::kWarn, "replica " + wire::ReplicaIdText(id) +
                                  " stays, as the others are worse, though " +
                                  departures_[link.index()].reason);
    // Reads may wait for it, and it was not asked what is dirty.
    if (!link.up()) continue;
    SendUnanswered(link);
    equalizer_.Returned(link);
  }
}

}  // namespace ankole::engine

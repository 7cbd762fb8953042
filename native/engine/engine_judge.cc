#include <algorithm>

#include "engine/engine.h"

// What becomes of an operation whose members have answered, or will not.
namespace ankole::engine {

// Judging one may let members leave, and so put others on the list.
void Engine::JudgeAll() {
  if (judging_) return;
  judging_ = true;
  while (Operation* operation = to_judge_.PopFront()) Judge(operation);
  judging_ = false;
}

// Whether the operation has its outcome.
void Engine::Judge(Operation* operation) {
  if (operation->waiting > 0) return;
  if (operation->kind == BlockOperation::kClean && operation->answered + operation->failed == 0) {
    Finish(operation, ErrorCode::kCancelled);  // it went to nobody
    return;
  }
  if (mode_ == Mode::kRefused) {
    Finish(operation, ErrorCode::kFenced);
    return;
  }
  if (mode_ == Mode::kStopped) {
    Finish(operation, ErrorCode::kUnavailable);
    return;
  }
  // One good answer is all that a read needs, whoever failed before.
  if (operation->answered > 0 && (operation->failed == 0 || !operation->fans_out())) {
    for (const MemberPart& part : operation->parts) {
      if (part.state != MemberPart::State::kFailed || part.error != ErrorCode::kCorrupt) continue;
      equalizer_.Repair(operation->offset_bytes, operation->length_bytes);
      break;
    }
    const wire::Members spoiled = SpoiledAt(*operation);
    Finish(operation, ErrorCode::kOk);
    // Writes and flushes would tell as well, but there may be none.
    if (spoiled.count > 0 && spoiled.count < Staying().count) {
      Drop(spoiled, Fault::kFlushFailed, "a sync failed at it");
    }
    return;
  }
  if (operation->fans_out()) {
    JudgeFailures(operation);
    return;
  }
  ErrorCode error = ErrorCode::kUnavailable;
  for (size_t i = 0; i < links_.size(); ++i) {
    const MemberPart& part = operation->parts[i];
    if (part.state != MemberPart::State::kFailed) continue;
    if (error == ErrorCode::kUnavailable || IsStaying(i)) error = part.error;
  }
  // A read error is never passed up while there is another member to ask.
  if (Route(operation)) return;
  // One whose answer was not wanted (another was coming in) can be asked again when that has gone.
  for (size_t i = 0; i < links_.size(); ++i) {
    const MemberPart& part = operation->parts[i];
    if (part.state == MemberPart::State::kGone && part.answer_due && IsStaying(i)) return;
  }
  if (RouteToWhole(operation)) return;
  if (RepairFirst(operation, error)) return;
  // A sync failed at all of them: what they still have is all that there is.
  const wire::Members spoiled = SpoiledAt(*operation);
  if (!operation->anyway && spoiled.count > 0 && spoiled.count == Staying().count) {
    operation->anyway = true;
    for (MemberPart& part : operation->parts) {
      if (part.state != MemberPart::State::kFailed) continue;
      part.state = MemberPart::State::kUnused;
      --operation->failed;
    }
    if (Route(operation)) return;
  }
  Finish(operation, error);
}

// Members at which a sync failed, and which do not read for that.
wire::Members Engine::SpoiledAt(const Operation& operation) const {
  wire::Members spoiled;
  for (size_t i = 0; i < links_.size() && !operation.fans_out(); ++i) {
    const MemberPart& part = operation.parts[i];
    if (part.state != MemberPart::State::kFailed || part.error != ErrorCode::kSuspect) continue;
    if (IsStaying(i)) spoiled.Add(links_[i]->replica());
  }
  return spoiled;
}

// All members have answered, at least one with an error.
void Engine::JudgeFailures(Operation* operation) {
  wire::Members broken;  // failed otherwise than for want of space
  wire::Members full;
  bool waits = false;  // for one that leaves to be gone
  ErrorCode error = ErrorCode::kUnavailable;
  bool stays = false;  // a member that has answered with success
  for (size_t i = 0; i < links_.size(); ++i) {
    const MemberPart& part = operation->parts[i];
    stays |= part.state == MemberPart::State::kAnswered && IsStaying(i);
    if (part.state != MemberPart::State::kFailed) continue;
    if (!IsStaying(i)) {
      if (operation->kind == BlockOperation::kFlush) whole_.Remove(links_[i]->replica());
      // On its way out already: judged again when it is gone.
      if (!whole_.Contains(links_[i]->replica()) || part.error != ErrorCode::kNoSpace) return;
      waits = true;
    } else if (part.error == ErrorCode::kNoSpace) {
      full.Add(links_[i]->replica());
    } else {
      broken.Add(links_[i]->replica());
      error = part.error;
    }
  }
  const std::string failure = std::string("I/O failed: ") + ErrorCodeName(error);
  const bool sync = operation->kind == BlockOperation::kFlush || error == ErrorCode::kSuspect;
  const Fault fault = sync ? Fault::kFlushFailed : Fault::kIoError;
  if (!stays && broken.count > 0 && full.count == 0 && KeepWhole(*operation)) {
    MustLeave(broken, fault, failure);
    LetLeave({});
    return;
  }
  if (waits) return;
  if (stays) {
    // Those that failed leave; that ends their parts, and gives this operation its outcome.
    MustLeave(broken, fault, failure);
    MustLeave(full, Fault::kNoSpace, "its disk is full");
    NoteWhole(*operation);
    LetLeave({});
    return;
  }
  if (full.count > 0) {
    // No member has space: nobody leaves for that, the write waits (section 5). Reads go on.
    const bool news = out_of_space_ns_ == 0;
    out_of_space_ns_ = reactor_.NowNs();
    if (news) {
      log_.Log(LogLevel::kWarn, kOutOfSpaceText);
      observer_.OnReport(Report());
    }
    operation->retry_ns = out_of_space_ns_ + kFullRetryNs;
    full_.PushBack(operation);
    if (broken.count > 0) Drop(broken, fault, failure);
    return;
  }
  // Everybody failed. What they hold of this range may differ now, so one stays, and the client is
  // told. So may what a joiner holds: it is compared anew; and nobody else is as good as that one.
  if (broken.count > 0) broken.Remove(broken.ids[0]);
  const size_t joiner = joiner_.index();
  const bool differs = operation->dirties() && joiner != SIZE_MAX && !IsTarget(joiner) &&
                       operation->parts[joiner].state != MemberPart::State::kUnused;
  if (operation->dirties()) whole_ = {};
  Finish(operation, error);
  if (broken.count > 0) Drop(broken, fault, failure);
  if (differs) joiner_.LetGo({ErrorCode::kIoError, "it may have what the members failed"});
}

// A flush covers what was acknowledged before: it is none of a member that lost that, and is still
// one only as the store has not answered yet (rules 1 and 7).
bool Engine::FlushesTooLittle(const Operation& operation) const {
  if (operation.kind != BlockOperation::kFlush || operation.status != ErrorCode::kOk) return false;
  const auto& leaving = leaving_.all();
  return std::any_of(leaving.begin(), leaving.end(), [this](wire::ReplicaId id) {
    const wire::ReplicaState& state = StateOf(*LinkOf(id));
    return state.lost || (complete_.exists() && !state.records.current.exists());
  });
}

// The last member may have lost what it had acknowledged, and is read as it is. Another one that
// lost something else counts as well, until a record is complete without it: the next engine could
// take that one, and what was read here would be gone.
bool Engine::ReadsTooEarly(const Operation& operation) const {
  if (!lost_writes_ || operation.fans_out() || operation.status != ErrorCode::kOk) return false;
  const wire::Members staying = Staying();
  const auto& ids = complete_.members.all();
  return std::any_of(ids.begin(), ids.end(),
                     [&staying](wire::ReplicaId id) { return !staying.Contains(id); });
}

}  // namespace ankole::engine

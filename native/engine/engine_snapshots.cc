#include "engine/engine.h"

// What the taking of a snapshot needs of the engine (rule 8).
namespace ankole::engine {

void Engine::TakeSnapshot(SnapshotRequest* request) {
  ArmTick(true);
  snapshotter_.Take(request);
}

void Engine::RevertTo(SnapshotRequest* request) {
  ArmTick(true);
  snapshotter_.Revert(request);
}

void Engine::DeleteSnapshot(SnapshotRequest* request) {
  ArmTick(true);
  snapshotter_.Delete(request);
}

void Engine::ListLayers(SnapshotRequest* request) {
  ArmTick(true);
  snapshotter_.List(request);
}

void Engine::ListChanges(ChangesRequest* request) {
  ArmTick(true);
  changes_.List(request);
}

void Engine::ReadSnapshot(ReadSnapshotRequest* request) {
  ArmTick(true);
  readers_.Open(request);
}

const char* Engine::WhyUnsettled() const {
  if (mode_ != Mode::kServing && mode_ != Mode::kChanging) return "the volume does not serve yet";
  if (mode_ == Mode::kChanging || proposal_.outstanding) return "the members change";
  if (leaving_.count > 0) return "a member is about to leave";
  for (const auto& link : links_) {
    if (IsTarget(link->index()) && !link->up()) return "a member cannot be reached";
  }
  return nullptr;
}

const char* Engine::WhyNoSnapshot() const {
  const char* why = WhyUnsettled();
  if (why != nullptr) return why;
  if (!equalizer_.AllEqual() || suspects_.count > 0) {
    return "members are being made equal after an unclean stop";
  }
  // What is prepared would be of the size before. One that ended may go on at some replica; one
  // that waits for a snapshot goes before the next one.
  if (expander_.running() || !expander_.idle() || (expand_due_ns_ != 0 && !snapshotter_.taking())) {
    return "the volume is becoming larger";
  }
  return out_of_space_ns_ != 0 ? kOutOfSpaceText : nullptr;
}

// It promises what a flush does (rule 1).
Status Engine::WhyNeverASnapshot() const {
  if (!lost_writes_) return Status::Ok();
  return {ErrorCode::kIoError,
          "the last member may have lost what it had acknowledged; attach the volume anew"};
}

// Also what was answered and whose frames, or whose late answers, are still on their way.
bool Engine::Quiet() const {
  return in_flight_.empty() && left_over_.empty() && errands_.in_flight() == 0;
}

void Engine::DispatchFlush(Operation* operation) {
  if (snapshotter_.holds_flushes()) {
    flushes_.PushBack(operation);
  } else {
    Dispatch(operation);
  }
}

void Engine::FlushesGoOn() {
  while (Operation* operation = flushes_.PopFront()) Dispatch(operation);
  changes_.Pump();
  readers_.Pump();
  trimmer_.Pump();
}

void Engine::LetJoinerGo() {
  joiner_.LetGo({ErrorCode::kCancelled, "a snapshot is taken; it is compared again after that"});
}

bool Engine::JoinerIsStill() const {
  const Link* link = joiner_.link();
  if (link == nullptr) return true;
  return joiner_.still() && link->outstanding == 0 && errands_.OldestAt(*link) == nullptr;
}

void Engine::JoinerGoesOn(const wire::LayerEntry* snapshot) {
  if (snapshot != nullptr) {
    joiner_.OnSnapshot(*snapshot);
  } else {
    joiner_.GoOn();
  }
}

const char* Engine::ReleaseView(const std::string& name, bool* soon) {
  const char* read = readers_.Release(name);
  *soon = !readers_.in_use(name);
  if (read != nullptr) return read;
  if (joiner_.viewed() == name) {
    joiner_.LetGo({ErrorCode::kCancelled, "the snapshot that it was being given is deleted"});
  }
  const bool released = joiner_.views_idle() || !joiner_.viewed().empty();
  return released ? nullptr : "a replica that lacks it is just being given it";
}

uint64_t Engine::ProposeSnapshot(const std::string& name) {
  CHECK(Settled());
  mode_ = Mode::kChanging;
  message_ = "the members switch to another head";
  proposal_.record.newest_snapshot = name;
  Propose(wire::Members(targets()));
  return proposal_.record.generation;
}

void Engine::WriteProposal(Link& link) {
  if (proposal_.outstanding && IsTarget(link.index())) WriteRecord(link);
}

// As one that cannot write the record.
void Engine::ProposalFailed(Link& link, const Status& why) {
  if (!IsStaying(link.index())) return;
  if (Staying().count == 1) {
    SetMessage("the last member cannot write the record: " + why.message(), WaitsFor::kMembers);
    return;
  }
  wire::Members leaving;
  leaving.Add(link.replica());
  Drop(leaving, Fault::kRecordFailed, "it cannot write the record: " + why.message());
}

// Or something that may have been meant to be one.
bool Engine::HasSnapshots() const {
  if (!complete_.newest_snapshot.empty()) return true;
  for (const auto& link : links_) {
    if (IsTarget(link->index()) && StateOf(*link).unsealed) return true;
  }
  return false;
}

}  // namespace ankole::engine

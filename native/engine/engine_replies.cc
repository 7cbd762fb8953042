#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/engine.h"

// What comes from the links: answers, and news of the connections.
namespace ankole::engine {
// The operation that a reply belongs to; null (and the link breaks) when there is none: a peer may
// send anything. An answer may come while its frame counts as on its way: many frames leave in one
// system call, which ends with the last of them.
Operation* Engine::OperationOf(Link& link, const wire::Header& header) {
  Operation* operation = pool_.At(header.slot);
  const bool good = operation != nullptr && operation->tag == header.tag &&
                    OpcodeOf(operation->kind) == header.opcode &&
                    operation->parts[link.index()].answer_due &&
                    operation->offset_bytes == header.offset_bytes &&
                    operation->length_bytes == header.length_bytes;
  if (good) return operation;
  log_.Log(LogLevel::kWarn, "replica " + wire::ReplicaIdText(link.replica()) +
                                " answered what was not asked; the connection is made anew");
  link.Break({ErrorCode::kProtocolError, "a reply to nothing that was asked"});
  return nullptr;
}

std::byte* Engine::OnLinkLargeData(Link& link, const wire::Header& header) {
  if (header.slot >= Errands::kFirstSlot) {
    std::byte* data = errands_.OnLargeData(link, header);
    if (data == nullptr) link.Break({ErrorCode::kProtocolError, "data that nobody asked for"});
    return data;
  }
  Operation* operation = OperationOf(link, header);
  if (operation == nullptr) return nullptr;
  MemberPart& part = operation->parts[link.index()];
  bool wanted = part.state == MemberPart::State::kWaiting;
  for (const MemberPart& other : operation->parts) wanted &= !other.receiving;
  if (wanted) {
    part.receiving = true;
    return operation->request->data;
  }
  // Somebody else has answered this read, or is about to.
  if (part.state == MemberPart::State::kWaiting) {
    part.state = MemberPart::State::kGone;
    --operation->waiting;
  }
  if (scratch_ == nullptr) {
    void* memory = mmap(nullptr, kDataBytesMax, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(memory != MAP_FAILED);
    scratch_ = static_cast<std::byte*>(memory);
  }
  return scratch_;
}

void Engine::OnLinkReply(Link& link, const wire::Header& header, const std::byte* payload,
                         std::byte* data) {
  if (header.slot >= Errands::kFirstSlot) {
    if (header.status == ErrorCode::kFenced) {
      Refuse("replica " + wire::ReplicaIdText(link.replica()) + " serves a newer engine");
    }
    if (!errands_.OnReply(link, header, payload, data)) {
      link.Break({ErrorCode::kProtocolError, "a reply to nothing that was asked"});
    }
    snapshotter_.OnQuieter();
    return;
  }
  Operation* operation = OperationOf(link, header);
  if (operation == nullptr) return;
  MemberPart& part = operation->parts[link.index()];
  const bool wanted = part.state == MemberPart::State::kWaiting;
  ErrorCode status = header.status;
  if (wanted && status == ErrorCode::kOk) {
    const Status taken = TakeAnswer(operation, link, header, payload, data);
    if (!taken.ok()) {
      // Damaged on the way: asked again on a new connection.
      log_.Log(LogLevel::kWarn, "replica " + wire::ReplicaIdText(link.replica()) + ": " +
                                    taken.message() + "; the connection is made anew");
      link.Break(taken);
      return;
    }
  }
  ReleaseChunk(part);
  part.answer_due = part.receiving = false;
  --operation->answers_due;
  --link.outstanding;
  if (!IsState(operation->kind) && operation->kind != BlockOperation::kClean) {
    link.counters.Add(operation->kind, operation->length_bytes, status != ErrorCode::kOk,
                      reactor_.NowNs() - part.sent_ns);
  }
  if (status == ErrorCode::kFenced) {
    Refuse("replica " + wire::ReplicaIdText(link.replica()) + " serves a newer engine");
  } else {
    link.NoteProved(part.sent_ns);
  }
  if (wanted) {
    PartAnswered(operation, link.index(), status);
  } else if (operation->request == nullptr) {
    Recycle(operation);
  } else if (!operation->fans_out() && !operation->queue_node.linked()) {
    // A read whose other members were lost meanwhile: this one can be asked again.
    Judge(operation);
  }
  if (!unproved_.empty()) AnswerHeldReads();
}

// Puts the answer of a read or a status to where the front end wants it.
Status Engine::TakeAnswer(Operation* operation, const Link& link, const wire::Header& header,
                          const std::byte* payload, const std::byte* data) {
  BlockRequest& request = *operation->request;
  if (operation->kind == BlockOperation::kRead && header.shared) {
    const MemberPart& part = operation->parts[link.index()];
    if (part.chunk == nullptr) {
      return {ErrorCode::kProtocolError,
              "an answer through shared memory to what was not asked there"};
    }
    std::memcpy(request.data, part.chunk->data, operation->length_bytes);
  } else if (operation->kind == BlockOperation::kRead ||
             operation->kind == BlockOperation::kLoadState) {
    if (!header.carries_data() || !wire::DataMatches(header, payload, data)) {
      return {ErrorCode::kCorrupt, "data read does not match its checksum"};
    }
    if (data != request.data) std::memcpy(request.data, data, operation->length_bytes);
  } else if (operation->kind == BlockOperation::kStatus) {
    Result<uint32_t> count =
        wire::DecodeExtents({payload, header.payload_bytes}, operation->length_bytes,
                            request.extents, request.extents_max);
    if (!count.ok()) return count.status();
    request.extents_count = count.value();
  }
  return Status::Ok();
}

// Takes all replies that lie in shared memory. True when there were any.
bool Engine::DrainShared() {
  bool any = false;
  for (const auto& link : links_) {
    Result<wire::Header> header = Status(ErrorCode::kInternal, "");
    while (link->shared() != nullptr && link->shared()->Pop(&header)) {
      any = true;
      if (header.ok()) {
        link->NoteHeard();
        OnLinkReply(*link, header.value(), nullptr, nullptr);
      } else {
        link->Break(header.status());
      }
    }
  }
  return any;
}

void Engine::OnDoorbell() {
  DrainShared();
  do {
    shared_->Sleep();
  } while (DrainShared());
  reactor_.Await(&doorbell_);
}

void Engine::OnLinkAuthentic(Link& link) {
  switch (mode_) {
    case Mode::kStarting:
      link.Ask();
      return;
    case Mode::kFencing:
    case Mode::kLearning:
    case Mode::kRecording:
    case Mode::kServing:
    case Mode::kChanging:
    case Mode::kStopping:
      if (!IsTarget(link.index())) {
        joiner_.OnAuthentic();
      } else if (!closing_) {
        link.Fence();
      }
      return;
    case Mode::kStopped:
    case Mode::kRefused:
      return;
  }
}

void Engine::OnLinkState(Link& link, bool welcomed, const wire::ReplicaState& state) {
  Heard& heard = heard_[link.index()];
  heard.answered = true;
  heard.state = state;
  if (mode_ == Mode::kStarting) {
    // A welcome that comes now belongs to a decision that was taken back.
    if (welcomed) link.Break({ErrorCode::kCancelled, "asking again"});
    Evaluate();
  } else if (mode_ == Mode::kFencing && welcomed) {
    FencedMember();
  } else if (mode_ == Mode::kFencing) {
    // It was asked before the others were taken, and answers late.
    if (heard.answered) link.Fence();
  } else if (!IsTarget(link.index())) {
    joiner_.OnState(link, welcomed, state);
  } else if (welcomed) {
    ReturnedMember(link);
  }
}

// A record that a member, or one that is proposed as one, may hold now.
bool Engine::KnowsRecord(const wire::Record& holds) const {
  return holds == complete_ || (proposal_.outstanding && !Newer(holds, proposal_.record));
}

// Why a member that is back does not hold what it must; kNone: it does.
Engine::Departure Engine::WhyNotBack(const Link& link) const {
  const wire::ReplicaState& state = StateOf(link);
  const wire::Record& holds = state.records.current;
  Departure back;
  if (state.lost) back = {Fault::kSuspect, "it may have lost what it had acknowledged"};
  if (!KnowsRecord(holds) && complete_.epoch == options_.epoch) {
    back = {Fault::kOlderRecord, "it holds another record: " + Describe(holds)};
  }
  // Nor does a proposal make a member of one whose files were made anew meanwhile.
  if (!holds.exists() && complete_.exists()) {
    back = {Fault::kOlderRecord, "it holds nothing: its files were made anew"};
  }
  if (state.size_bytes < size_bytes_) {
    back = {Fault::kWrongSize, "it has " + std::to_string(state.size_bytes) +
                                   " bytes, the volume has " + std::to_string(size_bytes_)};
  }
  return back;
}

// A member is back after its connection broke (rule 7): it goes on if it holds what it must.
void Engine::ReturnedMember(Link& link) {
  if (!IsTarget(link.index())) return;
  const Departure back = WhyNotBack(link);
  if (back.fault != Fault::kNone) whole_.Remove(link.replica());
  if (!IsStaying(link.index())) {  // it leaves in any case
    if (proposal_.outstanding) WriteRecord(link);
    if (whole_.Contains(link.replica())) {
      SendUnanswered(link);
    } else {
      ReRoute(link);  // reads that waited for it
    }
    return;
  }
  // The last one of those that were to stay: another one has all that was acknowledged.
  if (back.fault != Fault::kNone && Staying().count == 1) KeepWhole(wire::Members(whole_));
  if (back.fault != Fault::kNone && Staying().count > 1) {
    wire::Members leaving;
    leaving.Add(link.replica());
    Drop(leaving, back.fault, back.reason);
    if (proposal_.outstanding && leaving_.Contains(link.replica())) WriteRecord(link);
    return;
  }
  if (back.fault != Fault::kNone) {
    // The last member never leaves. What is not the replica that was left cannot serve for it.
    if (!KnowsRecord(StateOf(link).records.current) || back.fault == Fault::kWrongSize) {
      link.Break({ErrorCode::kSuspect, "the last member cannot go on: " + back.reason});
      return;
    }
    log_.Log(LogLevel::kError, "the last member, replica " + wire::ReplicaIdText(link.replica()) +
                                   ", is back, but " + back.reason + ": flushes fail from now on");
    lost_writes_ = true;
    // What was found equal to this one, or copied from it, is so no longer.
    joiner_.LetGo({ErrorCode::kSuspect, "the last member may have lost what it was equal to"});
  }
  observer_.OnReplica(link.replica(), "member", Fault::kNone, "");
  if (waits_for_ == WaitsFor::kMembers) {
    log_.Log(LogLevel::kInfo,
             "I/O goes on: replica " + wire::ReplicaIdText(link.replica()) + " is back");
    GoesOn();
  }
  if (proposal_.outstanding) WriteRecord(link);
  SendUnanswered(link);
  equalizer_.Returned(link);
  expander_.Look();
  copier_.Kick();
  snapshotter_.OnMembers();
  CloseWhenIdle();
}

// What waits for this member and is not on its way to it, on a connection that is new.
void Engine::SendUnanswered(Link& link) {
  // Under the locks that they still hold, in their order.
  for (Operation* operation = in_flight_.front(); operation != nullptr;
       operation = in_flight_.Next(operation)) {
    MemberPart& part = operation->parts[link.index()];
    if (part.state == MemberPart::State::kWaiting && !part.answer_due) {
      SendPart(operation, link.index(), true);
    } else if (!operation->fans_out() && !operation->queue_node.linked()) {
      // A read goes to whoever is back first.
      bool asked = false;
      for (const MemberPart& other : operation->parts) asked |= other.answer_due;
      if (!asked) Route(operation);
    }
  }
}

void Engine::OnLinkRefused(Link& link, const Status& why) {
  const bool news = heard_[link.index()].why_not != why.message();
  heard_[link.index()].answered = false;
  heard_[link.index()].why_not = why.message();
  if (why.code() == ErrorCode::kFenced) {
    Refuse("replica " + wire::ReplicaIdText(link.replica()) +
           " serves a newer engine: " + why.message());
    return;
  }
  // It is asked again and again.
  if (news) {
    log_.Log(LogLevel::kWarn,
             "replica " + wire::ReplicaIdText(link.replica()) + " refused: " + why.message());
  }
  if (mode_ == Mode::kStarting) Evaluate();
  joiner_.OnRefused(link, why);
}

void Engine::OnLinkLost(Link& link, const Status& why) {
  const size_t index = link.index();
  // Left-over ones first, as detaching those in flight may add to them.
  Operation* next = nullptr;
  for (Operation* operation = left_over_.front(); operation != nullptr; operation = next) {
    next = left_over_.Next(operation);
    DetachPart(operation, index);
  }
  for (Operation* operation = in_flight_.front(); operation != nullptr;
       operation = in_flight_.Next(operation)) {
    DetachPart(operation, index);
  }
  while (Operation* operation = QuietLeftOver()) Recycle(operation);
  joiner_.OnConnectionLost(link);
  changes_.OnLost(link);
  readers_.OnLost(link);
  errands_.OnLost(link);
  snapshotter_.OnLost(link);
  snapshotter_.OnQuieter();
  if (link.gone()) {
    MemberGone(link);
    return;
  }
  if (!IsTarget(index)) {
    // A member that left, or a joiner. That is let go first: a flush that ends now, as it is not
    // waited for any more, is none of its.
    joiner_.OnLost(link);
    MemberGone(link);
  }
  if (heard_[index].answered || heard_[index].why_not.empty()) {
    heard_[index].answered = false;
    heard_[index].why_not = why.message();
  } else if (mode_ == Mode::kStarting) {
    heard_[index].why_not = why.message();
  }
  switch (mode_) {
    case Mode::kStarting:
      Evaluate();
      return;
    case Mode::kFencing:
      // The answers were given for connections that stand; ask again.
      FencedMember();
      return;
    case Mode::kLearning:
      if (IsTarget(index)) AskAgain("a replica was lost while starting; asking again");
      return;
    case Mode::kRecording:
    case Mode::kServing:
    case Mode::kChanging:
      if (!IsTarget(index)) return;
      observer_.OnReplica(link.replica(), "connecting", Fault::kNone, why.message());
      ReRoute(link);
      ArmTick(true);
      return;
    case Mode::kStopping:
      ReRoute(link);
      CloseOf(link, false);
      return;
    case Mode::kStopped:
    case Mode::kRefused:
      return;
  }
}

void Engine::OnLinkAlive(Link&) {
  if (!unproved_.empty()) AnswerHeldReads();
  if (!std::exchange(alive_wanted_, false)) return;
  if (mode_ == Mode::kStopping) {
    LetLeave({});
  } else if (mode_ == Mode::kRecording || mode_ == Mode::kServing || mode_ == Mode::kChanging) {
    CheckMembers(reactor_.NowNs());
  }
}

Operation* Engine::QuietLeftOver() {
  for (Operation* operation = left_over_.front(); operation != nullptr;
       operation = left_over_.Next(operation)) {
    if (operation->quiet()) return operation;
  }
  return nullptr;
}

// Reads that waited for this link go to another member that is up; with none they wait for whoever
// comes back first.
void Engine::ReRoute(Link& link) {
  const size_t index = link.index();
  for (Operation* operation = in_flight_.front(); operation != nullptr;
       operation = in_flight_.Next(operation)) {
    MemberPart& part = operation->parts[index];
    if (operation->fans_out()) continue;
    if (part.state == MemberPart::State::kWaiting) {
      part.state = MemberPart::State::kUnused;
      --operation->waiting;
    }
    if (operation->waiting == 0 && !operation->queue_node.linked()) to_judge_.PushBack(operation);
  }
  JudgeAll();
}

void Engine::OnLinkControl(Link& link, wire::Opcode opcode, const Status& outcome) {
  if (opcode == wire::Opcode::kClose) {
    if (!outcome.ok()) {
      log_.Log(LogLevel::kWarn, "replica " + wire::ReplicaIdText(link.replica()) +
                                    " was not closed clean: " + outcome.message());
    }
    CloseOf(link, outcome.ok());
    return;
  }
  if (opcode != wire::Opcode::kRecord || !IsTarget(link.index())) return;
  if (outcome.ok() && link.sent_resynced()) suspects_.Remove(link.replica());
  if (!unproved_.empty()) AnswerHeldReads();
  if (outcome.ok()) {
    snapshotter_.OnRecordWritten(link, record_sent_[link.index()]);
    RecordWritten(link);
    return;
  }
  if (outcome.code() == ErrorCode::kFenced) {
    Refuse("replica " + wire::ReplicaIdText(link.replica()) +
           " serves a newer engine: " + outcome.message());
    return;
  }
  record_sent_[link.index()] = 0;        // tried again by the tick
  if (!IsStaying(link.index())) return;  // it leaves in any case
  if (Staying().count > 1) {
    wire::Members leaving;
    leaving.Add(link.replica());
    MustLeave(leaving, Fault::kRecordFailed, "it cannot write the record: " + outcome.message());
    NoteWhole(link);
    LetLeave({});
    return;
  }
  SetMessage("the last member cannot write the record: " + outcome.message(), WaitsFor::kMembers);
}

}  // namespace ankole::engine

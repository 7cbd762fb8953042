#include <algorithm>

#include "base/mutant.h"
#include "engine/engine.h"

// Changing members (rule 2): records, the store, leaving.
namespace ankole::engine {
namespace {

constexpr uint64_t kStoreRetryNs = kNsPerSecond;
constexpr uint64_t kStoreAnswerNs = 5 * kNsPerSecond;

std::string Names(const wire::Members& members) {
  std::string text;
  for (const wire::ReplicaId id : members.all()) {
    if (!text.empty()) text += ", ";
    text += wire::ReplicaIdText(id);
  }
  return text;
}

}  // namespace

void Engine::Propose(const wire::Members& members) {
  CHECK(members.count > 0);
  const uint64_t generation = std::max(complete_.generation, proposal_.record.generation) + 1;
  proposal_.record.epoch = options_.epoch;
  proposal_.record.generation = generation;
  proposal_.record.members = members;
  proposal_.written = {};
  proposal_.outstanding = true;
  proposal_.first_question = proposal_.question = 0;
  proposal_.store_refused = false;
  proposal_.since_ns = reactor_.NowNs();
  ballot_.Propose(members);
  lease_until_ns_ = 0;
  // The supervisor hears of it before a replica can hold it: what it keeps is never behind (rule
  // 6).
  observer_.OnPropose(proposal_.record);
  for (const wire::ReplicaId id : members.all()) WriteRecord(*LinkOf(id));
  ArmTick(true);
}

// Sends the proposal, unless the link is down (then when it is back) or an older one is on its way
// (then when that is answered).
void Engine::WriteRecord(Link& link) {
  if (!link.up() || link.control_outstanding() || proposal_.written.Contains(link.replica()))
    return;
  uint16_t flags = 0;
  const bool leaves = leaving_.Contains(link.replica());
  // What is not the replica that was left must not become one by a record.
  const Fault fault = leaves ? WhyNotBack(link).fault : Fault::kNone;
  if (fault == Fault::kOlderRecord || fault == Fault::kWrongSize) return;
  if (leaves && StateOf(link).lost) {
    // By a record a replica is taken as it is: not one that must leave for what it lost (rule 7).
    // But those that lost nothing may all be new by this one, at a start (see DecideStart) or as
    // the last member lost something once they were proposed: held by them, whenever it is by it.
    if (!NeededForRecord(link.replica()) || !HeldByStaying()) return;
    flags = wire::kFlagStillLost;
  } else if (joiner_.IsResynced(link.index()) ||
             (suspects_.Contains(link.replica()) && equalizer_.AllEqual())) {
    flags = wire::kFlagResynced;
  }
  if (snapshotter_.PreparesFirst(link)) {
    record_sent_[link.index()] = 0;
    return;
  }
  record_sent_[link.index()] = proposal_.record.generation;
  link.SendRecord({proposal_.record, complete_}, flags);
}

// Whether no record is possible without it, though it must leave: every set shares a member with
// the complete one before it.
bool Engine::NeededForRecord(wire::ReplicaId id) const {
  if (mode_ == Mode::kRecording) return decision_.leaving.Contains(id);
  return complete_.members.Contains(id) && !SharesMember(Staying());
}

bool Engine::SharesMember(const wire::Members& members) const {
  const auto& ids = members.all();
  return std::any_of(ids.begin(), ids.end(),
                     [this](wire::ReplicaId id) { return complete_.members.Contains(id); });
}

// Whether all members that need not leave have written the proposal.
bool Engine::HeldByStaying() const {
  const wire::Members staying = Staying();
  const auto& ids = staying.all();
  return std::all_of(ids.begin(), ids.end(),
                     [this](wire::ReplicaId id) { return proposal_.written.Contains(id); });
}

// Complete by the members alone where they carry all that rule 2 counts. The first record of a run
// is in the store as well, so that a start without these members cannot miss it; unless this run
// goes on from what the supervisor kept, which it will keep for the next one.
void Engine::RecordWritten(Link& link) {
  if (!proposal_.outstanding) return;
  if (record_sent_[link.index()] != proposal_.record.generation) {
    WriteRecord(link);
    return;
  }
  proposal_.written.Add(link.replica());
  // The others are late from the first answer on.
  if (proposal_.written.count == 1) proposal_.since_ns = reactor_.NowNs();
  if (!(proposal_.written == proposal_.record.members)) {
    const wire::Members leaving = leaving_;
    for (const wire::ReplicaId id : leaving.all()) WriteRecord(*LinkOf(id));
    return;
  }
  const bool first = complete_.epoch != options_.epoch;
  if (ballot_.Carries(proposal_.record.members) && (!first || options_.kept)) {
    Complete();
  } else {
    AskStore();
  }
}

void Engine::AskStore() {
  proposal_.question = ++next_question_;
  if (proposal_.first_question == 0) proposal_.first_question = proposal_.question;
  proposal_.store_refused = false;
  proposal_.since_ns = reactor_.NowNs();
  observer_.OnAskStore(proposal_.question, proposal_.record);
}

// Whether a minority may be proposed. Asked anew after a while, as long as somebody wants to know.
void Engine::ProbeStore(uint64_t now_ns) {
  const uint64_t since_ns = ElapsedNs(probe_.asked_ns, now_ns);
  if (probe_.question != 0 && since_ns < (probe_.open ? kStoreAnswerNs : kStoreRetryNs)) return;
  probe_.question = ++next_question_;
  probe_.asked_ns = now_ns;
  probe_.open = true;
  observer_.OnProbeStore(probe_.question);
}

void Engine::AnswerStore(uint64_t question, const Status& outcome) {
  if (mode_ == Mode::kRefused || mode_ == Mode::kStopped || question == 0) return;
  if (outcome.code() == ErrorCode::kFenced) {
    Refuse("the store has given the volume to a newer attachment: " + outcome.message());
    return;
  }
  if (question == probe_.question) {
    probe_.open = false;
    if (outcome.ok()) probe_.answered_ns = reactor_.NowNs();
    if (!probe_.wanted) return;
    if (outcome.ok()) {
      if (mode_ == Mode::kStopping) {
        LetLeave({});
      } else {
        CheckMembers(probe_.answered_ns);
      }
    } else {
      SetMessage("I/O waits: members must leave, which needs the store: " + outcome.message(),
                 WaitsFor::kStore);
    }
    return;
  }
  // Also the answer to an earlier question about this very record counts: the store may be slow.
  if (!proposal_.outstanding || proposal_.question == 0 || question < proposal_.first_question ||
      question > proposal_.question) {
    return;
  }
  if (outcome.ok()) {
    Complete();
    return;
  }
  proposal_.store_refused = true;
  proposal_.since_ns = reactor_.NowNs();
  SetMessage("I/O waits for the store to record the members: " + outcome.message(),
             WaitsFor::kStore);
}

// It counts: all members hold the record, and so does the store or a majority of who could know
// better.
void Engine::Complete() {
  const wire::Members before = complete_.members;
  const bool same = before == proposal_.record.members && complete_.epoch == options_.epoch;
  proposal_.outstanding = false;
  complete_ = proposal_.record;
  ballot_.Complete(complete_.members);
  lease_until_ns_ = 0;
  log_.Log(LogLevel::kInfo, (same ? "members are still [" : "members are now [") +
                                Names(complete_.members) + "], generation " +
                                std::to_string(complete_.generation));
  observer_.OnComplete(complete_);
  if (mode_ == Mode::kRecording) {
    ServeWhenAlone();
    return;
  }
  if (mode_ == Mode::kChanging) SetMode(Mode::kServing, WhoLeft());
  MembersChanged();
  for (const wire::ReplicaId id : complete_.members.all()) {
    if (before.Contains(id)) continue;
    equalizer_.Returned(*LinkOf(id));
    snapshotter_.OnNewMember(HasSnapshots());
  }
  AcknowledgeHeld();
  if (!unproved_.empty()) AnswerHeldReads();
  CloseWhenIdle();
}

void Engine::AcknowledgeHeld() {
  IntrusiveList<Operation, &Operation::queue_node> still;
  while (!held_.empty() && !proposal_.outstanding) {
    Operation* operation = held_.PopFront();
    if (FlushesTooLittle(*operation) || ReadsTooEarly(*operation)) {
      still.PushBack(operation);
    } else if (operation->fans_out()) {
      Acknowledge(operation);
    } else {
      Finish(operation, operation->status);  // as it also takes the lease
    }
  }
  while (!still.empty()) held_.PushBack(still.PopFront());
}

// The start is done. An engine before this one may still answer reads from a replica that this one
// has not taken: nothing is acknowledged until it cannot any more (rule 4).
void Engine::ServeWhenAlone() {
  if (mode_ != Mode::kRecording || proposal_.outstanding || !complete_.exists()) return;
  if (reactor_.NowNs() < serve_from_ns_) {
    SetMessage("waiting 2 s until an engine before this one cannot answer any more");
    return;
  }
  const wire::Members staying = Staying();
  for (const wire::ReplicaId id : staying.all()) {
    observer_.OnReplica(id, "member", Fault::kNone, "");
  }
  SetMode(Mode::kServing, WhoLeft());
  LetLeave({});
  snapshotter_.OnNewMember(HasSnapshots());
  MembersChanged();
  ServeFromNowOn();
}

wire::Members Engine::Staying() const {
  wire::Members staying = targets();
  for (const wire::ReplicaId id : leaving_.all()) staying.Remove(id);
  return staying;
}

void Engine::Drop(const wire::Members& leaving, Fault fault, const std::string& reason) {
  MustLeave(leaving, fault, reason);
  LetLeave({});
}

void Engine::MustLeave(const wire::Members& leaving, Fault fault, const std::string& reason) {
  for (const wire::ReplicaId id : leaving.all()) {
    if (!Staying().Contains(id)) continue;
    CHECK(Staying().count > 1);
    leaving_.Add(id);
    departures_[LinkOf(id)->index()] = {fault, reason};
  }
}

// A minority is proposed only when the store answers: were it proposed without, a member that comes
// back could not help any more.
void Engine::LetLeave(const wire::Members& late) {
  wire::Members staying = Staying();
  for (const wire::ReplicaId id : late.all()) staying.Remove(id);
  if (staying == targets() || staying.count == 0) return;
  if (complete_.exists() && !SharesMember(staying)) {
    SetMessage("I/O waits: a member of generation " + std::to_string(complete_.generation) +
                   " must write the next record",
               WaitsFor::kMembers);
    return;
  }
  const uint64_t now_ns = reactor_.NowNs();
  const bool store_answers =
      probe_.answered_ns != 0 && ElapsedNs(probe_.answered_ns, now_ns) < kStoreRetryNs;
  if (!ballot_.Carries(staying) && !store_answers) {
    probe_.wanted = true;
    ProbeStore(now_ns);
    ArmTick(true);
    return;
  }
  if (!AnyAlive(staying)) {
    ArmTick(true);
    return;
  }
  probe_.wanted = false;
  alive_since_ns_ = 0;
  const wire::Members before = targets();
  std::string why;
  for (const wire::ReplicaId id : before.all()) {
    if (!staying.Contains(id)) why = departures_[LinkOf(id)->index()].reason;
  }
  if (mode_ == Mode::kServing || waits_for_ == WaitsFor::kStore) {
    if (mode_ == Mode::kServing) mode_ = Mode::kChanging;
    SetMode(mode_, "a replica leaves: " + why);
  }
  leaving_ = whole_ = {};
  Propose(staying);
  for (const wire::ReplicaId id : before.all()) {
    if (!staying.Contains(id)) PartWith(*LinkOf(id));
  }
  MembersChanged();
}

void Engine::PartWith(Link& link) {
  const auto& [fault, reason] = departures_[link.index()];
  ++faults_[static_cast<size_t>(fault)];
  const std::string why = reason + joiner_.OnLeft(link);
  log_.Log(LogLevel::kWarn, "replica " + wire::ReplicaIdText(link.replica()) + " leaves: " + why);
  observer_.OnReplica(link.replica(), "left", fault, why);
  const bool quiet = link.mode() != LinkMode::kUp && link.mode() != LinkMode::kClosing;
  link.Break({ErrorCode::kCancelled, reason});
  if (quiet) MemberGone(link);
}

// Nothing of its connection is left: operations go on without it.
void Engine::MemberGone(Link& link) {
  const size_t index = link.index();
  for (Operation* operation = in_flight_.front(); operation != nullptr;
       operation = in_flight_.Next(operation)) {
    PartGone(operation, index);
  }
  JudgeAll();
}

void Engine::Refuse(const std::string& reason) {
  if (mode_ == Mode::kRefused || mode_ == Mode::kStopped) return;
  log_.Log(LogLevel::kError, "refused: " + reason);
  if (mode_ == Mode::kStopping) {
    Closed(false);
    return;
  }
  if (mode_ == Mode::kStarting || mode_ == Mode::kFencing) {
    StartDecision decision = Decide(heard_);
    decision.lacking = reason;
    observer_.OnCannotStart(decision, heard_);
  }
  SetMode(Mode::kRefused, reason);
  proposal_.outstanding = false;
  reactor_.Cancel(&tick_);
  GiveUpBuffers();
  StopResync();
  for (const auto& link : links_) {
    if (link->gone()) continue;
    link->Leave(reason);
    if (link->gone()) MemberGone(*link);
  }
  FailWaiting(ErrorCode::kFenced);
}

// Requests are about to fail of which a disk host may still take the data from shared memory, now
// or when it wakes. It must find that data, and not what the front end does with the buffer next: a
// failed write may have happened or not, but nothing else may.
void Engine::GiveUpBuffers() {
  if (shared_ != nullptr && !in_flight_.empty()) buffers_->Freeze();
}

// The proposal goes to whoever does not have it, or once more to the store.
void Engine::AskAgainForRecord(uint64_t now_ns) {
  if (!proposal_.outstanding) return;
  if (proposal_.question == 0) {
    for (const wire::ReplicaId id : targets().all()) {
      Link& link = *LinkOf(id);
      if (record_sent_[link.index()] != proposal_.record.generation) WriteRecord(link);
    }
    return;
  }
  const uint64_t waited_ns = ElapsedNs(proposal_.since_ns, now_ns);
  if (waited_ns < (proposal_.store_refused ? kStoreRetryNs : kStoreAnswerNs)) return;
  if (Mutant("proposal-taken-back") && complete_.epoch == options_.epoch) {
    // Those whom it dropped are asked for again.
    for (const wire::ReplicaId id : complete_.members.all()) {
      if (!targets().Contains(id)) LinkOf(id)->Break({ErrorCode::kCancelled, "a member again"});
    }
    proposal_.record.members = complete_.members;
    proposal_.outstanding = false;
    ballot_.Complete(complete_.members);
    SetMode(Mode::kServing, "the members are as before");
    MembersChanged();
    while (!held_.empty()) Acknowledge(held_.PopFront());
    return;
  }
  if (!proposal_.store_refused) {
    SetMessage("I/O waits for the store to record the members", WaitsFor::kStore);
  }
  AskStore();
}

}  // namespace ankole::engine

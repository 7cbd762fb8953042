#include <algorithm>
#include <utility>

#include "engine/engine.h"

// Starting, changing members, stopping, and what time brings about.
namespace ankole::engine {
namespace {

constexpr uint64_t kTickFastNs = 250 * kNsPerMs;
// An idle volume wakes up this often: keep-alive, and memory given back.
constexpr uint64_t kTickIdleNs = 5 * kNsPerSecond;
constexpr uint64_t kStoreRetryNs = kNsPerSecond;
constexpr uint64_t kStoreAnswerNs = 5 * kNsPerSecond;
constexpr uint64_t kPatienceNs = kNsPerSecond;
constexpr uint64_t kHearNs = 250 * kNsPerMs;
constexpr uint64_t kStopNs = 3 * kNsPerSecond;
// Of which a member whose connection broke has this much to come back.
constexpr uint64_t kStopGraceNs = 2 * kNsPerSecond;
// A flush may take this long while the replica answers PING (section 4, «late»).
constexpr uint64_t kFlushNs = 10 * kNsPerSecond;
// A joiner may take this long to flush what it was filled with: no client waits for that.
constexpr uint64_t kJoinerFlushNs = 120 * kNsPerSecond;

// How long ago; 0 for what happened since the tick began.
uint64_t Since(uint64_t then_ns, uint64_t now_ns) {
  return now_ns > then_ns ? now_ns - then_ns : 0;
}

std::string Names(const wire::Members& members) {
  std::string text;
  for (const wire::ReplicaId id : members.all()) {
    if (!text.empty()) text += ", ";
    text += wire::ReplicaIdText(id);
  }
  return text;
}

}  // namespace

void Engine::Start() {
  start_deadline_ns_ = reactor_.NowNs() + options_.start_wait_ns;
  if (shared_ != nullptr) OnDoorbell();
  SetMode(Mode::kStarting, "asking the replicas");
  ArmTick(true);
  for (const auto& link : links_) link->Start();
}

// --- starting (rule 6)
// -----------------------------------------------------------------------------

StartDecision Engine::Decide(const std::vector<Heard>& heard) const {
  StartBasis basis;
  basis.record = options_.record;
  basis.store_restored = options_.store_restored;
  basis.clients_anew = options_.clients_anew;
  basis.attachment = options_.epoch.attachment;
  return DecideStart(basis, heard);
}

// Decides by what was heard so far. Waits for more as long as that can add a member. When all
// members of the newest record hold it, no newer one exists: it would be held by one of them.
void Engine::Evaluate() {
  if (mode_ != Mode::kStarting) return;
  const StartDecision decision = Decide(heard_);
  const bool in_time = reactor_.NowNs() < start_deadline_ns_;
  if (decision.may_start && (!in_time || (decision.complete && EveryoneHad(kHearNs)))) {
    Fence(decision);
    return;
  }
  // What is there answers within a moment; only then is it news what does not.
  const bool patient = reactor_.NowNs() + options_.start_wait_ns < start_deadline_ns_ + kPatienceNs;
  if (patient || decision.lacking.empty()) return;
  SetMessage("cannot start yet: " + decision.lacking);
  if (decision.lacking != lacking_) observer_.OnCannotStart(decision, heard_);
  lacking_ = decision.lacking;
}

// Who need not be heard gets a moment all the same: an engine that has taken every replica need not
// wait for the lease of one before it (rule 4).
bool Engine::EveryoneHad(uint64_t time_ns) const {
  if (options_.alone || reactor_.NowNs() + options_.start_wait_ns >= start_deadline_ns_ + time_ns) {
    return true;
  }
  return std::all_of(heard_.begin(), heard_.end(), [](const Heard& one) { return one.answered; });
}

// Takes everyone that answered, also whom it does not start on: an engine before this one must find
// no majority any more (rule 4).
void Engine::Fence(const StartDecision& decision) {
  decision_ = decision;
  lacking_.clear();
  proposal_.record.members = decision.members;
  proposal_.record.generation = decision.newest.generation;
  SetMode(Mode::kFencing, "taking the replicas over");
  for (const auto& link : links_) {
    if (heard_[link->index()].answered) link->Fence();
  }
}

void Engine::AskAgain(const std::string& why) {
  SetMode(Mode::kStarting, why);
  for (const auto& link : links_) {
    if (link->up() || link->mode() == LinkMode::kWelcoming) {
      link->Break({ErrorCode::kCancelled, "asking again"});
    }
  }
}

// One was welcomed, or lost. When all are, the answers must still be those that were decided on.
void Engine::FencedMember() {
  for (const auto& link : links_) {
    if (link->mode() == LinkMode::kWelcoming) return;
    if (!link->up() && decision_.members.Contains(link->replica())) {
      AskAgain("a replica was lost while starting; asking again");
      return;
    }
  }
  // Only who was taken counts: an engine before this one may still get a record written by others.
  std::vector<Heard> taken = heard_;
  for (const auto& link : links_) taken[link->index()].answered &= link->up();
  const StartDecision now = Decide(taken);
  if (!now.may_start || !(now.members == decision_.members) || now.newest != decision_.newest) {
    // Another engine wrote a record between the question and the fence; now it cannot any more.
    AskAgain("the replicas changed while starting; asking again");
    return;
  }
  decision_ = now;
  if (now.unclean) {
    LearnMaps();
  } else {
    FirstRecord();
  }
}

void Engine::FirstRecord() {
  const StartDecision& now = decision_;
  bool all = true;
  for (const auto& link : links_) all &= link->up();
  complete_ = now.last_complete;
  std::vector<wire::Members> proposals;
  for (const wire::Record& record : options_.proposals) proposals.push_back(record.members);
  proposals.push_back(now.newest.members);
  ballot_.Begin(options_.kept ? options_.record.members : now.newest.members, proposals);
  proposal_.record.newest_snapshot = now.newest.newest_snapshot;
  serve_from_ns_ = options_.alone || all ? 0 : reactor_.NowNs() + kLeaseWaitNs;
  SetMode(Mode::kRecording, "writing the first record of this attachment");
  for (const auto& link : links_) {
    if (now.members.Contains(link->replica())) continue;
    const Heard& heard = heard_[link->index()];
    Fault fault = Fault::kNotHeard;
    std::string reason = heard.why_not;
    if (heard.answered) {
      const bool older = heard.state.records.current != now.newest;
      fault = older ? Fault::kOlderRecord : Fault::kSuspect;
      reason = older ? "it holds an older record" : "it may have lost what it had acknowledged";
    }
    observer_.OnReplica(link->replica(), "left", fault, reason);
  }
  Propose(now.members);
}

// --- changing (rule 2)
// -----------------------------------------------------------------------------

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
  record_sent_[link.index()] = proposal_.record.generation;
  const bool resynced = joiner_.IsResynced(link.index()) ||
                        (suspects_.Contains(link.replica()) && equalizer_.AllEqual());
  link.SendRecord({proposal_.record, complete_}, resynced);
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
  if (!(proposal_.written == proposal_.record.members)) return;
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
  const uint64_t since_ns = Since(probe_.asked_ns, now_ns);
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
    if (!probe_.wanted) return;
    if (outcome.ok()) {
      probe_.answered_ns = reactor_.NowNs();
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
  proposal_.outstanding = false;
  complete_ = proposal_.record;
  ballot_.Complete(complete_.members);
  lease_until_ns_ = 0;
  log_.Log(LogLevel::kInfo, "members are now [" + Names(complete_.members) + "], generation " +
                                std::to_string(complete_.generation));
  observer_.OnComplete(complete_);
  if (mode_ == Mode::kRecording) {
    ServeWhenAlone();
    return;
  }
  if (mode_ == Mode::kChanging) SetMode(Mode::kServing, WhoLeft());
  MembersChanged();
  while (!held_.empty() && !proposal_.outstanding) Acknowledge(held_.PopFront());
  if (!unproved_.empty()) AnswerHeldReads();
  CloseWhenIdle();
}

// The start is done. An engine before this one may still answer reads from a replica that this one
// has not taken: nothing is acknowledged until it cannot any more (rule 4).
void Engine::ServeWhenAlone() {
  if (mode_ != Mode::kRecording || proposal_.outstanding || !complete_.exists()) return;
  if (reactor_.NowNs() < serve_from_ns_) {
    SetMessage("waiting 2 s until an engine before this one cannot answer any more");
    return;
  }
  for (const wire::ReplicaId id : complete_.members.all()) {
    observer_.OnReplica(id, "member", Fault::kNone, "");
  }
  SetMode(Mode::kServing, WhoLeft());
  MembersChanged();
  observer_.OnReady();
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
  // Every set shares a member with the complete one before it.
  const auto& ids = staying.all();
  const bool shares = std::any_of(ids.begin(), ids.end(), [this](wire::ReplicaId id) {
    return complete_.members.Contains(id);
  });
  if (!shares && complete_.exists()) {
    SetMessage("I/O waits: a member of generation " + std::to_string(complete_.generation) +
                   " must write the next record",
               WaitsFor::kMembers);
    return;
  }
  const uint64_t now_ns = reactor_.NowNs();
  const bool store_answers =
      probe_.answered_ns != 0 && Since(probe_.answered_ns, now_ns) < kStoreRetryNs;
  if (!ballot_.Carries(staying) && !store_answers) {
    probe_.wanted = true;
    ProbeStore(now_ns);
    ArmTick(true);
    return;
  }
  probe_.wanted = false;
  const wire::Members before = targets();
  std::string why;
  for (const wire::ReplicaId id : before.all()) {
    if (!staying.Contains(id)) why = departures_[LinkOf(id)->index()].reason;
  }
  if (mode_ == Mode::kServing || waits_for_ == WaitsFor::kStore) {
    if (mode_ == Mode::kServing) mode_ = Mode::kChanging;
    SetMode(mode_, "a replica leaves: " + why);
  }
  leaving_ = {};
  Propose(staying);
  for (const wire::ReplicaId id : before.all()) {
    if (!staying.Contains(id)) PartWith(*LinkOf(id));
  }
  MembersChanged();
}

void Engine::PartWith(Link& link) {
  const auto& [fault, reason] = departures_[link.index()];
  ++faults_[static_cast<size_t>(fault)];
  log_.Log(LogLevel::kWarn,
           "replica " + wire::ReplicaIdText(link.replica()) + " leaves: " + reason);
  observer_.OnReplica(link.replica(), "left", fault, reason);
  joiner_.OnLeft(link);
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

// --- time
// ------------------------------------------------------------------------------------------

void Engine::ArmTick(bool fast) {
  if (mode_ == Mode::kRefused || mode_ == Mode::kStopped) return;
  if (fast && tick_fast_ && tick_.armed()) return;
  tick_fast_ = fast;
  reactor_.Arm(&tick_, reactor_.NowNs() + (fast ? kTickFastNs : kTickIdleNs));
}

void Engine::Tick() {
  const uint64_t now_ns = reactor_.NowNs();
  // This process was held up itself: the answers may have come, and are read before the next tick.
  const bool late = !tick_was_late_ && Since(tick_.deadline_ns, now_ns) >= kTickFastNs;
  tick_was_late_ = late;
  // Only the last member to answer rings: with one that is late the others' answers lie there
  // unheard.
  if (shared_ != nullptr) DrainShared();
  switch (mode_) {
    case Mode::kStarting:
      Evaluate();
      break;
    case Mode::kFencing:
    case Mode::kLearning:
      for (const auto& link : links_) {
        if (!late && link->up()) CheckSilence(*link, now_ns);
      }
      break;
    case Mode::kRecording:
    case Mode::kServing:
    case Mode::kChanging:
      if (!late) CheckMembers(now_ns);
      CheckLease(now_ns);
      ServeWhenAlone();
      RetryFull(now_ns);
      LookAtResync(now_ns);
      break;
    case Mode::kStopping:
      AskAgainForRecord(now_ns);
      LetLeave({});
      CloseWhenIdle();
      if (now_ns >= stop_deadline_ns_) Closed(false);
      break;
    case Mode::kStopped:
    case Mode::kRefused:
      return;
  }
  bool busy = active_ || !in_flight_.empty() || mode_ != Mode::kServing || out_of_space_ns_ != 0;
  for (const auto& link : links_) busy |= IsTarget(link->index()) && !link->up();
  busy |= joiner_.link() != nullptr || !equalizer_.AllEqual() || suspects_.count > 0 ||
          scrubber_.running();
  active_ = false;
  if (busy) {
    trimmed_ = false;
  } else if (!trimmed_) {
    // Idle for a whole tick: the pages go back to the kernel.
    buffers_->Trim();
    for (const auto& link : links_) link->Trim();
    trimmed_ = true;
  }
  ArmTick(busy);
}

// Who does not answer leaves, as soon as rule 2 lets them.
void Engine::CheckMembers(uint64_t now_ns) {
  Late late;
  CheckLinks(now_ns, &late);
  CheckOperations(now_ns, &late);
  CheckProposal(now_ns, &late);
  AskAgainForRecord(now_ns);
  const bool wanted = std::exchange(probe_.wanted, false);
  LeaveLate(late);
  if (probe_.wanted) {
    if (wanted && waits_for_ == WaitsFor::kNothing) {
      SetMessage("I/O waits: members must leave, which needs the store", WaitsFor::kStore);
    }
  } else if (waits_for_ == WaitsFor::kStore && !proposal_.outstanding) {
    log_.Log(LogLevel::kInfo, "I/O goes on: the members are back");
    GoesOn();
  }
}

// The most that rule 2 lets go without the store: all who are late, else all who do not even answer
// a PING, so that one that hangs takes nobody with it that is only slow. With the store later.
void Engine::LeaveLate(Late late) {
  for (wire::Members* members : {&late.first, &late.second, &late.silent}) {
    wire::Members staying = Staying();
    for (const wire::ReplicaId id : members->all()) staying.Remove(id);
    // One always stays.
    if (staying.count == 0) members->Remove(Staying().ids[0]);
  }
  for (const wire::Members* members : {&late.first, &late.silent}) {
    wire::Members staying = Staying();
    for (const wire::ReplicaId id : members->all()) staying.Remove(id);
    if (!ballot_.Carries(staying)) continue;
    LetLeave(*members);
    return;
  }
  LetLeave(late.second);
}

// It has not answered a PING for half of the time that makes a member late.
bool Engine::IsSilent(const Link& link, uint64_t now_ns) const {
  return !link.up() ||
         (link.ping_sent_ns() != 0 && Since(link.ping_sent_ns(), now_ns) >= options_.late_ns / 2);
}

void Engine::NoteLate(Late* late, const Link& link, uint64_t waited_ns, uint64_t limit_ns,
                      Fault fault, const std::string& reason) {
  if (waited_ns < limit_ns) return;
  const bool long_ago = waited_ns >= std::max(limit_ns, options_.late_ns * 5 / 2);
  if (!leaving_.Contains(link.replica())) departures_[link.index()] = {fault, reason};
  late->first.Add(link.replica());
  if (long_ago) late->second.Add(link.replica());
  if (IsSilent(link, reactor_.NowNs())) late->silent.Add(link.replica());
}

// The machine at the other end may have lost power: nobody says so.
void Engine::CheckSilence(Link& link, uint64_t now_ns) {
  const uint64_t silent_ns = Since(link.heard_ns(), now_ns);
  const bool idle = link.outstanding == 0 && !link.control_outstanding();
  if (silent_ns >= (idle ? kTickIdleNs - kTickFastNs : options_.late_ns / 4)) link.Ping();
  if (link.ping_sent_ns() != 0 && Since(link.ping_sent_ns(), now_ns) >= options_.late_ns) {
    link.Break({ErrorCode::kTimedOut, "it does not answer"});
  }
}

// Broken connections, and silent ones.
void Engine::CheckLinks(uint64_t now_ns, Late* late) {
  wire::Members down;
  std::string why;
  for (const auto& link : links_) {
    if (!IsTarget(link->index())) continue;
    if (!link->up()) {
      down.Add(link->replica());
      why = link->why_down();
      continue;
    }
    CheckSilence(*link, now_ns);
  }
  if (down.count == targets().count) {
    reachable_since_ns_ = 0;
    if (mode_ == Mode::kServing || mode_ == Mode::kChanging) {
      SetMessage("I/O waits: no member can be reached (" + why + ")", WaitsFor::kMembers);
    }
    return;
  }
  // When all were away together, whoever is back first gives the others their time.
  if (reachable_since_ns_ == 0) reachable_since_ns_ = now_ns;
  // In the beginning nobody waits for I/O yet, and disk hosts may be starting as well.
  const uint64_t limit_ns = mode_ == Mode::kRecording ? options_.start_wait_ns : options_.late_ns;
  for (const wire::ReplicaId id : down.all()) {
    const Link& link = *LinkOf(id);
    // 0: it broke a moment ago.
    if (link.down_since_ns() == 0) continue;
    const uint64_t down_ns = Since(std::max(link.down_since_ns(), reachable_since_ns_), now_ns);
    NoteLate(late, link, down_ns, limit_ns,
             link.was_silent() ? Fault::kNoAnswer : Fault::kConnectionLost,
             link.was_silent() ? "it does not answer" : "its connection was lost: " + why);
  }
}

// Late members (section 4, «late»), and reads that had better be asked elsewhere.
void Engine::CheckOperations(uint64_t now_ns, Late* late) {
  for (Operation* operation = in_flight_.front(); operation != nullptr;
       operation = in_flight_.Next(operation)) {
    if (operation->waiting == 0 || operation->queue_node.linked()) continue;
    if (!operation->fans_out()) {
      if (Since(operation->last_answer_ns, now_ns) < options_.late_ns) continue;
      bool receiving = false;
      for (const MemberPart& part : operation->parts) receiving |= part.receiving;
      operation->last_answer_ns = now_ns;
      if (!receiving) Route(operation);
      continue;
    }
    if (operation->answered + operation->failed == 0) continue;
    const uint64_t waited_ns = Since(operation->last_answer_ns, now_ns);
    for (const auto& link : links_) {
      // A broken connection has its own time.
      if (operation->parts[link->index()].state != MemberPart::State::kWaiting || !link->up()) {
        continue;
      }
      if (!IsTarget(link->index())) {
        // Its time runs when nobody else is waited for.
        const uint64_t joiner_ns = operation->kind != BlockOperation::kFlush ? options_.late_ns
                                   : operation->own                          ? kJoinerFlushNs
                                                                             : kFlushNs;
        if (operation->waiting == 1 && waited_ns >= joiner_ns) {
          joiner_.LetGo({ErrorCode::kTimedOut, "it answered too late"});
        }
        continue;
      }
      const bool works = operation->takes_its_time() && !IsSilent(*link, now_ns);
      const uint64_t limit_ns = works ? std::max(options_.late_ns, kFlushNs) : options_.late_ns;
      NoteLate(late, *link, waited_ns, limit_ns, Fault::kNoAnswer, "it answered too late");
    }
  }
}

// Who does not write the record in time leaves as well, unless nobody is left.
void Engine::CheckProposal(uint64_t now_ns, Late* late) {
  if (!proposal_.outstanding || proposal_.question != 0) return;
  const uint64_t waited_ns = Since(proposal_.since_ns, now_ns);
  const uint64_t limit_ns = mode_ == Mode::kRecording ? options_.start_wait_ns : options_.late_ns;
  if (waited_ns < limit_ns) return;
  if (proposal_.written.count == 0) {
    if (waited_ns >= options_.late_ns * 5 / 2) {
      SetMessage("I/O waits: no member has written the record yet", WaitsFor::kMembers);
    }
    return;
  }
  for (const wire::ReplicaId id : targets().all()) {
    if (proposal_.written.Contains(id)) continue;
    const Link& link = *LinkOf(id);
    // A broken connection has its own time.
    if (!link.up()) continue;
    NoteLate(late, link, waited_ns, limit_ns, Fault::kNoAnswer,
             "it did not write the record in time");
  }
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
  const uint64_t waited_ns = Since(proposal_.since_ns, now_ns);
  if (waited_ns < (proposal_.store_refused ? kStoreRetryNs : kStoreAnswerNs)) return;
  if (!proposal_.store_refused) {
    SetMessage("I/O waits for the store to record the members", WaitsFor::kStore);
  }
  AskStore();
}

// --- stopping
// --------------------------------------------------------------------------------------

void Engine::Stop() {
  if (mode_ == Mode::kStopping || mode_ == Mode::kStopped) return;
  const bool worked = mode_ == Mode::kServing || mode_ == Mode::kChanging;
  SetMode(Mode::kStopping, "closing the replicas");
  stop_deadline_ns_ = reactor_.NowNs() + kStopNs;
  tick_fast_ = false;
  ArmTick(true);
  StopResync();
  if (worked) {
    CloseWhenIdle();
  } else {
    Closed(false);
  }
}

// A replica is closed clean only when it is equal to the others: with nothing in flight, the record
// complete, and not after an unclean start, as nothing has made them equal since.
void Engine::CloseWhenIdle() {
  if (mode_ != Mode::kStopping || closing_ || proposal_.outstanding || pool_.used() > 0) return;
  if (!ResyncIdle()) return;
  if (leaving_.count > 0) return;  // not equal to the others
  const uint64_t began_ns = stop_deadline_ns_ - kStopNs;
  const bool grace = reactor_.NowNs() < began_ns + std::min(options_.late_ns, kStopGraceNs);
  for (const wire::ReplicaId id : targets().all()) {
    if (grace && !LinkOf(id)->up()) return;
  }
  closing_ = true;
  if (!equalizer_.unequal().empty()) {
    log_.Log(LogLevel::kWarn, "the replicas stay marked unclean, as they may differ");
    Closed(false);
    return;
  }
  for (const wire::ReplicaId id : targets().all()) {
    const Link& link = *LinkOf(id);
    if (link.up() && !link.control_outstanding()) closes_due_.Add(id);
  }
  closes_clean_ = closes_due_ == targets();
  for (const wire::ReplicaId id : closes_due_.all()) LinkOf(id)->SendClose();
  if (closes_due_.count == 0) Closed(true);
}

// The answer to CLOSE, or the end of the connection without one.
void Engine::CloseOf(Link& link, bool clean) {
  if (mode_ != Mode::kStopping || !closes_due_.Contains(link.replica())) return;
  closes_clean_ &= clean;
  closes_due_.Remove(link.replica());
  if (closes_due_.count == 0) Closed(true);
}

void Engine::Closed(bool in_time) {
  if (mode_ == Mode::kStopped) return;
  const bool clean = in_time && closing_ && closes_clean_;
  SetMode(Mode::kStopped, clean ? "closed clean" : "not closed clean");
  if (shared_ != nullptr) reactor_.Close(&doorbell_close_);
  reactor_.Cancel(&tick_);
  proposal_.outstanding = false;
  GiveUpBuffers();
  StopResync();
  for (const auto& link : links_) {
    if (link->gone()) continue;
    link->Leave("stopped");
    if (link->gone()) MemberGone(*link);
  }
  FailWaiting(ErrorCode::kUnavailable);
  observer_.OnStopped(clean);
}

bool Engine::Ended() const {
  if (mode_ != Mode::kStopped || pool_.used() > 0 || answer_task_.scheduled) return false;
  if (!ResyncIdle()) return false;
  for (const auto& link : links_) {
    if (!link->gone()) return false;
  }
  return !doorbell_.in_flight && !doorbell_close_.in_flight;
}

// --- reporting
// -------------------------------------------------------------------------------------

void Engine::SetMode(Mode mode, const std::string& message) {
  mode_ = mode;
  message_ = message;
  waits_for_ = WaitsFor::kNothing;
  observer_.OnReport(Report());
}

void Engine::SetMessage(const std::string& message, WaitsFor waits_for) {
  if (message == message_ && waits_for == waits_for_) return;
  message_ = message;
  waits_for_ = waits_for;
  if (!message.empty()) log_.Log(LogLevel::kWarn, message);
  observer_.OnReport(Report());
}

std::string Engine::WhoLeft() const {
  const size_t left = links_.size() - complete_.members.count;
  if (left == 0) return "";
  return std::to_string(left) + " of " + std::to_string(links_.size()) + " replicas left";
}

void Engine::GoesOn() {
  if (mode_ == Mode::kServing) message_ = WhoLeft();
  if (mode_ == Mode::kChanging) message_ = "the members change";
  waits_for_ = WaitsFor::kNothing;
  observer_.OnReport(Report());
}

EngineReport Engine::Report() const {
  const bool degraded = complete_.members.count < links_.size();
  WaitsFor waits_for = waits_for_;
  std::string message = message_;
  // Whatever else has happened since: what I/O waits for is what the reader wants to know.
  const bool works = mode_ == Mode::kServing || mode_ == Mode::kChanging;
  if (works && waits_for == WaitsFor::kNothing && out_of_space_ns_ != 0) {
    waits_for = WaitsFor::kSpace;
    message = kOutOfSpaceText;
  }
  const bool waits = waits_for != WaitsFor::kNothing;
  const char* state = "";
  switch (mode_) {
    case Mode::kStarting:
    case Mode::kFencing:
    case Mode::kLearning:
    case Mode::kRecording:
      state = "starting";
      break;
    case Mode::kServing:
      state = waits ? "waiting" : degraded ? "degraded" : "serving";
      break;
    case Mode::kChanging:
      state = waits ? "waiting" : "degraded";
      break;
    case Mode::kStopping:
      state = "stopping";
      break;
    case Mode::kStopped:
      state = "stopped";
      break;
    case Mode::kRefused:
      state = "refused";
      break;
  }
  return {state, message, complete_, waits_for};
}

}  // namespace ankole::engine

#include <algorithm>

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
constexpr uint64_t kStopNs = 3 * kNsPerSecond;
// Of which a member whose connection broke has this much to come back.
constexpr uint64_t kStopGraceNs = 2 * kNsPerSecond;
// A flush may take this long while the replica answers PING (section 4, «late»).
constexpr uint64_t kFlushNs = 10 * kNsPerSecond;

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

Link* Engine::LinkOf(wire::ReplicaId id) {
  for (const auto& link : links_) {
    if (link->replica() == id) return link.get();
  }
  return nullptr;
}

void Engine::Start() {
  start_deadline_ns_ = reactor_.NowNs() + options_.start_wait_ns;
  if (shared_ != nullptr) OnDoorbell();
  SetMode(Mode::kStarting, "asking the replicas");
  ArmTick(true);
  for (const auto& link : links_) link->Start();
}

// --- starting (rule 6)
// -----------------------------------------------------------------------------

// Decides by what was heard so far. Waits for more as long as that can add a member. When all
// members of the newest record hold it, no newer one exists: it would be held by one of them.
void Engine::Evaluate() {
  if (mode_ != Mode::kStarting) return;
  const StartDecision decision = DecideStart(options_.record, heard_);
  const bool in_time = reactor_.NowNs() < start_deadline_ns_;
  if (decision.may_start && (!in_time || decision.complete)) {
    Fence(decision);
    return;
  }
  // What is there answers within a moment; only then is it news what does not.
  const bool patient = reactor_.NowNs() + options_.start_wait_ns < start_deadline_ns_ + kPatienceNs;
  if (!patient && !decision.lacking.empty()) SetMessage("cannot start yet: " + decision.lacking);
}

void Engine::Fence(const StartDecision& decision) {
  decision_ = decision;
  proposal_.record.members = decision.members;
  SetMode(Mode::kFencing, "taking the replicas over");
  for (const wire::ReplicaId id : decision.members.all()) LinkOf(id)->Fence();
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
  for (const wire::ReplicaId id : decision_.members.all()) {
    const Link& link = *LinkOf(id);
    if (link.mode() == LinkMode::kWelcoming) return;
    if (!link.up()) {
      AskAgain("a replica was lost while starting; asking again");
      return;
    }
  }
  const StartDecision now = DecideStart(options_.record, heard_);
  if (!now.may_start || !(now.members == decision_.members) || now.newest != decision_.newest) {
    // Another engine wrote a record between the question and the fence; now it cannot any more.
    AskAgain("the replicas changed while starting; asking again");
    return;
  }
  unclean_reader_ = SIZE_MAX;
  if (now.unclean && now.members.count > 1) {
    unclean_reader_ = LinkOf(now.members.ids[0])->index();
    log_.Log(LogLevel::kWarn, "the replicas were not closed clean: all reads go to replica " +
                                  wire::ReplicaIdText(now.members.ids[0]));
  }
  complete_ = now.newest;
  SetMode(Mode::kRecording, "writing the first record of this attachment");
  for (const auto& link : links_) {
    if (!now.members.Contains(link->replica())) {
      const std::string reason = heard_[link->index()].answered
                                     ? "it holds an older record or may have lost data"
                                     : heard_[link->index()].why_not;
      link->Leave(reason);
      observer_.OnReplica(link->replica(), "left", reason);
    }
  }
  Propose(now.members);
}

// --- changing (rule 2)
// -----------------------------------------------------------------------------

void Engine::Propose(const wire::Members& members) {
  CHECK(members.count > 0);
  const uint64_t generation = std::max(complete_.generation, proposal_.record.generation) + 1;
  proposal_.record = complete_;
  proposal_.record.epoch = options_.epoch;
  proposal_.record.generation = generation;
  proposal_.record.members = members;
  proposal_.written = {};
  proposal_.outstanding = true;
  proposal_.first_question = proposal_.question = 0;
  proposal_.store_refused = false;
  proposal_.since_ns = reactor_.NowNs();
  for (const wire::ReplicaId id : members.all()) WriteRecord(*LinkOf(id));
  ArmTick(true);
}

// Sends the proposal, unless the link is down (then when it is back) or an older one is on its way
// (then when that is answered).
void Engine::WriteRecord(Link& link) {
  if (!link.up() || link.control_outstanding() || proposal_.written.Contains(link.replica()))
    return;
  record_sent_[link.index()] = proposal_.record.generation;
  link.SendRecord({proposal_.record, complete_});
}

void Engine::RecordWritten(Link& link) {
  if (!proposal_.outstanding) return;
  if (record_sent_[link.index()] != proposal_.record.generation) {
    WriteRecord(link);
    return;
  }
  proposal_.written.Add(link.replica());
  // The others are late from the first answer on.
  if (proposal_.written.count == 1) proposal_.since_ns = reactor_.NowNs();
  if (proposal_.written == proposal_.record.members) AskStore();
}

void Engine::AskStore() {
  proposal_.question = ++next_question_;
  if (proposal_.first_question == 0) proposal_.first_question = proposal_.question;
  proposal_.store_refused = false;
  proposal_.since_ns = reactor_.NowNs();
  observer_.OnAskStore(proposal_.question, proposal_.record);
}

void Engine::AnswerStore(uint64_t question, const Status& outcome) {
  // Also the answer to an earlier question about this very record counts: the store may be slow.
  if (!proposal_.outstanding || proposal_.question == 0 || question < proposal_.first_question ||
      question > proposal_.question) {
    return;
  }
  if (outcome.ok()) {
    Complete();
    return;
  }
  if (outcome.code() == ErrorCode::kFenced) {
    Refuse("the store has given the volume to a newer attachment: " + outcome.message());
    return;
  }
  proposal_.store_refused = true;
  proposal_.since_ns = reactor_.NowNs();
  SetMessage("I/O waits for the store to record the members: " + outcome.message());
}

// All members hold the record and so does the store: it counts.
void Engine::Complete() {
  proposal_.outstanding = false;
  complete_ = proposal_.record;
  const bool first = mode_ == Mode::kRecording;
  if (first) {
    for (const wire::ReplicaId id : complete_.members.all()) observer_.OnReplica(id, "member", "");
  }
  log_.Log(LogLevel::kInfo, "members are now [" + Names(complete_.members) + "], generation " +
                                std::to_string(complete_.generation));
  if (mode_ == Mode::kRecording || mode_ == Mode::kChanging) {
    SetMode(Mode::kServing, WhoLeft());
  }
  while (!held_.empty() && !proposal_.outstanding) Acknowledge(held_.PopFront());
  if (first) observer_.OnReady();
  CloseWhenIdle();
}

void Engine::Drop(const wire::Members& leaving, const std::string& reason) {
  wire::Members staying = targets();
  wire::Members gone;
  for (const wire::ReplicaId id : leaving.all()) {
    if (!staying.Contains(id)) continue;
    staying.Remove(id);
    gone.Add(id);
  }
  if (gone.count == 0) return;
  CHECK(staying.count > 0);
  if (mode_ == Mode::kServing) SetMode(Mode::kChanging, "a replica leaves: " + reason);
  if (unclean_reader_ != SIZE_MAX && gone.Contains(links_[unclean_reader_]->replica())) {
    unclean_reader_ = staying.count > 1 ? LinkOf(staying.ids[0])->index() : SIZE_MAX;
  }
  Propose(staying);
  for (const wire::ReplicaId id : gone.all()) {
    Link& link = *LinkOf(id);
    log_.Log(LogLevel::kWarn, "replica " + wire::ReplicaIdText(id) + " leaves: " + reason);
    observer_.OnReplica(id, "left", reason);
    link.Leave(reason);
    if (link.gone()) MemberGone(link);
  }
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
  SetMode(Mode::kRefused, reason);
  proposal_.outstanding = false;
  reactor_.Cancel(&tick_);
  GiveUpBuffers();
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
      break;
    case Mode::kRecording:
    case Mode::kServing:
    case Mode::kChanging:
      if (!late) {
        CheckLinks(now_ns);
        CheckOperations(now_ns);
        CheckProposal(now_ns);
      }
      RetryFull(now_ns);
      break;
    case Mode::kStopping:
      CheckProposal(now_ns);
      CloseWhenIdle();
      if (now_ns >= stop_deadline_ns_) Closed(false);
      break;
    case Mode::kStopped:
    case Mode::kRefused:
      return;
  }
  bool busy = active_ || !in_flight_.empty() || mode_ != Mode::kServing || out_of_space_ns_ != 0;
  for (const auto& link : links_) busy |= IsTarget(link->index()) && !link->up();
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

// Broken connections, and silent ones.
void Engine::CheckLinks(uint64_t now_ns) {
  wire::Members down;
  std::string why;
  for (const auto& link : links_) {
    if (!IsTarget(link->index())) continue;
    if (!link->up()) {
      down.Add(link->replica());
      why = link->why_down();
      continue;
    }
    const uint64_t silent_ns = Since(link->heard_ns(), now_ns);
    const bool idle = link->outstanding == 0 && !link->control_outstanding();
    if (silent_ns >= (idle ? kTickIdleNs - kTickFastNs : options_.late_ns / 2)) link->Ping();
    if (link->ping_sent_ns() != 0 && Since(link->ping_sent_ns(), now_ns) >= options_.late_ns) {
      link->Break({ErrorCode::kTimedOut, "it does not answer"});
    }
  }
  if (down.count == targets().count) {
    reachable_since_ns_ = 0;
    if (mode_ == Mode::kServing || mode_ == Mode::kChanging) {
      SetMessage("I/O waits: no member can be reached (" + why + ")");
    }
    return;
  }
  // When all were away together, whoever is back first gives the others their time.
  if (reachable_since_ns_ == 0) reachable_since_ns_ = now_ns;
  if (down.count == 0) return;
  const bool minority = 2 * down.count < targets().count;
  uint64_t limit_ns = minority ? options_.late_ns : options_.late_ns * 5 / 2;
  // Nobody waits for I/O yet, and disk hosts may be starting as well.
  if (mode_ == Mode::kRecording) limit_ns = options_.start_wait_ns;
  wire::Members leaving;
  for (const wire::ReplicaId id : down.all()) {
    const Link& link = *LinkOf(id);
    // 0: it broke a moment ago.
    if (link.down_since_ns() == 0) continue;
    if (Since(std::max(link.down_since_ns(), reachable_since_ns_), now_ns) < limit_ns) continue;
    leaving.Add(id);
    why = link.why_down();
  }
  if (leaving.count > 0) Drop(leaving, "its connection was lost: " + why);
}

// Late members (section 4, «late»), and reads that had better be asked elsewhere.
void Engine::CheckOperations(uint64_t now_ns) {
  wire::Members late;
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
    const bool minority = 2 * operation->waiting < targets().count;
    uint64_t limit_ns = minority ? options_.late_ns : options_.late_ns * 5 / 2;
    if (operation->kind == BlockOperation::kFlush) limit_ns = std::max(limit_ns, kFlushNs);
    if (waited_ns < limit_ns) continue;
    for (size_t i = 0; i < links_.size(); ++i) {
      // A broken connection has its own time.
      if (operation->parts[i].state == MemberPart::State::kWaiting && links_[i]->up()) {
        late.Add(links_[i]->replica());
      }
    }
  }
  wire::Members staying = targets();
  for (const wire::ReplicaId id : late.all()) staying.Remove(id);
  if (staying.count == 0) late.Remove(late.ids[0]);
  if (late.count > 0) Drop(late, "it answered too late");
}

void Engine::CheckProposal(uint64_t now_ns) {
  if (!proposal_.outstanding) return;
  const uint64_t waited_ns = Since(proposal_.since_ns, now_ns);
  if (proposal_.question != 0) {
    if (waited_ns >= (proposal_.store_refused ? kStoreRetryNs : kStoreAnswerNs)) {
      if (!proposal_.store_refused) SetMessage("I/O waits for the store to record the members");
      AskStore();
    }
    return;
  }
  for (const wire::ReplicaId id : targets().all()) {
    Link& link = *LinkOf(id);
    if (record_sent_[link.index()] != proposal_.record.generation) WriteRecord(link);
  }
  // Who does not write the record in time leaves as well, unless nobody is left.
  const uint64_t limit_ns =
      mode_ == Mode::kRecording ? options_.start_wait_ns : options_.late_ns * 5 / 2;
  if (waited_ns < limit_ns) return;
  if (proposal_.written.count == 0) {
    SetMessage("I/O waits: no member has written the record yet");
    return;
  }
  wire::Members late = targets();
  for (const wire::ReplicaId id : proposal_.written.all()) late.Remove(id);
  if (late.count > 0) Drop(late, "it did not write the record in time");
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
  const uint64_t began_ns = stop_deadline_ns_ - kStopNs;
  const bool grace = reactor_.NowNs() < began_ns + std::min(options_.late_ns, kStopGraceNs);
  for (const wire::ReplicaId id : targets().all()) {
    if (grace && !LinkOf(id)->up()) return;
  }
  closing_ = true;
  if (unclean_reader_ != SIZE_MAX) {
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
  observer_.OnReport(Report());
}

void Engine::SetMessage(const std::string& message) {
  if (message == message_) return;
  message_ = message;
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
  observer_.OnReport(Report());
}

EngineReport Engine::Report() const {
  const bool degraded = complete_.members.count < links_.size();
  const bool waits = message_.starts_with("I/O waits") || out_of_space_ns_ != 0;
  const char* state = "";
  switch (mode_) {
    case Mode::kStarting:
    case Mode::kFencing:
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
  return {state, message_, complete_};
}

}  // namespace ankole::engine

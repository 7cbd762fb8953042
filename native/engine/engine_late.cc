#include <algorithm>
#include <utility>

#include "engine/engine.h"

// What time brings about: who is late leaves (section 4, «late»).
namespace ankole::engine {
namespace {

constexpr uint64_t kTickFastNs = 250 * kNsPerMs;
constexpr uint64_t kTickMinNs = 5 * kNsPerMs;
// An idle volume wakes up this often: keep-alive, and memory given back.
constexpr uint64_t kTickIdleNs = 5 * kNsPerSecond;
// A flush may take this long while the replica answers PING (section 4, «late»).
constexpr uint64_t kFlushNs = 10 * kNsPerSecond;

}  // namespace

void Engine::ArmTick(bool fast) {
  if (mode_ == Mode::kRefused || mode_ == Mode::kStopped) return;
  if (fast && tick_fast_ && tick_.armed()) return;
  tick_fast_ = fast;
  const uint64_t fast_ns = std::clamp(late_in_ns_, kTickMinNs, kTickFastNs);
  reactor_.Arm(&tick_, reactor_.NowNs() + (fast ? fast_ns : kTickIdleNs));
}

// Where this process was held up itself, the answers may have come meanwhile. They are read before
// anybody is called late: before the next tick, and where that was held up as well, in this turn of
// the loop, as all following ones may be.
void Engine::Tick() {
  const uint64_t now_ns = reactor_.NowNs();
  const bool late = ElapsedNs(tick_.deadline_ns, now_ns) >= kTickFastNs;
  if (std::exchange(tick_was_late_, late) && late) {
    reactor_.Defer(&tick_task_);
  } else {
    LookAround(now_ns, late);
  }
}

void Engine::TickHeldUp() {
  if (mode_ != Mode::kStopped && mode_ != Mode::kRefused) LookAround(reactor_.NowNs(), false);
}

void Engine::LookAround(uint64_t now_ns, bool forgive) {
  forgives_ = forgive;
  late_in_ns_ = kTickFastNs;
  // Only the last member to answer rings: with one that is late the others' answers lie there
  // unheard.
  if (shared_ != nullptr) DrainShared();
  switch (mode_) {
    case Mode::kStarting:
      Evaluate();
      snapshotter_.Look(now_ns);
      break;
    case Mode::kFencing:
    case Mode::kLearning:
      for (const auto& link : links_) {
        if (!forgives_ && link->up()) CheckSilence(*link, now_ns);
      }
      snapshotter_.Look(now_ns);
      break;
    case Mode::kRecording:
    case Mode::kServing:
    case Mode::kChanging:
      CheckMembers(now_ns);
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
          scrubber_.running() || expanding() || snapshotter_.busy() || changes_.busy() ||
          !readers_.empty();
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
  if (forgives_) {
    AskAgainForRecord(now_ns);
    LetLeave({});
    return;
  }
  Late late;
  CheckLinks(now_ns, &late);
  CheckOperations(now_ns, &late);
  CheckProposal(now_ns, &late);
  AskAgainForRecord(now_ns);
  late_in_ns_ = late.next_in_ns;
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
    if (staying.count == 0) members->Remove(LastHeard(Staying()));
  }
  for (const wire::Members* members : {&late.first, &late.silent}) {
    wire::Members staying = Staying();
    for (const wire::ReplicaId id : members->all()) staying.Remove(id);
    if (!ballot_.Carries(staying)) continue;
    LetLeave(*members);
    return;
  }
  // The store is asked beforehand, so that those who must wait for it leave when their time is up.
  if (late.second.count < late.first.count) ProbeStore(reactor_.NowNs());
  LetLeave(late.second);
}

// Of these, the one that most likely still works.
wire::ReplicaId Engine::LastHeard(const wire::Members& members) const {
  CHECK(members.count > 0);
  const Link* last = LinkOf(members.ids[0]);
  for (const wire::ReplicaId id : members.all()) {
    const Link* link = LinkOf(id);
    const bool better = (link->up() && !last->up()) ||
                        (link->up() == last->up() && link->heard_ns() > last->heard_ns());
    if (better) last = link;
  }
  return last->replica();
}

// Whether one of these has answered a PING sent since somebody must leave. Where none has, all may
// have lost power together and unnoticed, and one that would leave for being slow, or for its disk,
// may be the only one that has what was acknowledged. They are asked.
bool Engine::AnyAlive(const wire::Members& members) {
  const uint64_t now_ns = reactor_.NowNs();
  if (alive_since_ns_ == 0 || ElapsedNs(alive_since_ns_, now_ns) >= options_.late_ns / 2) {
    alive_since_ns_ = now_ns;
  }
  for (const wire::ReplicaId id : members.all()) {
    const Link& link = *LinkOf(id);
    if (link.up() && link.proved_ns() >= alive_since_ns_) return true;
  }
  for (const wire::ReplicaId id : members.all()) {
    if (LinkOf(id)->up()) LinkOf(id)->Ping();
  }
  alive_wanted_ = true;  // OnLinkAlive looks again
  return false;
}

// It has not answered a PING for half of the time that makes a member late.
bool Engine::IsSilent(const Link& link, uint64_t now_ns) const {
  return !link.up() || (link.ping_sent_ns() != 0 &&
                        ElapsedNs(link.ping_sent_ns(), now_ns) >= options_.late_ns / 2);
}

// Called for each operation that waits, at each tick: `reason` is copied only where it is needed.
void Engine::NoteLate(Late* late, const Link& link, uint64_t waited_ns, uint64_t limit_ns,
                      Fault fault, std::string_view reason) {
  const uint64_t second_ns = std::max(limit_ns, options_.late_ns * 5 / 2);
  const bool long_ago = waited_ns >= second_ns;
  if (!long_ago) {
    const uint64_t next_ns = waited_ns < limit_ns ? limit_ns : second_ns;
    late->next_in_ns = std::min(late->next_in_ns, next_ns - waited_ns);
  }
  if (waited_ns < limit_ns) return;
  if (!leaving_.Contains(link.replica())) {
    departures_[link.index()] = {fault, std::string(reason)};
  }
  late->first.Add(link.replica());
  if (long_ago) late->second.Add(link.replica());
  if (IsSilent(link, reactor_.NowNs())) late->silent.Add(link.replica());
}

// The machine at the other end may have lost power: nobody says so.
void Engine::CheckSilence(Link& link, uint64_t now_ns) {
  const uint64_t silent_ns = ElapsedNs(link.heard_ns(), now_ns);
  const bool idle = link.outstanding == 0 && !link.control_outstanding();
  if (silent_ns >= (idle ? kTickIdleNs - kTickFastNs : options_.late_ns / 4)) link.Ping();
  if (link.ping_sent_ns() != 0 && ElapsedNs(link.ping_sent_ns(), now_ns) >= options_.late_ns) {
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
    const uint64_t down_ns = ElapsedNs(std::max(link.down_since_ns(), reachable_since_ns_), now_ns);
    NoteLate(late, link, down_ns, limit_ns,
             link.was_silent() ? Fault::kNoAnswer : Fault::kConnectionLost,
             link.was_silent() ? "it does not answer" : "its connection was lost: " + why);
  }
}

// Whether the time runs in which it must answer. A broken connection has its own time, but for one
// that was broken for not answering.
bool Engine::IsWaitedFor(const Link& link) const {
  return link.up() || (link.was_silent() && reachable_since_ns_ != 0);
}

// Late members (section 4, «late»), and reads that had better be asked elsewhere.
void Engine::CheckOperations(uint64_t now_ns, Late* late) {
  for (Operation* operation = in_flight_.front(); operation != nullptr;
       operation = in_flight_.Next(operation)) {
    if (operation->waiting == 0 || operation->queue_node.linked()) continue;
    if (!operation->fans_out()) {
      if (ElapsedNs(operation->last_answer_ns, now_ns) < options_.late_ns) continue;
      bool receiving = false;
      for (const MemberPart& part : operation->parts) receiving |= part.receiving;
      operation->last_answer_ns = now_ns;
      if (!receiving) Route(operation);
      continue;
    }
    if (operation->answered + operation->failed == 0) continue;
    const uint64_t since_ns = std::max(operation->last_answer_ns, reachable_since_ns_);
    const uint64_t waited_ns = ElapsedNs(since_ns, now_ns);
    for (const auto& link : links_) {
      if (operation->parts[link->index()].state != MemberPart::State::kWaiting) continue;
      if (!IsWaitedFor(*link)) continue;
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
  const uint64_t waited_ns = ElapsedNs(proposal_.since_ns, now_ns);
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
    if (!IsWaitedFor(link)) continue;
    NoteLate(late, link, waited_ns, limit_ns, Fault::kNoAnswer,
             "it did not write the record in time");
  }
}

}  // namespace ankole::engine

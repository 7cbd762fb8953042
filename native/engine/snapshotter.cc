#include "engine/snapshotter.h"

#include <algorithm>
#include <utility>

#include "base/json.h"
#include "base/mutant.h"

namespace ankole::engine {
namespace {

// For so long it waits until one can be taken.
constexpr uint64_t kWaitNs = 5 * kNsPerSecond;
// All that is under way must end in this time; else I/O goes on, and it is tried once more.
constexpr uint64_t kLockNs = kNsPerSecond;
constexpr int kRoundsMax = 3;
// What is on its way to a replica that is being filled may take this long to end before I/O is held
// up; then that one is let go.
constexpr uint64_t kStillNs = 500 * kNsPerMs;

std::string Label(const SnapshotRequest& request) {
  return request.what == SnapshotRequest::What::kRevert ? "revert to snapshot " + request.base
                                                        : "snapshot " + request.name;
}

std::string ReplicaName(wire::ReplicaId id) { return "replica " + wire::ReplicaIdText(id); }

const char* RoundText(wire::Opcode opcode) {
  switch (opcode) {
    case wire::Opcode::kPrepare:
      return " cannot prepare it: ";
    case wire::Opcode::kSeal:
      return " cannot seal it: ";
    default:
      return " cannot delete it: ";
  }
}

}  // namespace

Snapshotter::Snapshotter(ResyncHost& host, SnapshotHost& engine)
    : host_(host), engine_(engine), reader_(host) {
  answer_task_.owner = quiet_task_.owner = this;
  answer_task_.done = [](io::Operation* operation) {
    auto* self = static_cast<Snapshotter*>(operation->owner);
    while (SnapshotRequest* request = self->answered_.PopFront()) request->done(request);
  };
  quiet_task_.done = [](io::Operation* operation) {
    auto* self = static_cast<Snapshotter*>(operation->owner);
    self->TryLock();
    self->TryPropose();
  };
  for (Errand& errand : errands_) {
    errand.owner = this;
    errand.done = [](Errand* done) { static_cast<Snapshotter*>(done->owner)->OnErrand(done); };
  }
  flush_.operation = BlockOperation::kFlush;
  flush_.owner = this;
  flush_.done = [](BlockRequest* request) {
    static_cast<Snapshotter*>(static_cast<OwnRequest*>(request)->owner)->OnFlushed();
  };
  // All of the volume, and the target state.
  lock_.begin_block = 0;
  lock_.end_block = UINT64_MAX;
  lock_.exclusive = true;
  lock_.owner = this;
  lock_.granted = [](LockRequest* granted) {
    auto* self = static_cast<Snapshotter*>(granted->owner);
    self->lock_state_ = LockState::kHeld;
    self->phase_ = Phase::kQuieting;
    self->OnQuieter();
  };
  reader_.owner = this;
}

Snapshotter::~Snapshotter() { CHECK(idle()); }

bool Snapshotter::idle() const {
  return phase_ == Phase::kIdle && lock_state_ == LockState::kFree && !flushing_ && ErrandsIdle() &&
         !reader_.busy() && answered_.empty() && queue_.empty() && !answer_task_.scheduled &&
         !quiet_task_.scheduled;
}

// --- requests
// --------------------------------------------------------------------------------------------

Status Snapshotter::Valid(const SnapshotRequest& request) const {
  if (request.what == SnapshotRequest::What::kList) return Status::Ok();
  const bool reverts = request.what == SnapshotRequest::What::kRevert;
  const std::string& name =
      reverts && wire::IsLayerName(request.name) ? request.base : request.name;
  if (!wire::IsLayerName(name)) {
    return {ErrorCode::kInvalidArgument,
            "'" + name.substr(0, wire::kLayerNameBytes) +
                "' is no name of a snapshot: use 1 to 63 letters, digits, dots, hyphens and "
                "underscores, no dot first and no two in a row"};
  }
  if (request.what != SnapshotRequest::What::kTake) return Status::Ok();
  if (request.labels.size() > wire::kLabelsBytesMax) {
    return {ErrorCode::kInvalidArgument, "snapshot " + request.name + ": its labels have " +
                                             std::to_string(request.labels.size()) +
                                             " bytes, more than " +
                                             std::to_string(wire::kLabelsBytesMax)};
  }
  if (!request.labels.empty()) {
    const Result<Json> labels = Json::Parse(request.labels);
    if (!labels.ok() || !labels.value().is_object()) {
      return {ErrorCode::kInvalidArgument,
              "snapshot " + request.name + ": its labels are no JSON object"};
    }
  }
  return Status::Ok();
}

void Snapshotter::Submit(SnapshotRequest* request, SnapshotRequest::What what) {
  request->what = what;
  request->submitted_ns = host_.reactor().NowNs();
  request->rounds = 0;
  request->pause_ns = 0;
  request->members = 0;
  request->layers.clear();
  const Status valid = stopped_.ok() ? Valid(*request) : stopped_;
  if (!valid.ok()) {
    Answer(request, valid);
    return;
  }
  queue_.PushBack(request);
  Next();
}

void Snapshotter::Answer(SnapshotRequest* request, const Status& status) {
  if (request->what == SnapshotRequest::What::kTake) {
    ++(status.ok() ? taken_ : failed_);
    if (!status.ok()) {
      host_.log().Log(LogLevel::kWarn, "no snapshot was taken: " + status.message());
    }
  }
  request->status = status;
  answered_.PushBack(request);
  host_.reactor().Defer(&answer_task_);
}

// The one that is served has its outcome.
void Snapshotter::Finish(const Status& status) {
  const Phase phase = std::exchange(phase_, Phase::kIdle);
  flush_due_ = false;
  SnapshotRequest* request = std::exchange(request_, nullptr);
  const bool takes = request != nullptr && request->what == SnapshotRequest::What::kTake;
  if (takes) EndPause(*request, status.ok(), phase);
  if (request != nullptr) Answer(request, status);
  Next();
}

bool Snapshotter::Expired(const SnapshotRequest& request) const {
  return host_.reactor().NowNs() - request.submitted_ns >= kWaitNs;
}

void Snapshotter::Next() {
  while (phase_ == Phase::kIdle && stopped_.ok() && ErrandsIdle() && !reader_.busy() &&
         !flushing_) {
    SnapshotRequest* first = queue_.front();
    const bool takes = first != nullptr && (first->what == SnapshotRequest::What::kTake ||
                                            first->what == SnapshotRequest::What::kRevert);
    if ((due_ || (takes && !matched_)) && match_again_ns_ == 0 &&
        engine_.WhyUnsettled() == nullptr) {
      Compare();
      continue;
    }
    if (first == nullptr || !Begin(first)) return;
  }
}

// False: it has to wait still.
bool Snapshotter::Begin(SnapshotRequest* request) {
  Status wrong;
  const char* why = nullptr;
  bool soon = true;
  if (request->what == SnapshotRequest::What::kDelete) {
    why = engine_.WhyUnsettled();
    if (why == nullptr) why = engine_.ReleaseView(request->name, &soon);
  } else if (request->what != SnapshotRequest::What::kList) {
    wrong = engine_.WhyNeverASnapshot().Within(Label(*request));
    const std::string& newest = host_.complete().newest_snapshot;
    if (request->what == SnapshotRequest::What::kRevert && request->name == newest) {
      queue_.Remove(request);
      request->members = host_.members().count;
      Answer(request, Status::Ok());
      return true;
    }
    if (wrong.ok() && request->after.has_value() && *request->after != newest) {
      wrong = {ErrorCode::kAlreadyExists, Label(*request) + ": the volume was reverted, or a " +
                                              "snapshot of it was taken, since that was asked for"};
    }
    // A record that names the same one as before would switch nothing.
    if (wrong.ok() && request->name == newest) {
      wrong = {ErrorCode::kAlreadyExists, Label(*request) + ": there is, or was, one of that name"};
    }
    why = engine_.WhyNoSnapshot();
    if (why == nullptr && !matched_) why = "members do not have the same snapshots yet";
  }
  if (wrong.ok() && why != nullptr) {
    if (soon && !Expired(*request)) return false;
    wrong = {ErrorCode::kBusy, Label(*request) + ": " + why};
  }
  queue_.Remove(request);
  if (!wrong.ok()) {
    Answer(request, wrong);
    return true;
  }
  request_ = request;
  request->submitted_ns = host_.reactor().NowNs();
  switch (request->what) {
    case SnapshotRequest::What::kTake:
    case SnapshotRequest::What::kRevert:
      Prepare();
      break;
    case SnapshotRequest::What::kDelete:
      phase_ = Phase::kDeleting;
      BeginRound(wire::Opcode::kDelete, request->name, host_.members());
      break;
    case SnapshotRequest::What::kList:
      phase_ = Phase::kListing;
      ListAtOne();
      break;
  }
  return true;
}

// --- what all members must do
// --------------------------------------------------------------------------------------------

void Snapshotter::BeginRound(wire::Opcode opcode, const std::string& name,
                             const wire::Members& of) {
  std::vector<std::byte> payload(wire::kLayerNameBytes);
  wire::EncodeLayerName(name, payload.data());
  BeginRound(opcode, std::move(payload), of);
}

void Snapshotter::BeginRound(wire::Opcode opcode, std::vector<std::byte> payload,
                             const wire::Members& of) {
  round_ = {true, opcode, std::move(payload), of, {}, ErrorCode::kOk, 0};
  if (opcode == wire::Opcode::kSeal && Mutant("seal-not-everywhere")) round_.of.Remove(of.ids[0]);
  PumpRound();
}

bool Snapshotter::ErrandsIdle() const {
  return std::none_of(errands_.begin(), errands_.end(),
                      [](const Errand& errand) { return errand.in_flight(); });
}

size_t Snapshotter::StayingCount() const {
  size_t count = 0;
  for (const auto& link : host_.links()) count += host_.IsStaying(link->index()) ? 1 : 0;
  return count;
}

// Sends it to whoever can be reached, has not answered, and is to stay. One that cannot be reached
// comes back, or leaves.
void Snapshotter::PumpRound() {
  if (!round_.active) return;
  for (const auto& link : host_.links()) {
    if (round_.failure != ErrorCode::kOk) break;
    if (!host_.IsStaying(link->index()) || !round_.of.Contains(link->replica()) ||
        round_.answered.Contains(link->replica()) || !link->up()) {
      continue;
    }
    SendTo(*link);
  }
  if (RoundEnded()) RoundDone();
}

void Snapshotter::SendTo(Link& link) {
  Errand& errand = errands_[link.index()];
  if (errand.in_flight()) return;
  errand.link = &link;
  errand.opcode = round_.opcode;
  std::vector<std::byte>& payload = payloads_[link.index()];
  payload = round_.payload;
  errand.payload = payload.data();
  errand.payload_bytes = static_cast<uint32_t>(payload.size());
  host_.SendErrand(&errand);
}

// Who is about to leave is not waited for.
bool Snapshotter::RoundEnded() const {
  for (const auto& link : host_.links()) {
    if (!host_.IsStaying(link->index()) || !round_.of.Contains(link->replica())) continue;
    if (errands_[link->index()].in_flight()) return false;
    if (round_.failure == ErrorCode::kOk && !round_.answered.Contains(link->replica())) {
      return false;
    }
  }
  return true;
}

void Snapshotter::OnErrand(Errand* errand) {
  Link& link = *errand->link;
  const ErrorCode status = errand->status;
  switch (phase_) {
    case Phase::kPreparing:
    case Phase::kSealing:
    case Phase::kRefusing:
    case Phase::kDeleting:
    case Phase::kMatching:
      break;
    case Phase::kSwitching:
      // The record waits for it.
      if (status == ErrorCode::kOk) {
        prepared_.Add(link.replica());
        engine_.WriteProposal(link);
      } else if (status != ErrorCode::kConnectionLost) {
        engine_.ProposalFailed(link, {status, std::string("snapshot ") + name_ +
                                                  " cannot be prepared: " + ErrorCodeName(status)});
      }
      return;
    default:
      Next();  // nobody waits for it any more
      return;
  }
  if (status == ErrorCode::kOk) {
    round_.answered.Add(link.replica());
    if (phase_ == Phase::kPreparing) prepared_.Add(link.replica());
  } else if (status != ErrorCode::kConnectionLost && host_.IsStaying(link.index())) {
    // Where all have flushed it, one that cannot seal it has lost it.
    if (round_.opcode == wire::Opcode::kSeal && StayingCount() > 1) {
      host_.MemberFailed(
          link, {status, std::string("a snapshot cannot be sealed: ") + ErrorCodeName(status)});
    } else if (round_.failure == ErrorCode::kOk) {
      round_.failure = status;
      round_.failed = link.replica();
    }
  }
  // MemberFailed may have gone on with this already.
  PumpRound();
  Next();
}

Status Snapshotter::RoundOutcome() const {
  if (round_.failure == ErrorCode::kOk) return Status::Ok();
  return {round_.failure,
          ReplicaName(round_.failed) + RoundText(round_.opcode) +
              (round_.opcode == wire::Opcode::kDelete && round_.failure == ErrorCode::kBusy
                   ? "it is being read"
                   : ErrorCodeName(round_.failure))};
}

void Snapshotter::RoundDone() {
  round_.active = false;
  const Status outcome = RoundOutcome();
  switch (phase_) {
    case Phase::kPreparing:
      if (outcome.ok()) {
        // What it would get after the switch is none of this snapshot. Its flush may take long,
        // too.
        if (reverts_) {
          engine_.LetJoinerGo();
        } else {
          engine_.PauseJoiner();
        }
        phase_ = Phase::kFlushing;
        Flush();
      } else {
        // Something lies under the head that no engine has sealed or deleted.
        if (outcome.code() == ErrorCode::kBusy) OnNewMember(true);
        Finish(outcome.Within(Label(*request_)));
      }
      return;
    case Phase::kSealing:
      if (outcome.ok()) {
        Sealed();
      } else {
        Abandon(outcome.Within("snapshot " + name_));
      }
      return;
    case Phase::kRefusing:
      Abandon(refused_);
      return;
    case Phase::kDeleting:
      if (outcome.ok() && !Mutant("deleted-but-at-joiner")) engine_.OnDeleted(request_->name);
      Deleted();
      return;
    case Phase::kMatching:
      if (outcome.ok()) {
        if (round_.opcode == wire::Opcode::kDelete) engine_.OnDeleted(steps_.back().name);
        steps_.pop_back();
        Match();
      } else {
        EndMatching(outcome.Within("snapshot " + steps_.back().name));
      }
      return;
    default:
      return;
  }
}

// --- taking one
// --------------------------------------------------------------------------------------------

// Whoever asked for a revert does not want it any more.
bool Snapshotter::Refused() {
  const std::string why_not =
      request_->why_not != nullptr ? request_->why_not(request_) : std::string();
  if (why_not.empty()) return false;
  Unlock();
  round_.active = false;
  Finish({ErrorCode::kBusy, Label(*request_) + ": " + why_not});
  return true;
}

void Snapshotter::Prepare() {
  if (Refused()) return;
  ++request_->rounds;
  name_ = request_->name;
  reverts_ = request_->what == SnapshotRequest::What::kRevert;
  prepared_ = switched_ = {};
  wire::PrepareRequest prepare;
  prepare.name = name_;
  if (reverts_) prepare.base = request_->base;
  prepare.labels = request_->labels;
  prepare.user_created = request_->user_created;
  created_seconds_ = request_->created_seconds != 0 ? request_->created_seconds
                                                    : host_.reactor().WallClockSeconds();
  prepare.created_seconds = created_seconds_;
  std::vector<std::byte> payload(wire::kPrepareBytesMax);
  payload.resize(wire::EncodePrepare(prepare, payload.data()));
  phase_ = Phase::kPreparing;
  BeginRound(wire::Opcode::kPrepare, std::move(payload), host_.members());
}

void Snapshotter::Flush() {
  flush_due_ = false;
  flushing_ = true;
  if (host_.SubmitOwn(&flush_)) return;
  flushing_ = false;
  flush_due_ = true;  // again by Look
}

void Snapshotter::OnFlushed() {
  flushing_ = false;
  Status outcome;
  if (flush_.status != ErrorCode::kOk) {
    outcome = {flush_.status,
               std::string("members cannot be flushed: ") + ErrorCodeName(flush_.status)};
  }
  switch (phase_) {
    case Phase::kFlushing:
      if (outcome.ok()) {
        phase_ = Phase::kStilling;
        still_ns_ = host_.reactor().NowNs() + kStillNs;
        TryLock();
      } else {
        Finish(outcome.Within(Label(*request_)));
      }
      return;
    case Phase::kSettling:
      if (outcome.ok()) {
        phase_ = Phase::kSealing;
        BeginRound(wire::Opcode::kSeal, name_, host_.members());
      } else {
        Abandon(outcome.Within("snapshot " + name_));
      }
      return;
    case Phase::kMatching:
      flush_first_ = false;
      if (outcome.ok()) {
        Match();
      } else {
        EndMatching(outcome);
      }
      return;
    default:
      Next();
  }
}

void Snapshotter::TryLock() {
  if (phase_ != Phase::kStilling) return;
  CheckStill();
  if (phase_ != Phase::kStilling) return;
  if (!engine_.JoinerIsStill()) {
    if (host_.reactor().NowNs() < still_ns_) return;
    engine_.LetJoinerGo();
  }
  Lock();
}

// The snapshot was taken, or was not.
void Snapshotter::EndPause(const SnapshotRequest& request, bool taken, Phase phase) {
  if (taken) {
    wire::LayerEntry snapshot;
    snapshot.name = request.name;
    snapshot.user_created = request.user_created;
    snapshot.created_seconds = created_seconds_;
    snapshot.sealed = true;
    engine_.JoinerGoesOn(&snapshot);
  } else if (phase < Phase::kSwitching) {
    engine_.JoinerGoesOn(nullptr);
  } else {
    engine_.LetJoinerGo();  // it is told what members have once they have agreed on that
  }
}

// From here on I/O is held up.
void Snapshotter::Lock() {
  phase_ = Phase::kLocking;
  CheckStill();
  if (phase_ != Phase::kLocking) return;
  locked_ns_ = host_.reactor().NowNs();
  if (Mutant("snapshot-without-lock")) {
    phase_ = Phase::kQuieting;
    return TryPropose();
  }
  lock_state_ = LockState::kWaited;
  if (host_.locks().Acquire(&lock_)) lock_.granted(&lock_);
}

void Snapshotter::TryPropose() {
  if (phase_ != Phase::kQuieting) return;
  CheckStill();
  const bool quiet = engine_.Quiet() || Mutant("snapshot-without-lock");
  if (phase_ != Phase::kQuieting || !quiet) return;
  for (const wire::ReplicaId id : host_.members().all()) {
    if (prepared_.Contains(id)) continue;
    Again(ReplicaName(id) + " was away meanwhile");
    return;
  }
  if (Refused()) return;
  phase_ = Phase::kSwitching;
  generation_ = engine_.ProposeSnapshot(name_);
}

// Until the record is proposed nothing has happened.
void Snapshotter::CheckStill() {
  if (phase_ < Phase::kPreparing || phase_ > Phase::kQuieting) return;
  const char* why = engine_.WhyNoSnapshot();
  if (why != nullptr) {
    Again(why);
  } else if (lock_state_ != LockState::kFree && host_.reactor().NowNs() - locked_ns_ >= kLockNs) {
    Again("requests that are under way take too long");
  }
}

// Once more from the beginning, as soon as it can be: I/O goes on meanwhile.
void Snapshotter::Again(const std::string& why) {
  Unlock();
  SnapshotRequest* request = std::exchange(request_, nullptr);
  const Phase phase = std::exchange(phase_, Phase::kIdle);
  flush_due_ = round_.active = false;
  EndPause(*request, false, phase);
  if (request->rounds >= kRoundsMax) {
    Answer(request, {ErrorCode::kBusy, Label(*request) + ": " + why});
  } else {
    request->submitted_ns = host_.reactor().NowNs();
    queue_.PushFront(request);
  }
  Next();
}

// The phase is one in which flushes are not held.
void Snapshotter::Unlock() {
  if (lock_state_ == LockState::kFree) return;
  const uint64_t pause_ns = host_.reactor().NowNs() - locked_ns_;
  pauses_.Add(pause_ns);
  if (request_ != nullptr) request_->pause_ns += pause_ns;
  const bool held = lock_state_ == LockState::kHeld;
  lock_state_ = LockState::kFree;
  const Phase phase = std::exchange(phase_, Phase::kSettling);
  if (held) {
    host_.locks().Release(&lock_);
  } else {
    host_.locks().Cancel(&lock_);
  }
  engine_.FlushesGoOn();
  phase_ = phase;
}

void Snapshotter::OnRecordWritten(const Link& link, uint64_t generation) {
  if (phase_ != Phase::kSwitching || generation < generation_) return;
  switched_.Add(link.replica());
  CheckSwitched();
}

bool Snapshotter::PreparesFirst(Link& link) {
  if (phase_ != Phase::kSwitching || prepared_.Contains(link.replica())) return false;
  // It was away since it prepared it, and forgot if its process ended; unless it has switched.
  if (host_.StateOf(link).records.current.newest_snapshot == name_) return false;
  SendTo(link);
  return true;
}

// Rule 8: a write must not reach a head that is not switched yet.
void Snapshotter::CheckSwitched() {
  const wire::Members& members = host_.members();
  for (const wire::ReplicaId id : members.all()) {
    if (!switched_.Contains(id)) return;
  }
  Unlock();
  if (!stopped_.ok()) {
    phase_ = Phase::kIdle;
    return;
  }
  if (reverts_) {
    // What the head stands on was sealed long ago, and it is empty.
    phase_ = Phase::kSealing;
    return Sealed();
  }
  phase_ = Phase::kSettling;
  if (Mutant("seal-without-flush")) {
    phase_ = Phase::kSealing;
    return BeginRound(wire::Opcode::kSeal, name_, host_.members());
  }
  Flush();
}

// All members that there are have sealed it. It is answered as all else is: not while a record is
// proposed (rule 2), and not where a member lost it meanwhile.
void Snapshotter::Sealed() {
  if (!host_.Settled()) return;  // again by OnMembers
  const Status lost = engine_.WhyNeverASnapshot();
  if (!lost.ok()) {
    // All have sealed it: left at that it would count.
    refused_ = lost.Within("snapshot " + name_);
    phase_ = Phase::kRefusing;
    BeginRound(wire::Opcode::kDelete, name_, host_.members());
    return;
  }
  request_->members = host_.members().count;
  host_.log().Log(LogLevel::kInfo,
                  (reverts_ ? "the volume was reverted to snapshot " + request_->base
                            : "snapshot " + name_ + " was taken") +
                      ", generation " + std::to_string(generation_) + ": I/O was held up for " +
                      std::to_string(request_->pause_ns / 1000) + " us");
  Finish(Status::Ok());
}

// It exists, and is none: nobody was told of it.
void Snapshotter::Abandon(const Status& why) {
  OnNewMember(true);
  Finish(why);
}

// --- news
// --------------------------------------------------------------------------------------------

void Snapshotter::OnMembers() {
  switch (phase_) {
    case Phase::kPreparing:
    case Phase::kFlushing:
    case Phase::kStilling:
    case Phase::kLocking:
    case Phase::kQuieting:
      CheckStill();
      TryLock();
      if (phase_ == Phase::kPreparing) PumpRound();
      return;
    case Phase::kSwitching:
      CheckSwitched();
      return;
    case Phase::kSealing:
      if (!round_.active) return Sealed();
      PumpRound();
      return;
    case Phase::kDeleting:
      if (!round_.active) return Deleted();
      PumpRound();
      return;
    case Phase::kRefusing:
    case Phase::kMatching:
      PumpRound();
      return;
    case Phase::kIdle:
      Next();
      return;
    default:
      return;
  }
}

void Snapshotter::OnLost(const Link& link) {
  prepared_.Remove(link.replica());
  CheckStill();
}

void Snapshotter::OnNewMember(bool soon) {
  matched_ = false;
  due_ |= soon;
  if (soon) match_again_ns_ = 0;
}

void Snapshotter::Look(uint64_t now_ns) {
  if (!stopped_.ok()) return;
  if (match_again_ns_ != 0 && now_ns >= match_again_ns_) {
    match_again_ns_ = 0;
    due_ = true;
  }
  if (flush_due_) Flush();
  if (phase_ == Phase::kListing && !reader_.busy() && !ListAtOne() && Expired(*request_)) {
    Finish({ErrorCode::kUnavailable, "no member can be asked for its layers"});
    return;
  }
  OnMembers();
  if (phase_ == Phase::kDeleting && ErrandsIdle() && Expired(*request_)) {
    // Some may have deleted it: the others do when they can be reached.
    round_.active = false;
    OnNewMember(true);
    Finish({ErrorCode::kBusy, "snapshot " + request_->name +
                                  ": a member cannot be reached, or is about to leave; it is "
                                  "deleted when that is over"});
  }
}

void Snapshotter::Stop(const Status& why, bool final) {
  if (stopped_.ok()) stopped_ = why;
  if (SnapshotRequest* request = std::exchange(request_, nullptr)) {
    Answer(request,
           stopped_.Within(request->what == SnapshotRequest::What::kList ? "layers"
                                                                         : Label(*request)));
  }
  while (SnapshotRequest* request = queue_.PopFront()) Answer(request, stopped_);
  due_ = flush_due_ = round_.active = false;
  match_again_ns_ = 0;
  if (taking()) engine_.LetJoinerGo();
  // What goes to a member that has not switched must go on waiting, as long as anything goes there.
  if (phase_ == Phase::kSwitching && !final) return;
  Unlock();
  phase_ = Phase::kIdle;
}

Json Snapshotter::CountersJson() const {
  return Json::Object().Set("taken", taken_).Set("failed", failed_).Set("pause", pauses_.ToJson());
}

}  // namespace ankole::engine

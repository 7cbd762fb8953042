#include "replica/served_replica.h"

#include <algorithm>
#include <utility>

#include "base/mutant.h"
#include "replica/control_job.h"

namespace ankole::replica {
namespace {

// The same trouble again within this time is not logged again.
constexpr uint64_t kReportIntervalNs = 10 * kNsPerSecond;
// A region that is written again within this time after it was cleaned costs no I/O to mark.
constexpr uint64_t kTidyAfterNs = 5 * kNsPerSecond;
// Removed layers are merged from so long after a replica was opened or a snapshot deleted, a step
// of 8 MiB at most in each pause: up to 64 MiB a second, so that clients have most of the disk.
constexpr uint64_t kMergeAfterNs = kNsPerSecond;
constexpr uint64_t kMergePauseNs = 125 * kNsPerMs;
constexpr uint64_t kMergeAgainNs = 60 * kNsPerSecond;
// Files that could not be read are read again after so long, when somebody asks.
constexpr uint64_t kLookPauseMinNs = 500 * kNsPerMs;
constexpr uint64_t kLookPauseMaxNs = 60 * kNsPerSecond;

std::string EpochText(const wire::Epoch& epoch) {
  return std::to_string(epoch.attachment) + "." + std::to_string(epoch.run);
}

bool Modifies(OperationKind kind) {
  return kind == OperationKind::kWrite || kind == OperationKind::kZero ||
         kind == OperationKind::kUnmap;
}

// What it does to the head must not come to another one.
bool ChangesHead(OperationKind kind) { return Modifies(kind) || kind == OperationKind::kBad; }

}  // namespace

ServedReplica::ServedReplica(io::Reactor& reactor, LogSink& log, std::string volume,
                             wire::ReplicaId id, std::string directory)
    : reactor_(reactor),
      log_(log),
      volume_(std::move(volume)),
      id_(id),
      directory_(std::move(directory)) {
  welcome_operation_.kind = OperationKind::kRecord;
  welcome_operation_.owner = this;
  welcome_operation_.done = [](ReplicaOperation* operation) {
    static_cast<ServedReplica*>(operation->owner)->OnWelcomeWritten();
  };
  tidy_operation_.kind = OperationKind::kTidy;
  tidy_operation_.owner = this;
  tidy_operation_.done = [](ReplicaOperation* operation) {
    auto* self = static_cast<ServedReplica*>(operation->owner);
    self->tidying_ = false;
    self->Advance();
  };
  merge_operation_.kind = OperationKind::kMerge;
  merge_operation_.owner = this;
  merge_operation_.done = [](ReplicaOperation* operation) {
    static_cast<ServedReplica*>(operation->owner)->OnMerged();
  };
  merge_timer_.owner = this;
  merge_timer_.done = [](io::Operation* timer) {
    static_cast<ServedReplica*>(timer->owner)->Merge();
  };
  tidy_timer_.owner = this;
  tidy_timer_.done = [](io::Operation* timer) {
    static_cast<ServedReplica*>(timer->owner)->Tidy();
  };
}

ServedReplica::~ServedReplica() {
  CHECK(sessions_.empty() && in_flight_ == 0 && !job_running_ && !welcome_writing_ && !tidying_ &&
        !merging_ && cloning_ == nullptr);
  reactor_.Cancel(&tidy_timer_);
  reactor_.Cancel(&merge_timer_);
}

std::string ServedReplica::Name() const {
  return "replica " + wire::ReplicaIdText(id_) + " of volume " + volume_;
}

void ServedReplica::SetFailure(const Status& failure) {
  failure_ = failure;
  log_.Log(LogLevel::kError, Name() + ": " + failure.message());
}

bool ServedReplica::MayLookAgain() {
  const uint64_t now_ns = reactor_.NowNs();
  if (looking_ || now_ns < look_again_ns_) return false;
  return looking_ = true;
}

void ServedReplica::LookedAgain() {
  looking_ = false;
  look_pause_ns_ = std::clamp(2 * look_pause_ns_, kLookPauseMinNs, kLookPauseMaxNs);
  look_again_ns_ = reactor_.NowNs() + look_pause_ns_;
}

void ServedReplica::Attach(Session* session) { sessions_.PushBack(session); }

void ServedReplica::Detach(Session* session) {
  Forget(session);
  sessions_.Remove(session);
  Advance();
}

void ServedReplica::Forget(Session* session) {
  std::erase(inquirers_, session);
  if (current_ == session) current_ = nullptr;
  if (welcomer_ == session) welcomer_ = nullptr;
  if (leaver_ == session) leaver_ = nullptr;
}

void ServedReplica::Inquire(Session* session) {
  inquirers_.push_back(session);
  Advance();
}

void ServedReplica::Welcome(Session* session) {
  if (welcomer_ != nullptr && welcomer_->epoch() > session->epoch()) {
    session->OnWelcomed(
        {ErrorCode::kFenced, Name() + ": epoch " + EpochText(session->epoch()) +
                                 " is fenced off by " + EpochText(welcomer_->epoch())},
        {});
    return;
  }
  Session* earlier = std::exchange(welcomer_, session);
  if (earlier != nullptr) {
    earlier->Close({ErrorCode::kFenced, "another connection asked for the replica"});
  }
  Advance();
}

void ServedReplica::Leave(Session* session) {
  CHECK(current_ == session && leaver_ == nullptr);
  leaver_ = session;
  Advance();
}

void ServedReplica::Submit(ReplicaOperation* operation) {
  CHECK(replica_ != nullptr && !job_running_);
  ++in_flight_;
  if (ChangesHead(operation->kind)) ++changing_;
  if (Modifies(operation->kind)) {
    changed_ = true;
    recent_.Add(RegionsOf(operation->offset_bytes, operation->length_bytes), operation->tag);
  }
  if (operation->kind == OperationKind::kRecord) newest_record_ = operation->record.current;
  replica_->Submit(operation);
}

void ServedReplica::OnCleaned(RegionRange range) {
  recent_.Remove({range.first, std::min(range.end, replica_->regions().regions())});
  if (!tidy_timer_.armed()) reactor_.Arm(&tidy_timer_, reactor_.NowNs() + kTidyAfterNs);
}

void ServedReplica::Tidy() {
  if (replica_ == nullptr || job_running_ || tidying_) return;
  tidying_ = true;
  replica_->Submit(&tidy_operation_);
}

void ServedReplica::MergeIn(uint64_t delay_ns) {
  const uint64_t at_ns = reactor_.NowNs() + delay_ns;
  // Layers that stay for a clone keep no others from going.
  const bool sooner = shared_told_ > 0 && at_ns < merge_timer_.deadline_ns;
  if (!merging_ && (!merge_timer_.armed() || sooner)) reactor_.Arm(&merge_timer_, at_ns);
}

void ServedReplica::Merge() {
  // Who waits for the replica to be closed does not wait for long.
  const bool leaving = leaver_ != nullptr || ended_ != nullptr;
  if (replica_ == nullptr || job_running_ || merging_ || leaving) return;
  merging_ = true;
  replica_->Submit(&merge_operation_);
}

void ServedReplica::OnMerged() {
  merging_ = false;
  if (merge_operation_.status != ErrorCode::kOk) {
    log_.Log(LogLevel::kWarn, Name() +
                                  ": a deleted snapshot's layer cannot go, which is tried again: " +
                                  replica_->merge_failure().message());
    MergeIn(kMergeAgainNs);
  } else if (merge_operation_.more) {
    MergeIn(kMergePauseNs);
  } else {
    TellShared();
  }
  Advance();
}

// Looked at again from time to time: the other replica may be deleted by then.
void ServedReplica::TellShared() {
  const size_t shared = replica_->layers_shared();
  if (shared > 0) MergeIn(kMergeAgainNs);
  if (std::exchange(shared_told_, shared) == shared) return;
  log_.Log(LogLevel::kInfo,
           Name() + (shared == 0
                         ? ": no layer of a deleted snapshot is shared with a linked clone any more"
                         : ": " + std::to_string(shared) +
                               " layers that are nobody's snapshot stay as a linked clone, or the "
                               "volume that this one was cloned from, has the same files"));
}

// --- clones
// -----------------------------------------------------------------------------------------

void ServedReplica::Clone(const std::string& layer, CloneTarget target,
                          std::function<void(const Status&)> done) {
  CHECK(cloning_ == nullptr);
  cloning_ = std::make_unique<Cloning>();
  cloning_->layer = layer;
  cloning_->target = std::move(target);
  cloning_->done = std::move(done);
  ReplicaOperation& operation = cloning_->operation;
  operation.kind = OperationKind::kClone;
  operation.layer = cloning_->layer;
  operation.clone = &cloning_->target;
  operation.owner = this;
  operation.done = [](ReplicaOperation* self) {
    static_cast<ServedReplica*>(self->owner)->OnCloned();
  };
  Advance();
}

void ServedReplica::AdvanceClone() {
  if (replica_ == nullptr) {
    cloning_->opened = true;
    StartOpen();
    return;
  }
  cloning_->running = true;
  replica_->Submit(&cloning_->operation);
}

void ServedReplica::OnCloned() {
  cloning_->running = false;
  const ErrorCode code = cloning_->operation.status;
  std::string why;
  switch (code) {
    case ErrorCode::kOk:
      return FinishClone(Status::Ok());
    case ErrorCode::kCancelled:
      // It was reverted meanwhile: once it is opened anew.
      if (replica_->reverted()) return Advance();
      why = ErrorCodeName(code);
      break;
    case ErrorCode::kNotFound:
      why = "it has no such snapshot";
      break;
    case ErrorCode::kBusy:
      why = "it is not ready yet";
      break;
    case ErrorCode::kReadOnly:
      why =
          "the replica was adopted from Longhorn, and nobody has confirmed that it may be changed";
      break;
    case ErrorCode::kSuspect:
      why = "the replica may have lost what it had acknowledged";
      break;
    default:
      why = replica_->clone_failure().ok() ? ErrorCodeName(code)
                                           : replica_->clone_failure().message();
  }
  FinishClone({code, Name() + ": layer " + cloning_->layer + " cannot be cloned: " + why});
}

void ServedReplica::FinishClone(const Status& status) {
  const std::unique_ptr<Cloning> cloning = std::exchange(cloning_, nullptr);
  const bool idle = sessions_.empty() && welcomer_ == nullptr && leaver_ == nullptr && !ended_;
  // As it was: nobody has it open, and nothing is merged in it without an engine.
  if (cloning->opened && idle && replica_ != nullptr && !merging_ && !tidying_ && !job_running_) {
    StartClose(false);
  }
  cloning->done(status);
  Advance();
}

void ServedReplica::OnOperationDone(const Outcome& outcome) {
  CHECK(in_flight_ > 0);
  --in_flight_;
  const OperationKind kind = outcome.kind;
  if (ChangesHead(kind)) --changing_;
  const ErrorCode status = outcome.status;
  if (kind == OperationKind::kClean && status == ErrorCode::kOk) OnCleaned(outcome.range);
  // What lay under the head may go as soon as it lies under a frozen layer.
  const bool frees = kind == OperationKind::kDelete || kind == OperationKind::kSeal ||
                     kind == OperationKind::kSwitch;
  if (frees && status == ErrorCode::kOk) MergeIn(kMergeAfterNs);
  if (kind == OperationKind::kRecord && status == ErrorCode::kOk && outcome.resynced) {
    sync_failed_ = false;
  }
  if (kind == OperationKind::kExpand) {
    const bool ok = status == ErrorCode::kOk;
    log_.Log(
        ok ? LogLevel::kInfo : LogLevel::kWarn,
        Name() +
            (ok ? " has "
                : " cannot become larger (" + std::string(ErrorCodeName(status)) + ") and has ") +
            std::to_string(replica_->size_bytes()) + " bytes");
  }
  // With nothing under way, nothing but what is dirty can be incomplete.
  if (kind == OperationKind::kClean && !recent_.known() && in_flight_ == 0) {
    recent_.Reset(replica_->regions());
  }
  if (status != ErrorCode::kOk && kind != OperationKind::kExpand) {
    Report(status);
  } else if (Modifies(kind)) {
    reported_ = ErrorCode::kOk;
  }
  const bool wanted = welcomer_ != nullptr || leaver_ != nullptr || ended_;
  if ((in_flight_ == 0 && wanted) || replica_->reverted()) Advance();
}

void ServedReplica::Report(ErrorCode status) {
  const bool of_the_medium = status == ErrorCode::kIoError || status == ErrorCode::kNoSpace ||
                             status == ErrorCode::kSuspect || status == ErrorCode::kCorrupt ||
                             status == ErrorCode::kReadOnly;
  if (!of_the_medium) return;
  const uint64_t now_ns = reactor_.NowNs();
  if (status == reported_ && now_ns - reported_ns_ < kReportIntervalNs) return;
  reported_ = status;
  reported_ns_ = now_ns;
  std::string message = Name() + ": " + ErrorCodeName(status);
  if (status == ErrorCode::kNoSpace) {
    message += ": the disk of " + directory_ + " is full; writes are refused until there is space";
  } else if (status == ErrorCode::kCorrupt) {
    message += ": data on the disk of " + directory_ +
               " does not match its checksum; it is read from another replica, if there is one";
  } else if (replica_->sync_failed()) {
    message += ": " + replica_->sync_failure() +
               "; it takes no writes any more and must be replaced or resynchronized";
  } else {
    message += ": the disk of " + directory_ + " failed an operation";
  }
  log_.Log(LogLevel::kError, message);
}

SumCounters ServedReplica::sum_counters() const {
  SumCounters sums = closed_sums_;
  if (replica_ != nullptr) sums += replica_->sum_counters();
  return sums;
}

void ServedReplica::End(std::function<void(const Status&)> done) {
  CHECK(!ended_);
  ended_ = std::move(done);
  Advance();
}

void ServedReplica::CloseSessions(const Status& why) {
  for (Session* session = sessions_.front(); session != nullptr;
       session = sessions_.Next(session)) {
    session->Close(why);
  }
}

// Level-triggered: looks at what is wanted and starts what can be started. Called after everything
// that may have changed either.
void ServedReplica::Advance() {
  // At once, whatever else is under way: nothing that it is asked for can be done.
  const bool reverted = replica_ != nullptr && replica_->reverted();
  if (reverted) {
    CloseSessions({ErrorCode::kUnavailable, Name() + " was reverted, and is opened anew"});
  }
  if (job_running_ || welcome_writing_ || tidying_ || merging_) return;
  if (cloning_ != nullptr && cloning_->running) return;
  if (reverted) {
    // All that is known of it in memory is of the head before: as after a restart of this process.
    if (in_flight_ == 0) StartClose(false);
    return;
  }
  if (leaver_ != nullptr) {
    if (in_flight_ == 0) StartClose(true);
    return;
  }
  if (ended_) {
    if (cloning_ != nullptr) {
      return FinishClone({ErrorCode::kUnavailable, Name() + " is being closed"});
    }
    for (Session* session : std::exchange(inquirers_, {})) {
      session->OnInquired({ErrorCode::kUnavailable, Name() + " is being closed"}, {});
    }
    if (!sessions_.empty() || in_flight_ > 0) return;
    if (replica_ != nullptr) {
      StartClose(false);
      return;
    }
    std::exchange(ended_, nullptr)(end_status_);  // may destroy this
    return;
  }
  if (welcomer_ == nullptr && inquirers_.empty()) {
    if (cloning_ != nullptr) AdvanceClone();
    return;
  }
  if (replica_ == nullptr) {
    StartOpen();
    return;
  }
  const wire::ReplicaState state = State();
  for (Session* session : std::exchange(inquirers_, {})) session->OnInquired(Status::Ok(), state);
  if (welcomer_ != nullptr) AdvanceWelcome();
  const bool free = welcomer_ == nullptr && !welcome_writing_ && !job_running_;
  if (free && cloning_ != nullptr && !cloning_->running) AdvanceClone();
}

// Rule 3, in its order: fence, close the others, wait for what they have begun, make the epoch
// durable, answer.
void ServedReplica::AdvanceWelcome() {
  const wire::Epoch epoch = welcomer_->epoch();
  if (epoch < replica_->welcomed()) {
    FinishWelcome({ErrorCode::kFenced, Name() + " has welcomed epoch " +
                                           EpochText(replica_->welcomed()) + ", " +
                                           EpochText(epoch) + " is fenced off"});
    return;
  }
  for (Session* session = sessions_.front(); session != nullptr;
       session = sessions_.Next(session)) {
    // An engine of a later epoch may look on; it will fence this one off when it wants to.
    if (session == welcomer_ || session->epoch() > epoch) continue;
    if (Mutant("old-connection-let-through")) continue;
    session->Close({ErrorCode::kFenced, "a connection of epoch " + EpochText(epoch) + " from " +
                                            welcomer_->peer() + " took over " + Name()});
  }
  // Its epoch is the highest welcomed one, so it was closed.
  CHECK(current_ == nullptr || Mutant("old-connection-let-through"));
  if (in_flight_ > 0 && !Mutant("welcome-without-drain")) return;
  if (replica_->sync_failed()) {
    // It must be written to be made equal: opened anew it takes writes, and its files are read from
    // the disk. It stays suspect.
    sync_failed_ = true;
    StartClose(false);
    return;
  }
  if (epoch == replica_->welcomed()) {
    FinishWelcome(Status::Ok());
    return;
  }
  welcome_operation_.record = replica_->record();
  welcome_operation_.welcomed = epoch;
  welcome_writing_ = true;
  replica_->Submit(&welcome_operation_);
}

void ServedReplica::OnWelcomeWritten() {
  welcome_writing_ = false;
  if (welcome_operation_.status != ErrorCode::kOk) Report(welcome_operation_.status);
  if (welcomer_ != nullptr && welcome_operation_.status != ErrorCode::kOk) {
    FinishWelcome(
        {welcome_operation_.status, Name() + ": the welcomed epoch could not be written"});
  }
  Advance();
}

void ServedReplica::FinishWelcome(const Status& status) {
  Session* session = std::exchange(welcomer_, nullptr);
  if (!status.ok()) {
    session->OnWelcomed(status, {});
    return;
  }
  current_ = session;
  if (served_ != session->epoch()) recent_.NextEngine();
  served_ = session->epoch();
  newest_record_ = replica_->record().current;
  log_.Log(LogLevel::kInfo,
           Name() + " serves epoch " + EpochText(session->epoch()) + " from " + session->peer());
  session->OnWelcomed(status, State());
}

wire::ReplicaState ServedReplica::State() const {
  wire::ReplicaState state;
  state.records = replica_->record();
  state.welcomed = replica_->welcomed();
  state.size_bytes = replica_->size_bytes();
  state.unclean = replica_->unclean() || changed_;
  state.suspect = replica_->suspect();
  state.lost = replica_->lost();
  state.recent_known = recent_.Tellable();
  state.fresh = replica_->fresh() && !changed_;
  state.unsealed = replica_->unsealed();
  return state;
}

void ServedReplica::StartOpen() {
  job_running_ = true;
  auto opened = std::make_shared<std::unique_ptr<Replica>>();
  auto status = std::make_shared<Status>();
  RunControlJob(
      reactor_,
      [this, opened, status] {
        Result<std::unique_ptr<Replica>> result =
            Replica::Open(reactor_.files(), reactor_, directory_, sync_failed_);
        if (result.ok()) {
          *opened = result.Take();
        } else {
          *status = result.status();
        }
      },
      [this, opened, status] {
        job_running_ = false;
        replica_ = std::move(*opened);
        changed_ = false;
        if (status->ok()) {
          failure_ = Status::Ok();
          if (!replica_->notes().empty()) {
            log_.Log(LogLevel::kWarn, Name() + ": " + replica_->notes());
          }
          newest_record_ = replica_->record().current;
          recent_.Reset(replica_->regions());
          if (replica_->has_removed_layers()) MergeIn(kMergeAfterNs);
          if (!replica_->region_damage().empty()) {
            log_.Log(LogLevel::kWarn, Name() + ": " + replica_->region_damage());
          }
        } else {
          SetFailure(*status);
          const Status answer = status->Within(Name() + " cannot be opened");
          for (Session* session : std::exchange(inquirers_, {})) session->OnInquired(answer, {});
          if (welcomer_ != nullptr) FinishWelcome(answer);
          if (cloning_ != nullptr) return FinishClone(answer);
        }
        Advance();
      });
}

void ServedReplica::StartClose(bool clean) {
  CHECK(in_flight_ == 0 && !tidying_ && !merging_);
  reactor_.Cancel(&tidy_timer_);
  reactor_.Cancel(&merge_timer_);
  sync_failed_ |= replica_->sync_failed();
  job_running_ = true;
  current_ = nullptr;
  for (Session* session = sessions_.front(); session != nullptr;
       session = sessions_.Next(session)) {
    CloseViews(session);
  }
  closed_sums_ += replica_->sum_counters();
  auto closing = std::make_shared<std::unique_ptr<Replica>>(std::move(replica_));
  auto status = std::make_shared<Status>();
  RunControlJob(
      reactor_, [closing, status, clean] { *status = Replica::Close(std::move(*closing), clean); },
      [this, status] {
        job_running_ = false;
        if (!status->ok()) {
          log_.Log(LogLevel::kError, Name() + " could not be closed: " + status->message());
          end_status_ = *status;
        }
        Session* leaver = std::exchange(leaver_, nullptr);
        if (leaver != nullptr) leaver->OnLeft(*status);
        Advance();
      });
}

}  // namespace ankole::replica

#include "replica/replica.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/limits.h"
#include "base/mutant.h"
#include "base/units.h"

namespace ankole::replica {

// Of an adopted directory nothing is changed that Longhorn reads, before somebody confirmed that.
static bool ChangesLayers(OperationKind kind) {
  switch (kind) {
    case OperationKind::kWrite:
    case OperationKind::kZero:
    case OperationKind::kUnmap:
    case OperationKind::kPrepare:
    case OperationKind::kSwitch:
    case OperationKind::kDelete:
    case OperationKind::kMerge:
    case OperationKind::kExpand:
    case OperationKind::kClone:  // a directory that is given back must share no file
      return true;
    default:
      return false;
  }
}

ErrorCode Replica::Check(const ReplicaOperation& operation) const {
  if (read_only_ && ChangesLayers(operation.kind)) return ErrorCode::kReadOnly;
  switch (operation.kind) {
    case OperationKind::kFlush:
    case OperationKind::kRecord:
    case OperationKind::kTidy:
    case OperationKind::kMerge:
      return ErrorCode::kOk;
    case OperationKind::kExpand: {
      const bool whole = !direct_ || operation.size_bytes % kBlockBytes == 0;
      return whole && CheckVolumeSize(operation.size_bytes).ok() ? ErrorCode::kOk
                                                                 : ErrorCode::kInvalidArgument;
    }
    case OperationKind::kMissing:
      if (operation.missing.id == 0 || operation.missing.id == identity_.id) {
        return ErrorCode::kInvalidArgument;
      }
      [[fallthrough]];
    case OperationKind::kMark:
      return operation.runs.end() <= regions_.regions() ? ErrorCode::kOk : ErrorCode::kOutOfRange;
    case OperationKind::kClean:
      // May reach beyond the end.
      return operation.offset_bytes % kRegionBytes == 0 &&
                     operation.length_bytes % kRegionBytes == 0
                 ? ErrorCode::kOk
                 : ErrorCode::kInvalidArgument;
    case OperationKind::kPrepare:
    case OperationKind::kSwitch:
    case OperationKind::kSeal:
    case OperationKind::kDelete:
    case OperationKind::kLayers:
    case OperationKind::kOpenView:
    case OperationKind::kCloseView:
    case OperationKind::kChanged:
    case OperationKind::kClone:
      return CheckLayer(operation);
    default:
      break;
  }
  if (operation.kind == OperationKind::kLoadState || operation.kind == OperationKind::kStoreState) {
    const bool whole = operation.length_bytes == kTargetStateBytes && operation.data != nullptr;
    return whole ? ErrorCode::kOk : ErrorCode::kInvalidArgument;
  }
  const uint64_t offset = operation.offset_bytes;
  const uint64_t length = operation.length_bytes;
  if (length == 0 || offset % kSectorBytes != 0 || length % kSectorBytes != 0) {
    return ErrorCode::kInvalidArgument;
  }
  if (offset >= size_bytes() || length > size_bytes() - offset) return ErrorCode::kOutOfRange;
  const bool sum = operation.kind == OperationKind::kSum;
  if (sum && (offset % kBlockBytes != 0 || operation.sums == nullptr)) {
    return ErrorCode::kInvalidArgument;
  }
  const bool data =
      operation.kind == OperationKind::kRead || operation.kind == OperationKind::kWrite || sum;
  if (data && (length > kDataBytesMax || operation.data == nullptr)) {
    return ErrorCode::kInvalidArgument;
  }
  if (operation.kind == OperationKind::kStatus && operation.extents_max == 0) {
    return ErrorCode::kInvalidArgument;
  }
  if (operation.kind == OperationKind::kBad) {
    const bool blocks = offset % kBlockBytes == 0 && length <= kDataBytesMax &&
                        (length % kBlockBytes == 0 || offset + length == size_bytes());
    if (!blocks) return ErrorCode::kInvalidArgument;
    if (!sums_.on()) return ErrorCode::kUnsupported;
  }
  return ErrorCode::kOk;
}

// The kernel may have dropped what it could not write, so that an older state is read.
bool Replica::Spoiled(const ReplicaOperation& operation) const {
  const bool reads = operation.view == 0 && (operation.kind == OperationKind::kRead ||
                                             operation.kind == OperationKind::kSum);
  return reads && sync_failed_ && !operation.anyway;
}

void Replica::Submit(ReplicaOperation* operation) {
  ++in_flight_;
  if (operation->kind == OperationKind::kClone) ++clones_;
  operation->replica = this;
  operation->status = ErrorCode::kOk;
  operation->extents_count = 0;
  operation->scratch = nullptr;
  operation->sync_failed = false;
  operation->lanes_busy = 0;
  operation->checksums_filled = false;
  operation->sums_next = 0;
  operation->spoils_first = operation->spoils_last = false;
  operation->needs_chain = operation->switched = operation->extended = false;
  operation->answer_bytes = 0;
  if (reverted_) return FinishLater(operation, ErrorCode::kCancelled);
  const ErrorCode wrong = Check(*operation);
  if (wrong != ErrorCode::kOk) return FinishLater(operation, wrong);
  if (Spoiled(*operation)) return FinishLater(operation, ErrorCode::kSuspect);
  if (operation->view != 0 && operation->kind != OperationKind::kCloseView) {
    return StartView(operation);
  }
  if (NeedsChain(operation->kind)) {
    if (switching_) return switch_waiters_.PushBack(operation);
    operation->needs_chain = true;
    ++data_in_flight_;
  }
  Start(operation);
}

// What reads, writes or syncs the layers of the head's chain.
bool Replica::NeedsChain(OperationKind kind) {
  switch (kind) {
    case OperationKind::kRead:
    case OperationKind::kWrite:
    case OperationKind::kZero:
    case OperationKind::kUnmap:
    case OperationKind::kFlush:
    case OperationKind::kStatus:
    case OperationKind::kSum:
    case OperationKind::kBad:
      return true;
    default:
      return false;
  }
}

void Replica::Start(ReplicaOperation* operation) {
  switch (operation->kind) {
    case OperationKind::kRead:
      return StartRead(operation);
    case OperationKind::kWrite:
      return WhenDirty(operation, [](ReplicaOperation* self) { self->replica->StartWrite(self); });
    case OperationKind::kZero:
    case OperationKind::kUnmap:
      return WhenDirty(operation, [](ReplicaOperation* self) { self->replica->StartZero(self); });
    case OperationKind::kBad:
      return StartBad(operation);
    case OperationKind::kFlush:
      flush_waiters_.PushBack(operation);
      return StartFlush();
    case OperationKind::kStatus:
      status_waiters_.PushBack(operation);
      return StartStatus();
    case OperationKind::kClean:
      clean_waiters_.PushBack(operation);
      return StartClean();
    case OperationKind::kRecord:
    case OperationKind::kMissing:
    case OperationKind::kTidy:
    case OperationKind::kSwitch:
    case OperationKind::kPrepare:
    case OperationKind::kLayers:
    case OperationKind::kOpenView:
    case OperationKind::kChanged:
      record_waiters_.PushBack(operation);
      return StartRecord();
    case OperationKind::kSeal:
    case OperationKind::kDelete:
      seal_waiters_.PushBack(operation);
      return StartLayer();
    case OperationKind::kCloseView:
      return CloseView(operation);
    case OperationKind::kMerge:
      return StartMergeStep(operation);
    case OperationKind::kClone:
      clone_waiters_.PushBack(operation);
      return ReleaseClones();
    case OperationKind::kMark:
      return WhenDirty(operation, [](ReplicaOperation* self) {
        self->replica->FinishLater(self, ErrorCode::kOk);
      });
    case OperationKind::kSum:
      return sums_.With(operation, [](ReplicaOperation* self) { self->replica->StartSum(self); });
    case OperationKind::kLoadState:
    case OperationKind::kStoreState:
      state_waiters_.PushBack(operation);
      return StartState();
    case OperationKind::kExpand:
      expand_waiters_.PushBack(operation);
      return StartExpand();
  }
  FinishLater(operation, ErrorCode::kInvalidArgument);
}

// The submitter may close the replica in `done` of the last operation: nothing here is touched
// after.
void Replica::Finish(ReplicaOperation* operation, ErrorCode status) {
  CHECK(in_flight_ > 0 && operation->lanes_busy == 0);
  if (operation->scratch != nullptr) ReleaseScratch(operation);
  operation->status = status;
  --in_flight_;
  if (operation->kind == OperationKind::kClone) --clones_;
  if (std::exchange(operation->needs_chain, false) && --data_in_flight_ == 0 &&
      switch_operation_ != nullptr) {
    // What switches is in flight itself, so that nobody closes the replica before.
    reactor_.Defer(&quiet_task_);
  }
  operation->done(operation);
}

void Replica::FinishLater(ReplicaOperation* operation, ErrorCode status) {
  operation->status = status;
  finished_.PushBack(operation);
  reactor_.Defer(&finish_task_);
}

void Replica::FinishDeferred() {
  // What is added meanwhile has its turn later, as FinishLater defers the task again.
  for (size_t count = finished_.size(); count > 0; --count) {
    ReplicaOperation* operation = finished_.PopFront();
    Finish(operation, operation->status);
  }
}

void Replica::WhenDirty(ReplicaOperation* operation, void (*proceed)(ReplicaOperation*)) {
  if (sync_failed_) return FinishLater(operation, ErrorCode::kSuspect);
  if (dirty_ == DirtyState::kDirty) return WhenMarked(operation, proceed);
  operation->proceed = proceed;
  dirty_waiters_.PushBack(operation);
  if (dirty_ == DirtyState::kMarking) return;
  dirty_ = DirtyState::kMarking;
  StartRecord();
}

void Replica::WithScratch(ReplicaOperation* operation, size_t bytes,
                          void (*proceed)(ReplicaOperation*)) {
  CHECK(scratch_ != nullptr && bytes <= BufferPool::kLargeBytes);
  // Those that wait go first.
  operation->scratch = scratch_waiters_.empty() ? scratch_->Acquire(bytes) : nullptr;
  if (operation->scratch != nullptr) return proceed(operation);
  operation->proceed = proceed;
  operation->scratch_bytes = bytes;
  scratch_waiters_.PushBack(operation);
}

void Replica::ReleaseScratch(ReplicaOperation* operation) {
  BufferPool::Release(operation->scratch);
  operation->scratch = nullptr;
  // In order, so that a large request is not passed by small ones for ever.
  while (ReplicaOperation* waiter = scratch_waiters_.front()) {
    waiter->scratch = scratch_->Acquire(waiter->scratch_bytes);
    if (waiter->scratch == nullptr) return;
    scratch_waiters_.Remove(waiter);
    waiter->proceed(waiter);
  }
}

// Before regions become clean their checksums are durable (rule 9).
void Replica::StartClean() {
  if (clean_running_ != nullptr || clean_waiters_.empty()) return;
  clean_running_ = clean_waiters_.PopFront();
  if (!sums_.on()) return EndSettle();
  const RegionRange range = RegionsOf(clean_running_->offset_bytes, clean_running_->length_bytes);
  settle_.first = std::min(range.first, regions_.regions());
  settle_.end = std::min(range.end, regions_.regions());
  // The engine holds the range's lock until the answer: a region is read, and no more.
  settle_.computed_max = 1;
  settle_.owner = this;
  settle_.done = [](BlockSums::SettleRequest* request) {
    static_cast<Replica*>(request->owner)->EndSettle();
  };
  sums_.Settle(&settle_);
}

void Replica::EndSettle() {
  ReplicaOperation* operation = std::exchange(clean_running_, nullptr);
  CHECK(operation != nullptr);
  const Status outcome = std::exchange(settle_.status, Status::Ok());
  const bool sync_failed = std::exchange(settle_.sync_failed, false);
  if (sync_failed) {
    FinishSyncFailed(operation, -EIO);
  } else if (!outcome.ok()) {
    FinishLater(operation, OutcomeOf(outcome));
  } else if (std::exchange(settle_.more, false)) {
    FinishLater(operation, ErrorCode::kBusy);
  } else {
    record_waiters_.PushBack(operation);
    StartRecord();
  }
  StartClean();
}

// Blocks that are good nowhere: durably so, that a restart does not take them for good.
void Replica::StartBad(ReplicaOperation* operation) {
  if (sync_failed_) return FinishLater(operation, ErrorCode::kSuspect);
  sums_.With(operation,
             [](ReplicaOperation* self) { self->replica->sums_.MarkBad(self, FinishNoted); });
}

// The checksums at rest are taken care of.
void Replica::FinishNoted(ReplicaOperation* operation) {
  Replica* self = operation->replica;
  if (operation->sync_failed) return self->FinishSyncFailed(operation, -EIO);
  self->Finish(operation, operation->status);
}

// Out of space is not a fault of the medium.
ErrorCode Replica::OutcomeOf(const Status& status) {
  if (status.ok() || status.code() == ErrorCode::kNoSpace) return status.code();
  return ErrorCode::kIoError;
}

void Replica::Latch(const std::string& reason) {
  if (sync_failed_ || Mutant("flush-retried")) return;
  sync_failure_ = reason;
  sync_failed_ = true;
}

void Replica::FinishSyncFailed(ReplicaOperation* operation, int64_t result) {
  Latch(Status::FromErrno(static_cast<int>(-result), "durable write").message());
  operation->job.owner = operation;
  operation->job.work = [](io::Job* job) {
    Replica* self = static_cast<ReplicaOperation*>(job->owner)->replica;
    // Where not even the mark can be written, the latch holds for this process's life.
    (void)self->WriteFailedMarker(self->sync_failure_).ok();
  };
  operation->job.done = [](io::Operation* job) {
    auto* self = static_cast<ReplicaOperation*>(job->owner);
    self->replica->Finish(self, ErrorCode::kIoError);
  };
  reactor_.Run(&operation->job);
}

}  // namespace ankole::replica

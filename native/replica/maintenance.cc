#include <algorithm>
#include <cstring>

#include "base/units.h"
#include "replica/replica.h"

// Flush and status.
namespace ankole::replica {
namespace {

// A part of the range of a kStatus that lies in one layer; kept in scratch memory.
struct StatusRun {
  io::File file;  // not valid: masked
  uint64_t offset_bytes;
  uint64_t length_bytes;
};
constexpr size_t kStatusRunsMax = BufferPool::kSmallBytes / sizeof(StatusRun);
// Instead of a number of runs: nothing is asked, all is data.
constexpr size_t kStatusAllData = SIZE_MAX;
// Extents found at a time; what lies beyond is left to the next kStatus.
constexpr size_t kStatusExtentsMax = 512;

// Adds a run to the operation's extents, joined to the one before where they are of a kind. False
// when there is no room.
bool AddExtent(ReplicaOperation* operation, uint64_t length_bytes, bool hole, bool zero) {
  if (length_bytes == 0) return true;
  if (operation->extents_count > 0) {
    BlockExtent& last = operation->extents[operation->extents_count - 1];
    if (last.hole == hole && last.zero == zero) {
      last.length_bytes += length_bytes;
      return true;
    }
  }
  if (operation->extents_count == operation->extents_max) return false;
  operation->extents[operation->extents_count++] = {length_bytes, hole, zero};
  return true;
}

}  // namespace

// --- flush
// -------------------------------------------------------------------------------------------

// A flush covers every write that was done before it was asked for: those set `unsynced` when they
// were done, and it starts after.
void Replica::StartFlush() {
  if (!flush_running_.empty() || flush_waiters_.empty()) return;
  bool unsynced = false;
  for (const Layer& layer : chain_.layers()) unsynced |= layer.unsynced;
  if (sync_failed_ || !unsynced) {
    while (ReplicaOperation* operation = flush_waiters_.PopFront()) {
      FinishLater(operation, sync_failed_ ? ErrorCode::kSuspect : ErrorCode::kOk);
    }
    return;
  }
  while (ReplicaOperation* operation = flush_waiters_.PopFront()) {
    flush_running_.PushBack(operation);
  }
  for (Layer& layer : chain_.layers()) {
    layer.syncing = layer.unsynced;
    layer.unsynced = false;
  }
  reactor_.Run(&flush_job_);
}

void Replica::FlushWork(io::Job* job) {
  auto* self = static_cast<Replica*>(job->owner);
  self->flush_outcome_ = Status::Ok();
  // Masks are synced before the blocks are punched; none is left here.
  for (size_t i = 0; i < self->chain_.layers().size(); ++i) {
    const Layer& layer = self->chain_.layers()[i];
    if (!layer.syncing) continue;
    self->flush_outcome_ = self->files_.SyncData(layer.file);
    if (self->flush_outcome_.ok()) continue;
    (void)self->WriteFailedMarker(self->flush_outcome_.message()).ok();
    return;
  }
}

void Replica::FlushDone(io::Operation* job) {
  auto* self = static_cast<Replica*>(job->owner);
  const bool failed = !self->flush_outcome_.ok();
  if (failed) self->Latch(self->flush_outcome_.message());
  List batch;
  while (ReplicaOperation* operation = self->flush_running_.PopFront()) batch.PushBack(operation);
  self->StartFlush();
  while (ReplicaOperation* operation = batch.PopFront()) {
    self->Finish(operation, failed ? ErrorCode::kIoError : ErrorCode::kOk);
  }
}

// --- status
// ------------------------------------------------------------------------------------------

void Replica::StartStatus() {
  if (status_operation_ != nullptr || status_waiters_.empty()) return;
  status_operation_ = status_waiters_.PopFront();
  // A block that is bad may be a hole in the file, and does not read as zeros: who fills another
  // replica must read it to know (rule 9). So what lies in its region counts as data.
  const bool may_be_bad =
      sums_.MayHoldBad(status_operation_->offset_bytes, status_operation_->length_bytes);
  status_runs_ = may_be_bad ? kStatusAllData : 0;
  if (may_be_bad) return reactor_.Run(&status_job_);
  if (chain_.head_alone()) return reactor_.Run(&status_job_);
  WithScratch(status_operation_, BufferPool::kSmallBytes,
              [](ReplicaOperation* self) { self->replica->RunStatus(self); });
}

// Notes which layers the range lies in, as the map is this thread's; the job then asks the files.
void Replica::RunStatus(ReplicaOperation* operation) {
  uint64_t at = operation->offset_bytes;
  const uint64_t end = at + operation->length_bytes;
  while (at < end && status_runs_ < std::min<size_t>(kStatusRunsMax, operation->extents_max)) {
    const uint64_t block = at / kBlockBytes;
    const BlockMap::Run run = map_.Find(block, DivideUp(end, kBlockBytes) - block);
    const uint64_t run_end = std::min(end, (block + run.blocks) * kBlockBytes);
    const io::File file = run.layer == BlockMap::kZero ? io::File{} : chain_.layer(run.layer).file;
    const StatusRun noted = {file, at, run_end - at};
    std::memcpy(operation->scratch->data + status_runs_ * sizeof(noted), &noted, sizeof(noted));
    ++status_runs_;
    at = run_end;
  }
  reactor_.Run(&status_job_);
}

Status Replica::CollectExtents(ReplicaOperation* operation) {
  if (status_runs_ == kStatusAllData) {
    (void)AddExtent(operation, operation->length_bytes, false, false);
    return Status::Ok();
  }
  const size_t runs = chain_.head_alone() ? 1 : status_runs_;
  for (size_t i = 0; i < runs; ++i) {
    StatusRun run = {chain_.head().file, operation->offset_bytes, operation->length_bytes};
    if (!chain_.head_alone()) {
      std::memcpy(&run, operation->scratch->data + i * sizeof(run), sizeof(run));
    }
    if (!run.file.valid()) {
      if (!AddExtent(operation, run.length_bytes, true, true)) return Status::Ok();
      continue;
    }
    const uint64_t end = run.offset_bytes + run.length_bytes;
    uint64_t at = run.offset_bytes;
    RETURN_IF_ERROR(files_.Extents(run.file, at, end - at, kStatusExtentsMax, &status_extents_));
    for (const io::FileExtent& extent : status_extents_) {
      const uint64_t extent_begin = std::max(at, extent.offset_bytes);
      const uint64_t extent_end = std::min(end, extent.offset_bytes + extent.length_bytes);
      if (extent_begin >= extent_end) continue;
      if (!AddExtent(operation, extent_begin - at, true, true) ||
          !AddExtent(operation, extent_end - extent_begin, false, extent.unwritten)) {
        return Status::Ok();
      }
      at = extent_end;
    }
    // There may be more than were asked for.
    if (status_extents_.size() == kStatusExtentsMax && at < end) return Status::Ok();
    if (!AddExtent(operation, end - at, true, true)) return Status::Ok();
  }
  return Status::Ok();
}

void Replica::StatusWork(io::Job* job) {
  auto* self = static_cast<Replica*>(job->owner);
  self->status_outcome_ = self->CollectExtents(self->status_operation_);
}

void Replica::StatusDone(io::Operation* job) {
  auto* self = static_cast<Replica*>(job->owner);
  ReplicaOperation* operation = self->status_operation_;
  const ErrorCode code = self->status_outcome_.ok() ? ErrorCode::kOk : ErrorCode::kIoError;
  self->status_operation_ = nullptr;
  self->StartStatus();
  self->Finish(operation, code);
}

}  // namespace ankole::replica

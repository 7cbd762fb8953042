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
    const Result<bool> fits = CollectFile(operation, run.file, run.offset_bytes, end);
    if (!fits.ok()) return fits.status();
    if (!fits.value()) return Status::Ok();
  }
  return Status::Ok();
}

// A part of one file. FIEMAP alone tells the truth only after all that is dirty in the file was
// written back, which keeps the disk from what clients wait for. So it is asked that way only where
// an extent is unwritten and there is something in the page cache, which may be dirty. False: no
// more extents fit.
Result<bool> Replica::CollectFile(ReplicaOperation* operation, io::File file, uint64_t at,
                                  uint64_t end) {
  while (at < end) {
    const Result<io::FileRange> found = files_.NextData(file, at, end);
    if (!found.ok()) return found.status();
    const io::FileRange data = found.value().empty() ? io::FileRange{end, end} : found.value();
    RETURN_IF_ERROR(ExtentsOf(file, {at, data.begin_bytes}, false));
    if (!AddExtents(operation, {at, data.begin_bytes})) return false;
    RETURN_IF_ERROR(ExtentsOf(file, data, false));
    const bool unwritten =
        std::any_of(status_extents_.begin(), status_extents_.end(),
                    [](const io::FileExtent& extent) { return extent.unwritten; });
    if (unwritten || status_extents_.size() == kStatusExtentsMax) {
      RETURN_IF_ERROR(ExtentsOf(file, data, true));
      if (!AddExtents(operation, data)) return false;
    } else if (!AddExtent(operation, data.end_bytes - data.begin_bytes, false, false)) {
      return false;
    }
    at = data.end_bytes;
  }
  return true;
}

Status Replica::ExtentsOf(io::File file, const io::FileRange& range, bool settled) {
  status_extents_.clear();
  if (range.empty()) return Status::Ok();
  const uint64_t bytes = range.end_bytes - range.begin_bytes;
  return settled
             ? files_.Extents(file, range.begin_bytes, bytes, kStatusExtentsMax, &status_extents_)
             : files_.ExtentsWritten(file, range.begin_bytes, bytes, kStatusExtentsMax,
                                     &status_extents_);
}

// What was found in the range; what is in none of the extents is a hole.
bool Replica::AddExtents(ReplicaOperation* operation, const io::FileRange& range) {
  uint64_t at = range.begin_bytes;
  for (const io::FileExtent& extent : status_extents_) {
    const uint64_t begin = std::max(at, extent.offset_bytes);
    const uint64_t end = std::min(range.end_bytes, extent.offset_bytes + extent.length_bytes);
    if (begin >= end) continue;
    if (!AddExtent(operation, begin - at, true, true) ||
        !AddExtent(operation, end - begin, false, extent.unwritten)) {
      return false;
    }
    at = end;
  }
  // There may be more than were asked for.
  if (status_extents_.size() == kStatusExtentsMax && at < range.end_bytes) return false;
  return AddExtent(operation, range.end_bytes - at, true, true);
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

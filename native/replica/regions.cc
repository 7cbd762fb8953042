#include <algorithm>
#include <cstring>

#include "replica/replica.h"

// Marks of regions (rule 5): durable before what changes data goes on. One round of writing is
// under way at a time, for all that wait; a task of the record queue shares the rounds.
namespace ankole::replica {
namespace {

// A writer that comes to the region after the last one marked has so many marked at once: in the
// file only, so that those it never comes to are no dirty ones.
constexpr uint32_t kMarkedAtOnce = 8;

}  // namespace

// Calls `each` for the ranges of regions that an operation wants marked, until it says false.
template <typename Each>
bool Replica::EachRange(const ReplicaOperation& operation, Each each) {
  if (operation.kind != OperationKind::kMark) {
    return each(RegionsOf(operation.offset_bytes, operation.length_bytes));
  }
  for (size_t i = 0; i < operation.runs.size(); ++i) {
    const wire::RegionRun run = operation.runs[i];
    if (!each(RegionRange{run.first, run.first + run.count})) return false;
  }
  return true;
}

void Replica::WhenMarked(ReplicaOperation* operation, void (*proceed)(ReplicaOperation*)) {
  if (EachRange(*operation, [this](RegionRange range) { return regions_.AllDirty(range); })) {
    return proceed(operation);
  }
  if (EachRange(*operation, [this](RegionRange range) { return regions_.AllDurable(range); })) {
    Mark(*operation);
    return proceed(operation);
  }
  operation->proceed = proceed;
  mark_waiters_.PushBack(operation);
  StartRegions();
}

void Replica::Mark(const ReplicaOperation& operation) {
  EachRange(operation, [this](RegionRange range) {
    regions_.Mark(range);
    return true;
  });
}

// The sector in the batch that is being made, at first with what the file shows; null: it is full.
RegionSector* Replica::BatchSector(uint32_t index) {
  RegionBatch& batch = *region_batch_;
  for (size_t i = batch.count; i > 0; --i) {
    if (batch.index[i - 1] == index) return &batch.sectors[i - 1];
  }
  if (batch.count == RegionBatch::kSectorsMax) return nullptr;
  RegionSector& sector = batch.sectors[batch.count];
  sector = {};
  const RegionRange range = regions_.Sector(index);
  for (uint32_t region = range.first; region < range.end; ++region) {
    sector.regions[region - range.first] = regions_.durable(region);
  }
  batch.index[batch.count++] = index;
  return &sector;
}

bool Replica::MarkInBatch(uint32_t region) {
  RegionSector* sector = BatchSector(region / kRegionSectorRegions);
  if (sector == nullptr) return false;
  sector->regions[region % kRegionSectorRegions] |= regions_.full();
  return true;
}

// False when the batch has no room for all of it: the rest has the next round.
bool Replica::MarkInBatch(const ReplicaOperation& operation) {
  bool any = false;
  bool ahead = false;
  const bool all = EachRange(operation, [&](RegionRange range) {
    for (uint32_t region = range.first; region < range.end; ++region) {
      if ((regions_.durable(region) & regions_.full()) == regions_.full()) continue;
      if (!MarkInBatch(region)) return false;
      if (!any) ahead = region == mark_next_ && operation.kind != OperationKind::kMark;
      any = true;
      mark_next_ = region + 1;
    }
    return true;
  });
  if (!all || !ahead) return all;
  const uint32_t end = std::min(regions_.regions(), mark_next_ + kMarkedAtOnce - 1);
  while (mark_next_ < end && MarkInBatch(mark_next_)) ++mark_next_;
  return true;
}

// --- tasks of the record queue

void Replica::StartRegionTask(RegionTask task, uint8_t begun, uint8_t set) {
  CHECK(region_task_ == RegionTask::kNone);
  region_task_ = task;
  task_sector_ = 0;
  task_run_ = 0;
  task_begun_ = begun;
  task_set_ = set;
  StartRegions();
}

// What a sector is to have once the task is done, from what it has.
void Replica::TaskContent(uint32_t index, RegionSector* sector) {
  const RegionRange range = regions_.Sector(index);
  if (region_task_ == RegionTask::kTidy) {
    for (uint32_t region = range.first; region < range.end; ++region) {
      sector->regions[region - range.first] = regions_.wanted(region);
    }
    return;
  }
  for (uint32_t i = 0; i < range.end - range.first; ++i) {
    uint8_t& bits = sector->regions[i];
    bits &= static_cast<uint8_t>(~task_begun_);
    if ((bits & kDirtyBit) != 0 || task_all_) bits |= task_begun_;
  }
  if (task_set_ == 0) return;
  const wire::RegionRuns& runs = record_operation_->runs;
  const bool reverts = record_operation_->kind == OperationKind::kPrepare;
  const size_t count = reverts ? revert_marks_.size() : runs.size();
  for (; task_run_ < count; ++task_run_) {
    const wire::RegionRun run = reverts ? revert_marks_[task_run_] : runs[task_run_];
    for (uint32_t region = std::max(run.first, range.first);
         region < std::min(run.first + run.count, range.end); ++region) {
      sector->regions[region - range.first] |= task_set_;
    }
    if (run.first + run.count > range.end) return;  // goes on in the next sector
  }
}

// Adds what the batch has room for.
void Replica::AddTask() {
  RegionBatch& batch = *region_batch_;
  while (task_sector_ < regions_.sectors()) {
    if (region_task_ == RegionTask::kTidy && !regions_.Lazy(task_sector_)) {
      ++task_sector_;
      continue;
    }
    const size_t before = batch.count;
    RegionSector* sector = BatchSector(task_sector_);
    if (sector == nullptr) return;
    const bool marked = batch.count == before;
    // A sector that is being marked is tidied another time.
    if (region_task_ != RegionTask::kTidy || !marked) {
      const RegionSector old = *sector;
      TaskContent(task_sector_, sector);
      const bool same = std::memcmp(&old, sector, sizeof(old)) == 0;
      if (same && !marked) batch.count = before;
    }
    ++task_sector_;
  }
}

// --- rounds

void Replica::StartRegions() {
  if (region_busy_ || (mark_waiters_.empty() && region_task_ == RegionTask::kNone)) return;
  if (region_batch_ == nullptr) region_batch_ = std::make_unique<RegionBatch>();
  region_batch_->count = 0;
  region_sync_ = false;
  while (ReplicaOperation* operation = mark_waiters_.front()) {
    mark_waiters_.PopFront();
    if (sync_failed_) {
      FinishLater(operation, ErrorCode::kSuspect);
      continue;
    }
    // By a round that took place since it came.
    if (EachRange(*operation, [this](RegionRange range) { return regions_.AllDurable(range); })) {
      Mark(*operation);
      operation->proceed(operation);
      continue;
    }
    mark_running_.PushBack(operation);
    region_sync_ = true;
    if (!MarkInBatch(*operation)) break;
  }
  if (region_task_ != RegionTask::kNone) {
    AddTask();
    // Maps that are begun count when they are named, so that one sync is enough. Bits that go may
    // go when they like.
    const bool last = task_sector_ == regions_.sectors();
    if (region_task_ == RegionTask::kBegin) region_sync_ |= last || task_set_ != 0;
  }
  if (region_batch_->count == 0 && mark_running_.empty()) {
    if (region_task_ != RegionTask::kNone) FinishRegionTask(ErrorCode::kOk);
    return;
  }
  for (size_t i = 0; i < region_batch_->count; ++i) {
    regions_.Writing(region_batch_->index[i], region_batch_->sectors[i]);
  }
  region_busy_ = true;
  reactor_.Run(&region_job_);
}

void Replica::RegionWork(io::Job* job) {
  auto* self = static_cast<Replica*>(job->owner);
  self->region_outcome_ = self->region_file_.Write(self->files_, *self->region_batch_,
                                                   self->region_sync_, &self->region_sync_failed_);
  if (self->region_sync_failed_) {
    (void)self->WriteFailedMarker(self->region_outcome_.message()).ok();
  }
}

void Replica::RegionDone(io::Operation* job) {
  auto* self = static_cast<Replica*>(job->owner);
  self->region_busy_ = false;
  const Status outcome = self->region_outcome_;
  if (self->region_sync_failed_) self->Latch(outcome.message());
  const ErrorCode code = OutcomeOf(outcome);
  if (outcome.ok()) {
    for (size_t i = 0; i < self->region_batch_->count; ++i) {
      self->regions_.Written(self->region_batch_->index[i], self->region_batch_->sectors[i]);
    }
  }
  List marked;
  List left;
  while (ReplicaOperation* operation = self->mark_running_.PopFront()) {
    const bool covered = EachRange(
        *operation, [self](RegionRange range) { return self->regions_.AllDurable(range); });
    if (outcome.ok() && !covered) {
      left.PushBack(operation);
      continue;
    }
    if (outcome.ok()) self->Mark(*operation);
    marked.PushBack(operation);
  }
  // Those that are not done yet go before those that came meanwhile.
  while (ReplicaOperation* operation = self->mark_waiters_.PopFront()) left.PushBack(operation);
  while (ReplicaOperation* operation = left.PopFront()) self->mark_waiters_.PushBack(operation);
  if (self->region_task_ != RegionTask::kNone &&
      (!outcome.ok() || self->task_sector_ == self->regions_.sectors())) {
    self->FinishRegionTask(code);
  }
  self->StartRegions();
  while (ReplicaOperation* operation = marked.PopFront()) {
    if (!outcome.ok()) {
      self->Finish(operation, code);
    } else if (self->sync_failed_) {
      self->Finish(operation, ErrorCode::kSuspect);
    } else {
      operation->proceed(operation);
    }
  }
}

}  // namespace ankole::replica

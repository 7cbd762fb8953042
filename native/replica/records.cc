#include <algorithm>
#include <utility>

#include "base/mutant.h"
#include "base/units.h"
#include "replica/layers.h"

// What changes the record, the dirty mark and whose missing maps there are: one after the other, in
// the order of submission, so that a map begins at one point of the replica's order (rule 5).
namespace ankole::replica {

void Replica::StartRecord() {
  if (record_busy_) return;
  if (dirty_ == DirtyState::kMarking) {
    record_operation_ = nullptr;
    record_next_ = record_state_;
    record_next_.clean = false;
    // An earlier stop that was not clean stays known by its own marks (rule 7).
    if (!unclean_) {
      record_next_.boot_id = boot_id_;
      record_next_.mount_id = mount_id_;
    }
    RunRecordJob(true, regions_.slots());
    return;
  }
  while (!record_busy_) {
    ReplicaOperation* operation = record_waiters_.PopFront();
    if (operation == nullptr) return;
    if (reverted_) {
      FinishLater(operation, ErrorCode::kCancelled);
      continue;
    }
    if (Switches(*operation)) {
      switching_ = true;
      if (data_in_flight_ > 0) {
        switch_operation_ = operation;
        record_busy_ = true;
        return;
      }
    }
    BeginOperation(operation);
  }
}

void Replica::BeginOperation(ReplicaOperation* operation) {
  record_operation_ = operation;
  record_next_ = record_state_;
  task_begun_ = 0;
  task_all_ = false;
  if (switching_ && prepared_ != nullptr && operation->kind != OperationKind::kMerge) {
    record_next_.head = prepared_->number + 1;
    record_next_.unsealed = !prepared_->revert;
  }
  switch (operation->kind) {
    case OperationKind::kRecord:
      BeginRecord(operation);
      break;
    case OperationKind::kSwitch:
      if (operation->switched) return BeginLayer(operation);
      if (!switching_) return EndRecord(ErrorCode::kInvalidArgument);
      RunRecordJob(true, regions_.slots());
      break;
    case OperationKind::kPrepare:
    case OperationKind::kSeal:
    case OperationKind::kDelete:
    case OperationKind::kLayers:
    case OperationKind::kOpenView:
    case OperationKind::kChanged:
    case OperationKind::kClone:
      BeginLayer(operation);
      break;
    case OperationKind::kMerge:
      if (!switching_) return BeginLayer(operation);
      SwapMerged();
      merge_->phase = Merge::Phase::kClose;
      operation->more = true;
      EndMergeStep(operation);
      break;
    case OperationKind::kClean:
      BeginClean(operation);
      break;
    case OperationKind::kMissing:
      BeginMissing(operation);
      break;
    case OperationKind::kExpand:
      BeginExpand(operation);
      break;
    default:  // kTidy
      record_busy_ = true;
      StartRegionTask(RegionTask::kTidy, 0, 0);
  }
}

// Begins the maps of those that the record drops.
void Replica::BeginRecord(ReplicaOperation* operation) {
  const wire::RecordPair& next = operation->record;
  const std::string& newest = record_state_.record.current.newest_snapshot;
  // It names a snapshot that was never prepared here. Who was made equal has its layers; who leaves
  // by it needs none.
  if (next.current.newest_snapshot != newest && record_state_.record.current.exists() &&
      !switching_ && !operation->resynced && !operation->still_lost) {
    return FinishLater(operation, ErrorCode::kInvalidArgument);
  }
  record_next_.record = next;
  record_next_.welcomed = operation->welcomed;
  if (operation->resynced) {
    record_next_.boot_id = boot_id_;
    record_next_.mount_id = mount_id_;
  }
  // Not where a welcome writes another epoch beside it: what was lost before is lost still.
  if (operation->resynced || (next != record_state_.record && !operation->still_lost)) {
    record_next_.recorded_in = IncarnationOf(boot_id_, mount_id_);
  }
  uint8_t begun = 0;
  // With another welcomed epoch alone nobody is dropped.
  if (next != record_state_.record) {
    for (const wire::Members& members :
         {record_state_.record.current.members, next.complete.members}) {
      for (const wire::ReplicaId id : members.all()) {
        const bool has_map = regions_.FindSlot(id) >= 0;
        if (id == identity_.id || has_map || next.current.members.Contains(id)) continue;
        const int slot = regions_.Take({id, next.complete});
        if (slot < 0) {
          AbandonMaps(begun);
          EndSwitch();
          return FinishLater(operation, ErrorCode::kNoSpace);
        }
        begun |= MissingBit(slot);
      }
    }
  }
  record_busy_ = true;
  if (begun == 0) return RunRecordTask();
  // Who did not write the record that reverted lacks all that it changed, which nobody knows any
  // more; or writes none.
  const bool reverts = switching_ ? prepared_ != nullptr && prepared_->revert
                                  : !DiscardedBy(chain_.head().meta).empty();
  task_all_ = reverts && next.complete.newest_snapshot != next.current.newest_snapshot &&
              !Mutant("revert-not-missed");
  StartRegionTask(RegionTask::kBegin, begun, 0);
}

// Notes that the record is complete, before the first bit goes under it.
void Replica::BeginClean(ReplicaOperation* operation) {
  const wire::Record& current = record_state_.record.current;
  if (!current.exists() || current.epoch != operation->clean.epoch ||
      current.generation != operation->clean.generation) {
    return FinishLater(operation, ErrorCode::kInvalidArgument);
  }
  if (record_state_.record.complete == current) {
    Clean(*operation);
    return FinishLater(operation, ErrorCode::kOk);
  }
  record_next_.record.complete = current;
  record_busy_ = true;
  RunRecordJob(true, regions_.slots());
}

void Replica::Clean(const ReplicaOperation& operation) {
  const bool held = HoldsForRevert();
  if (!held && prepared_ != nullptr && prepared_->revert) prepared_->stale = true;
  uint8_t bits = Mutant("one-map-for-both") ? UINT8_MAX : kDirtyBit;
  for (const wire::ReplicaId id : operation.clean.ids.all()) {
    const int slot = regions_.FindSlot(id);
    if (slot >= 0 && !held) bits |= MissingBit(slot);
  }
  const RegionRange range = RegionsOf(operation.offset_bytes, operation.length_bytes);
  const uint32_t end = std::min(range.end, regions_.regions());
  // But for regions that were written since their checksums were made durable.
  for (uint32_t region = range.first; region < end; ++region) {
    if (sums_.settled(region)) regions_.Clear({region, region + 1}, bits);
  }
}

void Replica::BeginMissing(ReplicaOperation* operation) {
  const wire::MissingRequest& request = operation->missing;
  int slot = regions_.FindSlot(request.id);
  if (request.what == wire::MissingRequest::What::kFree) {
    if (slot < 0) return FinishLater(operation, ErrorCode::kOk);
    MissingSlots after = regions_.slots();
    after[slot] = {};
    record_busy_ = true;
    return RunRecordJob(false, after);
  }
  uint8_t begun = 0;
  if (slot < 0) {
    slot = regions_.Take({request.id, request.record});
    if (slot < 0) return FinishLater(operation, ErrorCode::kNoSpace);
    begun = MissingBit(slot);
  }
  record_busy_ = true;
  StartRegionTask(RegionTask::kBegin, begun, MissingBit(slot));
}

void Replica::AbandonMaps(uint8_t begun) {
  for (int slot = 0; slot < static_cast<int>(wire::kMissingSlotsMax); ++slot) {
    if ((begun & MissingBit(slot)) != 0) regions_.Free(slot);
  }
}

// The regions are as the operation at the head of the queue wants them, or could not be written.
void Replica::FinishRegionTask(ErrorCode status) {
  const RegionTask task = std::exchange(region_task_, RegionTask::kNone);
  if (status == ErrorCode::kOk && record_operation_->kind == OperationKind::kPrepare) {
    return EndMarkReverted();
  }
  if (status == ErrorCode::kOk && task == RegionTask::kBegin) return RunRecordTask();
  // The header never named them.
  AbandonMaps(task_begun_);
  EndRecord(status);
}

// The map of a member goes, once the record that says so is durable; one that has its bits is named
// anew.
void Replica::RunRecordTask() {
  MissingSlots after = regions_.slots();
  if (record_operation_->kind == OperationKind::kMissing) {
    const wire::MissingRequest& request = record_operation_->missing;
    after[regions_.FindSlot(request.id)].record = request.record;
    return RunRecordJob(false, after);
  }
  for (wire::MissingSlot& slot : after) {
    if (record_next_.record.current.members.Contains(slot.id)) slot = {};
  }
  RunRecordJob(true, after);
}

void Replica::RunRecordJob(bool record, const MissingSlots& slots_after) {
  record_busy_ = true;
  record_write_ = record;
  slots_before_ = regions_.slots();
  slots_after_ = slots_after;
  reactor_.Run(&record_job_);
}

// Everything synced again, and the marks of rule 7 gone.
Status Replica::DropFailedMarker() {
  if (Mutant("joiner-not-flushed")) return Status::Ok();
  for (const Layer& layer : chain_.layers()) RETURN_IF_ERROR(files_.SyncData(layer.file));
  const Status removed = files_.Remove(directory_ + "/" + std::string(kFailedName));
  if (removed.code() == ErrorCode::kNotFound) return Status::Ok();
  return removed.ok() ? files_.SyncDirectory(directory_) : removed;
}

Status Replica::WriteRecord() {
  bool* sync_failed = &record_sync_failed_;
  slots_changed_ = false;
  if (record_operation_ != nullptr && record_operation_->kind == OperationKind::kExpand) {
    return CommitSize();
  }
  if (record_operation_ != nullptr && record_operation_->resynced) {
    const Status dropped = DropFailedMarker();
    *sync_failed = !dropped.ok();
    RETURN_IF_ERROR(dropped);
  }
  if (slots_before_ != region_file_.slots()) {
    RETURN_IF_ERROR(region_file_.WriteSlots(files_, slots_before_, sync_failed));
  }
  if (record_write_) RETURN_IF_ERROR(record_file_.Write(files_, record_next_, sync_failed));
  if (slots_after_ != slots_before_) {
    RETURN_IF_ERROR(region_file_.WriteSlots(files_, slots_after_, sync_failed));
    slots_changed_ = true;
  }
  if (record_operation_ != nullptr || volume_meta_.dirty) return Status::Ok();
  volume_meta_.dirty = true;
  const Status status = io::ReplaceFile(files_, directory_ + "/" + std::string(kVolumeMetaName),
                                        volume_meta_.Write());
  if (status.ok()) return status;
  volume_meta_.dirty = false;
  // On a full disk UNMAP must go on; the record, which has its space, holds the mark that counts.
  return status.code() == ErrorCode::kNoSpace ? Status::Ok() : status;
}

void Replica::RecordWork(io::Job* job) {
  auto* self = static_cast<Replica*>(job->owner);
  self->record_sync_failed_ = self->slots_changed_ = false;
  ReplicaOperation* operation = self->record_operation_;
  self->record_outcome_ = operation != nullptr && NeedsTree(*operation) ? self->RunLayer(operation)
                                                                        : self->WriteRecord();
  if (self->record_sync_failed_) {
    (void)self->WriteFailedMarker(self->record_outcome_.message()).ok();
  }
}

void Replica::RecordDone(io::Operation* job) {
  auto* self = static_cast<Replica*>(job->owner);
  const Status outcome = self->record_outcome_;
  if (self->record_sync_failed_) self->Latch(outcome.message());
  // The record itself may be durable where only what came after it failed. Maps that were begun
  // stay even if they could not be named: the header may name them all the same.
  self->record_state_ = self->record_file_.state();
  if (self->switching_ && self->prepared_ != nullptr) {
    if (self->record_state_.head == self->prepared_->number + 1) self->ApplySwitch();
    self->EndSwitch();
  }
  if (self->task_all_) {
    self->regions_.Begin(self->task_begun_);
    self->regions_.Add({0, self->regions_.regions()}, self->task_begun_);
    self->task_begun_ = 0;
  }
  self->regions_.Begin(std::exchange(self->task_begun_, 0));
  for (int slot = 0; self->slots_changed_ && slot < static_cast<int>(wire::kMissingSlotsMax);
       ++slot) {
    const bool freed = self->slots_after_[slot].id == 0 && self->slots_before_[slot].id != 0;
    if (freed) self->regions_.Free(slot);
  }
  if (ReplicaOperation* operation = self->record_operation_; operation != nullptr) {
    if (NeedsTree(*operation)) return self->EndLayer(outcome);
    if (operation->kind == OperationKind::kExpand) return self->EndSize(outcome);
    if (outcome.ok()) self->ApplyRecord(*operation);
    if (outcome.ok() && operation->kind == OperationKind::kSwitch) {
      operation->switched = true;
      self->record_operation_ = nullptr;
      self->record_busy_ = false;
      self->seal_waiters_.PushBack(operation);
      self->StartLayer();
      return self->StartRecord();
    }
    self->EndRecord(OutcomeOf(outcome));
    return;
  }
  const ErrorCode code = OutcomeOf(outcome);
  self->record_busy_ = false;
  self->dirty_ = outcome.ok() ? DirtyState::kDirty : DirtyState::kClean;
  if (outcome.ok()) self->fresh_ = false;
  List waiters;
  while (ReplicaOperation* waiter = self->dirty_waiters_.PopFront()) waiters.PushBack(waiter);
  self->StartRecord();
  while (ReplicaOperation* waiter = waiters.PopFront()) {
    if (outcome.ok()) {
      self->WhenMarked(waiter, waiter->proceed);
    } else {
      self->Finish(waiter, code);
    }
  }
}

// What an operation that is durable now changes in memory.
void Replica::ApplyRecord(const ReplicaOperation& operation) {
  switch (operation.kind) {
    case OperationKind::kSwitch:
      return;
    case OperationKind::kRecord:
      fresh_ = fresh_ && !record_state_.record.current.exists();
      if (!operation.resynced) return;
      rebooted_ = failed_marker_ = sync_failed_ = false;
      sync_failure_.clear();
      return;
    case OperationKind::kClean:
      Clean(operation);
      return;
    default:
      break;
  }
  if (operation.missing.what == wire::MissingRequest::What::kFree) return;
  const int slot = regions_.FindSlot(operation.missing.id);
  regions_.Rename(slot, operation.missing.record);
  const uint8_t bit = MissingBit(slot);
  for (size_t i = 0; i < operation.runs.size(); ++i) {
    const wire::RegionRun run = operation.runs[i];
    regions_.Add({run.first, run.first + run.count}, bit);
  }
}

void Replica::EndRecord(ErrorCode status) {
  EndSwitch();
  ReplicaOperation* operation = std::exchange(record_operation_, nullptr);
  record_busy_ = false;
  FinishLater(operation, status);
  StartRecord();
}

}  // namespace ankole::replica

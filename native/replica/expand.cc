#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/crc32c.h"
#include "base/mutant.h"
#include "base/units.h"
#include "replica/layers.h"

// A volume that becomes larger, while it is at work. What was prepared for a snapshot is dropped,
// as it is of the size before. The files grow one after the other, each so that it serves both
// sizes; then volume.meta says the new one, which is what counts after a crash; then memory
// follows. What is under way meanwhile lies below the old end, and nothing waits, but for jobs that
// write checksums at rest, at the very end. Frozen layers stay as they are. Until it is over
// nothing is prepared, so that no head is frozen which is longer than the volume.
//
// Where the old end lies within a block of 4 KiB, which no engine's volume does, the checksum of
// that block is of another range from then on: nothing that needs the chain is under way then, as
// when heads switch.
namespace ankole::replica {
namespace {

uint32_t RegionCount(uint64_t size_bytes) { return RegionsOf(0, size_bytes).end; }

// Of a block that goes on with zeros: kSumNone where that cannot be told.
uint32_t SumWithZeros(uint32_t sum, uint64_t zeros_bytes) {
  // Two checksums are kept as this one.
  if ((sum ^ 0x80000000U) <= kSumBad) return kSumNone;
  const std::byte zeros[kBlockBytes] = {};
  return StoredSum(Crc32c(zeros, zeros_bytes, sum));
}

}  // namespace

void Replica::StartExpand() {
  while (expand_operation_ == nullptr) {
    ReplicaOperation* operation = expand_waiters_.PopFront();
    if (operation == nullptr) return;
    if (operation->size_bytes <= size_bytes()) {
      FinishLater(operation, ErrorCode::kOk);
    } else if (sync_failed_) {
      FinishLater(operation, ErrorCode::kSuspect);
    } else {
      expand_operation_ = operation;
      QueueExpand();
    }
  }
}

// Twice: what was prepared goes in the record queue, and volume.meta has one writer at a time.
void Replica::QueueExpand() {
  record_waiters_.PushBack(expand_operation_);
  StartRecord();
}

void Replica::BeginExpand(ReplicaOperation* operation) {
  if (operation->extended) return BeginSize(operation);
  if (prepared_ == nullptr) return Extend();
  record_busy_ = true;
  reactor_.Run(&record_job_);
}

void Replica::EndDrop(const Status& outcome) {
  if (outcome.ok()) {
    Extend();
  } else {
    record_operation_ = nullptr;
    record_busy_ = false;
    RefuseExpand(OutcomeOf(outcome));
  }
  StartRecord();
}

// Nothing is prepared, and nothing will be.
void Replica::Extend() {
  record_operation_ = nullptr;
  record_busy_ = false;
  const Status room = MakeRoom(expand_operation_->size_bytes);
  if (!room.ok()) return RefuseExpand(OutcomeOf(room));
  reactor_.Run(&expand_job_);
}

// Memory, as nothing may fail once the size is durable.
Status Replica::MakeRoom(uint64_t size_bytes) {
  RETURN_IF_ERROR(regions_.MakeRoom(RegionCount(size_bytes)));
  if (map_.reserved()) RETURN_IF_ERROR(map_.Reserve(DivideUp(size_bytes, kBlockBytes)));
  return sums_.MakeRoom(RegionCount(size_bytes));
}

// Everything but what has a place that depends on the size.
Status Replica::ExtendFiles() {
  const uint64_t before = size_bytes();
  const uint64_t after = expand_operation_->size_bytes;
  const std::string head = directory_ + "/" + chain_.head().meta.name;
  bool* const sync_failed = &expand_sync_failed_;
  RETURN_IF_ERROR(RegionFile::Extend(files_, directory_ + "/" + std::string(kRegionsName),
                                     RegionCount(before), RegionCount(after), sync_failed));
  RETURN_IF_ERROR(MaskFile::Extend(files_, head + std::string(kMaskSuffix),
                                   DivideUp(before, kBlockBytes), DivideUp(after, kBlockBytes),
                                   sync_failed));
  return ExtendLayerFile(files_, head, before, after, sync_failed);
}

void Replica::ExpandWork(io::Job* job) {
  auto* self = static_cast<Replica*>(job->owner);
  self->expand_sync_failed_ = false;
  self->expand_outcome_ = self->ExtendFiles();
}

void Replica::ExpandDone(io::Operation* job) {
  auto* self = static_cast<Replica*>(job->owner);
  // What clients wrote may be lost with it (rule 1).
  if (self->expand_sync_failed_) {
    self->FinishSyncFailed(std::exchange(self->expand_operation_, nullptr), -EIO);
    return self->StartExpand();
  }
  if (!self->expand_outcome_.ok()) {
    const bool told = self->expand_outcome_.code() == ErrorCode::kUnsupported;
    return self->RefuseExpand(told ? ErrorCode::kUnsupported : OutcomeOf(self->expand_outcome_));
  }
  self->expand_operation_->extended = true;
  self->QueueExpand();
}

// --- in the record queue
// --------------------------------------------------------------------------

void Replica::BeginSize(ReplicaOperation* operation) {
  record_busy_ = true;
  if (size_bytes() % kBlockBytes == 0) return HoldSums();
  operation->offset_bytes = RoundDown(size_bytes(), kBlockBytes);
  operation->length_bytes = size_bytes() - operation->offset_bytes;
  operation->sums_next = 0;
  sums_.With(operation, [](ReplicaOperation* self) { self->replica->NoteOddBlock(self); });
}

// What is known of the block that the old end lies within.
void Replica::NoteOddBlock(ReplicaOperation* operation) {
  const uint64_t block = operation->offset_bytes / kBlockBytes;
  operation->offset_bytes = operation->length_bytes = 0;
  // A job writes the checksums of a frozen layer, or reads them to merge them.
  if (record_state_.unsealed || merge_ != nullptr) return FinishSize(ErrorCode::kBusy);
  if (sums_.on() && sums_.Blind(block)) return FinishSize(ErrorCode::kIoError);
  odd_block_ = block;
  odd_sum_ = sums_.on() ? sums_.SumOf(block) : kSumNone;
  HoldSums();
}

void Replica::HoldSums() {
  const auto commit = [](void* owner) {
    auto* self = static_cast<Replica*>(owner);
    self->RunRecordJob(false, self->regions_.slots());
  };
  if (sums_.on()) return sums_.Hold(commit, this);
  commit(this);
}

// On a pool thread.
Status Replica::CommitSize() {
  const uint64_t before = size_bytes();
  const uint64_t after = record_operation_->size_bytes;
  if (sums_.on()) {
    const Status grown = sums_.GrowFiles(RegionCount(after), &record_sync_failed_);
    if (!grown.ok()) {
      // As other programs want it; it is cut anyway before it is frozen, or grows again.
      (void)CutHead().ok();
      return grown;
    }
  }
  volume_meta_.size_bytes = after;
  if (Mutant("expand-not-durable")) return Status::Ok();
  const Status status = io::ReplaceFile(files_, directory_ + "/" + std::string(kVolumeMetaName),
                                        volume_meta_.Write());
  if (!status.ok()) volume_meta_.size_bytes = before;
  return status;
}

// The head is not longer than the volume.
Status Replica::CutHead() {
  const std::string path = directory_ + "/" + chain_.head().meta.name;
  const Result<io::FileInfo> info = files_.Info(path);
  if (!info.ok()) return info.status();
  if (info.value().size_bytes <= size_bytes()) return Status::Ok();
  // By its name: who has it open is told of failed syncs of its own all the same.
  Result<io::File> head = files_.Open(path, {.write = true});
  if (!head.ok()) return head.status();
  Status status = files_.Truncate(head.value(), size_bytes());
  if (status.ok()) {
    status = files_.Sync(head.value());
    record_sync_failed_ |= !status.ok();
  }
  files_.Close(head.value());
  return status.Within(path);
}

// The size is durable, or could not be made so.
void Replica::EndSize(const Status& outcome) {
  const uint64_t before = size_bytes();
  if (outcome.ok()) {
    chain_.Grow(expand_operation_->size_bytes);
    regions_.Grow(RegionCount(size_bytes()));
  }
  if (sums_.on()) {
    sums_.Grow(size_bytes());
    if (odd_block_ != UINT64_MAX && odd_sum_ != kSumNone && odd_sum_ != kSumBad) {
      // The file knows no more of it.
      const uint64_t end = std::min((odd_block_ + 1) * kBlockBytes, size_bytes());
      sums_.Set(odd_block_, outcome.ok() ? SumWithZeros(odd_sum_, end - before) : odd_sum_);
    }
    sums_.Release();
  }
  odd_block_ = UINT64_MAX;
  FinishSize(OutcomeOf(outcome));
}

void Replica::FinishSize(ErrorCode status) {
  expand_operation_ = nullptr;
  EndRecord(status);
  StartExpand();
}

void Replica::RefuseExpand(ErrorCode status) {
  FinishLater(std::exchange(expand_operation_, nullptr), status);
  StartExpand();
}

}  // namespace ankole::replica

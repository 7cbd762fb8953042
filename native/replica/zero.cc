#include <algorithm>
#include <cstring>

#include "base/crc32c.h"
#include "base/units.h"
#include "replica/replica.h"

// Writing zeros and giving space back. Over lower layers a block is masked first, durably, and then
// punched out of the head, or zeroed there: in the other order a crash in between would show what
// lies under it. Where the space is to stay taken it is taken before that, which shows nowhere: a
// disk that is full must not leave masks of what was not done.
namespace ankole::replica {

// What becomes of the range of a kZero or kUnmap over lower layers.
struct Replica::ZeroPlan {
  // Blocks that are covered in part, at the ends: [block start, zeros from, zeros to).
  using Edge = ZeroEdge;
  Edge edges[2];
  int edges_count = 0;
  // Whole blocks; the volume's last one counts as whole though it may be shorter.
  uint64_t first_block = 0;
  uint64_t blocks = 0;
};

namespace {

bool KeepsSpace(const ReplicaOperation& operation) {
  return operation.kind == OperationKind::kZero && operation.keep_allocated;
}

// Of edge_sums: the first block of the range, or its last.
size_t EdgeIndex(const ReplicaOperation& operation, uint64_t block) {
  return block == operation.offset_bytes / kBlockBytes ? 0 : 1;
}

}  // namespace

Replica::ZeroPlan Replica::Plan(const ReplicaOperation& operation) const {
  const uint64_t begin = operation.offset_bytes;
  const uint64_t end = begin + operation.length_bytes;
  const uint64_t whole_begin = RoundUp(begin, kBlockBytes);
  const uint64_t whole_end =
      end == size_bytes() ? RoundUp(end, kBlockBytes) : RoundDown(end, kBlockBytes);
  ZeroPlan plan;
  if (whole_begin > whole_end) {
    // Within one block.
    plan.edges[plan.edges_count++] = {begin / kBlockBytes, begin, end};
    return plan;
  }
  if (begin < whole_begin) {
    plan.edges[plan.edges_count++] = {begin / kBlockBytes, begin, whole_begin};
  }
  if (end > whole_end) plan.edges[plan.edges_count++] = {whole_end / kBlockBytes, whole_end, end};
  plan.first_block = whole_begin / kBlockBytes;
  plan.blocks = (whole_end - whole_begin) / kBlockBytes;
  return plan;
}

void Replica::StartZero(ReplicaOperation* operation) {
  operation->job.owner = operation;
  operation->job.work = ZeroWork;
  operation->job.done = ZeroDone;
  if (sums_.on()) {
    return sums_.With(operation, [](ReplicaOperation* self) {
      Replica* replica = self->replica;
      const ZeroPlan edges = replica->Plan(*self);
      for (int i = 0; i < edges.edges_count; ++i) {
        const uint64_t block = edges.edges[i].block;
        if (replica->sums_.Blind(block)) return replica->Finish(self, ErrorCode::kIoError);
        self->edge_sums[EdgeIndex(*self, block)] = replica->sums_.SumOf(block);
      }
      replica->StartZeroing(self);
    });
  }
  StartZeroing(operation);
}

void Replica::StartZeroing(ReplicaOperation* operation) {
  if (chain_.head_alone()) return reactor_.Run(&operation->job);
  const ZeroPlan plan = Plan(*operation);
  // The job must not look at the map, which is this thread's.
  for (int i = 0; i < plan.edges_count; ++i) {
    const uint16_t layer = map_.Layer(plan.edges[i].block);
    operation->lanes[i].file = layer == BlockMap::kZero ? io::File{} : chain_.layer(layer).file;
  }
  WithScratch(operation, kBlockBytes, [](ReplicaOperation* self) {
    if (self->replica->Plan(*self).blocks == 0) {
      self->replica->reactor_.Run(&self->job);
    } else if (KeepsSpace(*self)) {
      self->replica->TakeSpace(self);
    } else {
      self->replica->WaitForMasks(self);
    }
  });
}

void Replica::TakeSpace(ReplicaOperation* operation) {
  operation->job.work = [](io::Job* job) {
    auto* self = static_cast<ReplicaOperation*>(job->owner);
    Replica* replica = self->replica;
    const ZeroPlan plan = replica->Plan(*self);
    const uint64_t begin = plan.first_block * kBlockBytes;
    const uint64_t end = std::min(replica->size_bytes(), begin + plan.blocks * kBlockBytes);
    self->status =
        OutcomeOf(replica->files_.Allocate(replica->chain_.head().file, begin, end - begin));
  };
  operation->job.done = [](io::Operation* job) {
    auto* self = static_cast<ReplicaOperation*>(job->owner);
    if (self->status != ErrorCode::kOk) return self->replica->Finish(self, self->status);
    self->job.work = ZeroWork;
    self->job.done = ZeroDone;
    self->replica->WaitForMasks(self);
  };
  reactor_.Run(&operation->job);
}

void Replica::WaitForMasks(ReplicaOperation* operation) {
  mask_waiters_.PushBack(operation);
  StartMasks();
}

void Replica::StartMasks() {
  if (!mask_running_.empty() || mask_waiters_.empty()) return;
  while (ReplicaOperation* operation = mask_waiters_.PopFront()) mask_running_.PushBack(operation);
  reactor_.Run(&mask_job_);
}

void Replica::MaskWork(io::Job* job) {
  auto* self = static_cast<Replica*>(job->owner);
  self->mask_sync_failed_ = false;
  self->mask_outcome_ = self->masks_.open() ? Status::Ok() : self->OpenMasks();
  if (self->mask_outcome_.ok() && !self->masks_.open()) {
    self->mask_outcome_ = Status(ErrorCode::kNoSpace, "no space for the masks");
  }
  // The volume may have become larger since.
  if (self->mask_outcome_.ok() && self->masks_.blocks() < self->chain_.blocks()) {
    self->mask_outcome_ = self->masks_.Grow(self->files_, self->chain_.blocks());
  }
  for (ReplicaOperation* operation = self->mask_running_.front();
       operation != nullptr && self->mask_outcome_.ok();
       operation = self->mask_running_.Next(operation)) {
    const ZeroPlan plan = self->Plan(*operation);
    self->mask_outcome_ = self->masks_.Set(self->files_, plan.first_block, plan.blocks);
  }
  if (!self->mask_outcome_.ok()) return;
  self->mask_outcome_ = self->masks_.Sync(self->files_);
  if (self->mask_outcome_.ok()) return;
  self->mask_sync_failed_ = true;
  (void)self->WriteFailedMarker(self->mask_outcome_.message()).ok();
}

void Replica::MaskDone(io::Operation* job) {
  auto* self = static_cast<Replica*>(job->owner);
  const Status outcome = self->mask_outcome_;
  if (self->mask_sync_failed_) self->Latch(outcome.message());
  // Some of the bits may be in the file, of blocks that still show what lies below.
  self->unshown_ |= !outcome.ok() && outcome.code() != ErrorCode::kNoSpace;
  List batch;
  while (ReplicaOperation* operation = self->mask_running_.PopFront()) batch.PushBack(operation);
  self->StartMasks();
  while (ReplicaOperation* operation = batch.PopFront()) {
    if (outcome.ok()) {
      self->reactor_.Run(&operation->job);
    } else {
      self->Finish(operation, outcome.code() == ErrorCode::kNoSpace ? ErrorCode::kNoSpace
                                                                    : ErrorCode::kIoError);
    }
  }
}

Status Replica::ZeroOverLayers(ReplicaOperation* operation) {
  const io::File head = chain_.head().file;
  const ZeroPlan plan = Plan(*operation);
  for (int i = 0; i < plan.edges_count; ++i) {
    const ZeroPlan::Edge& edge = plan.edges[i];
    const io::File from = operation->lanes[i].file;
    if (!from.valid()) {  // reads as zeros already
      operation->edge_sums[EdgeIndex(*operation, edge.block)] = kSumNone;
      continue;
    }
    const uint64_t begin = edge.block * kBlockBytes;
    const uint64_t length = std::min<uint64_t>(kBlockBytes, size_bytes() - begin);
    std::byte* block = operation->scratch->data;
    const Result<size_t> got = files_.ReadAt(from, begin, block, length);
    if (!got.ok()) return got.status();
    std::memset(block + got.value(), 0, length - got.value());
    ZeroInBlock(operation, edge, block);
    RETURN_IF_ERROR(files_.WriteAt(head, begin, block, length));
  }
  if (plan.blocks == 0) return Status::Ok();
  const uint64_t begin = plan.first_block * kBlockBytes;
  const uint64_t length = std::min(size_bytes(), begin + plan.blocks * kBlockBytes) - begin;
  return KeepsSpace(*operation) ? files_.ZeroRange(head, begin, length)
                                : files_.PunchHole(head, begin, length);
}

// The file system zeroes parts of blocks by itself; only their checksums need to see them.
Status Replica::ZeroHeadAlone(ReplicaOperation* operation) {
  const io::File head = chain_.head().file;
  const ZeroPlan plan = Plan(*operation);
  for (int i = 0; i < plan.edges_count && sums_.on(); ++i) {
    const uint64_t begin = plan.edges[i].block * kBlockBytes;
    const uint64_t length = std::min<uint64_t>(kBlockBytes, size_bytes() - begin);
    alignas(kBlockBytes) std::byte block[kBlockBytes];
    const Result<size_t> got = files_.ReadAt(head, begin, block, length);
    if (!got.ok()) return got.status();
    std::memset(block + got.value(), 0, length - got.value());
    ZeroInBlock(operation, plan.edges[i], block);
  }
  return KeepsSpace(*operation)
             ? files_.ZeroRange(head, operation->offset_bytes, operation->length_bytes)
             : files_.PunchHole(head, operation->offset_bytes, operation->length_bytes);
}

// Zeroes the edge's part of the block in memory. A block that was not what was written is known
// to be bad after it, too.
void Replica::ZeroInBlock(ReplicaOperation* operation, const ZeroEdge& edge,
                          std::byte* block) const {
  const uint64_t begin = edge.block * kBlockBytes;
  const uint64_t length = std::min<uint64_t>(kBlockBytes, size_bytes() - begin);
  const size_t index = EdgeIndex(*operation, edge.block);
  const uint32_t before = operation->edge_sums[index];
  if (before != kSumNone && before != StoredSum(Crc32c(block, length))) {
    (index == 0 ? operation->spoils_first : operation->spoils_last) = true;
  }
  std::memset(block + (edge.from_bytes - begin), 0, edge.to_bytes - edge.from_bytes);
  operation->edge_sums[index] = StoredSum(Crc32c(block, length));
}

void Replica::ZeroWork(io::Job* job) {
  auto* operation = static_cast<ReplicaOperation*>(job->owner);
  Replica* self = operation->replica;
  const io::File head = self->chain_.head().file;
  Status status =
      self->chain_.head_alone() ? self->ZeroHeadAlone(operation) : self->ZeroOverLayers(operation);
  if (status.ok() && operation->durable) {
    status = self->files_.SyncData(head);
    operation->sync_failed = !status.ok();
    if (!status.ok()) (void)self->WriteFailedMarker(status.message()).ok();
  }
  operation->status = status.ok()                            ? ErrorCode::kOk
                      : operation->sync_failed               ? ErrorCode::kIoError
                      : status.code() == ErrorCode::kNoSpace ? ErrorCode::kNoSpace
                                                             : ErrorCode::kIoError;
}

void Replica::ZeroDone(io::Operation* job) {
  auto* operation = static_cast<ReplicaOperation*>(job->owner);
  Replica* self = operation->replica;
  self->chain_.head().unsynced = true;
  if (operation->sync_failed) self->Latch("a durable zero or unmap could not be synced");
  if (operation->status == ErrorCode::kOk && self->map_.reserved()) {
    const ZeroPlan plan = self->Plan(*operation);
    const uint16_t head = self->chain_.head_index();
    if (plan.blocks > 0) self->map_.Set(plan.first_block, plan.blocks, BlockMap::kZero);
    for (int i = 0; i < plan.edges_count; ++i) {
      if (operation->lanes[i].file.valid()) self->map_.Set(plan.edges[i].block, 1, head);
    }
  }
  if (operation->status != ErrorCode::kOk) {
    self->sums_.NoteFailed(*operation);
    // What lies below is masked already.
    const ZeroPlan plan = self->Plan(*operation);
    if (self->map_.reserved() && plan.blocks > 0) {
      self->map_.Set(plan.first_block, plan.blocks, BlockMap::kZero);
    }
    return self->FinishFailed(operation, operation->status);
  }
  self->sums_.Note(operation, FinishNoted);
}

}  // namespace ankole::replica

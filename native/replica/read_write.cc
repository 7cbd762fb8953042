#include <algorithm>
#include <cstring>

#include "base/units.h"
#include "replica/replica.h"

// Reads by runs of layers, and writes to the head. Blocks that are written in part while they lie
// in a lower layer are copied up as a whole.
namespace ankole::replica {
namespace {

// O_DIRECT wants memory, offsets and lengths in multiples of the device's logical block.
bool Aligned(const void* memory) { return reinterpret_cast<uintptr_t>(memory) % kBlockBytes == 0; }

// The blocks' starts around a range, and its end, which may be the volume's within a block.
struct BlockRange {
  uint64_t begin_bytes;
  uint64_t end_bytes;
};
BlockRange Widen(uint64_t begin_bytes, uint64_t end_bytes, uint64_t size_bytes) {
  return {RoundDown(begin_bytes, kBlockBytes),
          std::min(size_bytes, RoundUp(end_bytes, kBlockBytes))};
}

// From the scratch memory that was read into, where there is one.
void CopyOut(ReplicaOperation* operation) {
  if (operation->scratch == nullptr || operation->status != ErrorCode::kOk) return;
  std::memcpy(operation->data,
              operation->buffer + (operation->offset_bytes - operation->buffer_offset_bytes),
              operation->length_bytes);
}

// Out of space is not a fault of the medium.
ErrorCode CodeOf(int64_t result) {
  const ErrorCode code = ErrorCodeFromErrno(static_cast<int>(-result));
  return code == ErrorCode::kNoSpace ? code : ErrorCode::kIoError;
}

}  // namespace

// --- reads
// -----------------------------------------------------------------------------------------

void Replica::StartRead(ReplicaOperation* operation) {
  const uint64_t begin = operation->offset_bytes;
  const uint64_t end = begin + operation->length_bytes;
  const BlockRange wide = Widen(begin, end, size_bytes());
  operation->next_bytes = 0;
  // Checksums are of whole blocks, and O_DIRECT takes no others.
  const bool whole = wide.begin_bytes == begin && wide.end_bytes == end;
  if (direct_ ? whole && Aligned(operation->data) : whole || !sums_.on()) {
    operation->buffer = operation->data;
    operation->buffer_offset_bytes = begin;
    operation->buffer_length_bytes = operation->length_bytes;
    return sums_.With(operation, ReadNow);
  }
  operation->buffer_offset_bytes = wide.begin_bytes;
  operation->buffer_length_bytes = wide.end_bytes - wide.begin_bytes;
  WithScratch(operation, operation->buffer_length_bytes, [](ReplicaOperation* self) {
    self->buffer = self->scratch->data;
    self->replica->sums_.With(self, ReadNow);
  });
}

void Replica::ReadNow(ReplicaOperation* operation) {
  Replica* self = operation->replica;
  if (self->IssueReads(operation)) self->FinishLater(operation, self->EndRead(operation));
}

// Starts what the free lanes can take. True when nothing is left to do or to wait for.
bool Replica::IssueReads(ReplicaOperation* operation) {
  while (operation->next_bytes < operation->buffer_length_bytes &&
         operation->status == ErrorCode::kOk) {
    const uint64_t at = operation->buffer_offset_bytes + operation->next_bytes;
    const uint64_t end = operation->buffer_offset_bytes + operation->buffer_length_bytes;
    const uint64_t block = at / kBlockBytes;
    const BlockMap::Run run = map_.Find(block, DivideUp(end, kBlockBytes) - block);
    const uint64_t length = std::min(end, (block + run.blocks) * kBlockBytes) - at;
    if (run.layer == BlockMap::kZero) {
      std::memset(operation->buffer + operation->next_bytes, 0, length);
    } else {
      int lane = 0;
      while (lane < ReplicaOperation::kLanes && operation->lanes[lane].owner != nullptr) ++lane;
      if (lane == ReplicaOperation::kLanes) return false;
      operation->lanes[lane].done = ReadLaneDone;
      ReadLane(operation, lane, run.layer, at, length);
    }
    operation->next_bytes += length;
  }
  return operation->lanes_busy == 0;
}

void Replica::ReadLane(ReplicaOperation* operation, int lane, uint16_t layer, uint64_t offset_bytes,
                       uint64_t length_bytes) {
  ReplicaOperation::Lane& read = operation->lanes[lane];
  read.owner = operation;
  read.file = chain_.layer(layer).file;
  read.offset_bytes = offset_bytes;
  read.memory = operation->buffer + (offset_bytes - operation->buffer_offset_bytes);
  read.vectors[0] = {read.memory, length_bytes};
  read.vectors_count = 1;
  read.direct = direct_;
  read.durable = false;
  read.once = operation->once;
  read.expected_bytes = length_bytes;
  ++operation->lanes_busy;
  reactor_.Read(&read);
}

// Takes the outcome of a lane and frees it.
static ReplicaOperation* EndLane(io::Operation* lane) {
  auto* read = static_cast<ReplicaOperation::Lane*>(lane);
  auto* operation = static_cast<ReplicaOperation*>(lane->owner);
  lane->owner = nullptr;
  --operation->lanes_busy;
  if (lane->result < 0) {
    operation->status = ErrorCode::kIoError;
  } else if (static_cast<uint64_t>(lane->result) < read->expected_bytes) {
    // Past the end of a layer that is shorter than the volume.
    std::memset(read->memory + lane->result, 0, read->expected_bytes - lane->result);
  }
  return operation;
}

void Replica::ReadLaneDone(io::Operation* lane) {
  ReplicaOperation* operation = EndLane(lane);
  Replica* self = operation->replica;
  if (self->IssueReads(operation)) self->Finish(operation, self->EndRead(operation));
}

ErrorCode Replica::EndRead(ReplicaOperation* operation) {
  if (operation->status == ErrorCode::kOk && sums_.on() && !sums_.Verify(operation)) {
    operation->status = ErrorCode::kCorrupt;
  }
  // It may have been read while the sync failed.
  if (Spoiled(*operation)) operation->status = ErrorCode::kSuspect;
  CopyOut(operation);
  return operation->status;
}

// --- writes
// ------------------------------------------------------------------------------------------

// A block that is written in part is read and written as a whole when it is not in the head, or
// when the head takes whole blocks only, or has checksums of them.
bool Replica::NeedsMerge(uint64_t block, bool partial) const {
  return partial && (direct_ || sums_.on() || map_.Layer(block) != chain_.head_index());
}

void Replica::StartWrite(ReplicaOperation* operation) {
  const uint64_t begin = operation->offset_bytes;
  const uint64_t end = begin + operation->length_bytes;
  const BlockRange wide = Widen(begin, end, size_bytes());
  const uint64_t first = begin / kBlockBytes;
  const uint64_t last = (end - 1) / kBlockBytes;
  operation->merge_first =
      NeedsMerge(first, begin != wide.begin_bytes || (first == last && end != wide.end_bytes));
  operation->merge_last = first != last && NeedsMerge(last, end != wide.end_bytes);
  if (!operation->merge_first && !operation->merge_last && (!direct_ || Aligned(operation->data))) {
    operation->buffer = operation->data;
    operation->buffer_offset_bytes = begin;
    operation->buffer_length_bytes = operation->length_bytes;
    const auto write = [](ReplicaOperation* self) {
      Replica* replica = self->replica;
      replica->IssueWrite(self, replica->direct_ && self->durable);
    };
    // What the file of checksums holds matters only where a block is bad.
    if (sums_.MayHoldBad(begin, operation->length_bytes)) return sums_.With(operation, write);
    return write(operation);
  }
  const bool to_end = operation->merge_last || (first == last && operation->merge_first);
  operation->buffer_offset_bytes = operation->merge_first ? wide.begin_bytes : begin;
  operation->buffer_length_bytes = (to_end ? wide.end_bytes : end) - operation->buffer_offset_bytes;
  WithScratch(operation, wide.end_bytes - wide.begin_bytes, [](ReplicaOperation* self) {
    self->replica->sums_.With(self,
                              [](ReplicaOperation* ready) { ready->replica->StartMerge(ready); });
  });
}

void Replica::StartMerge(ReplicaOperation* operation) {
  operation->buffer = operation->scratch->data + operation->buffer_offset_bytes % kBlockBytes;
  const uint64_t first = operation->offset_bytes / kBlockBytes;
  const uint64_t last = (operation->offset_bytes + operation->length_bytes - 1) / kBlockBytes;
  const auto read = [&](int lane, uint64_t block) {
    const uint64_t begin = block * kBlockBytes;
    const uint64_t length = std::min<uint64_t>(kBlockBytes, size_bytes() - begin);
    const uint16_t layer = map_.Layer(block);
    if (layer == BlockMap::kZero) {
      std::memset(operation->buffer + (begin - operation->buffer_offset_bytes), 0, length);
    } else {
      operation->lanes[lane].done = MergeLaneDone;
      ReadLane(operation, lane, layer, begin, length);
    }
  };
  if (operation->merge_first) read(0, first);
  if (operation->merge_last) read(1, last);
  if (operation->lanes_busy == 0) EndMerge(operation);
}

void Replica::MergeLaneDone(io::Operation* lane) {
  ReplicaOperation* operation = EndLane(lane);
  if (operation->lanes_busy > 0) return;
  if (operation->status != ErrorCode::kOk) {
    return operation->replica->Finish(operation, operation->status);
  }
  operation->replica->EndMerge(operation);
}

void Replica::EndMerge(ReplicaOperation* operation) {
  if (sums_.on()) {
    // What does not match is not given a good checksum by being written in part.
    const uint64_t first = operation->offset_bytes / kBlockBytes;
    const uint64_t last = (operation->offset_bytes + operation->length_bytes - 1) / kBlockBytes;
    if ((operation->merge_first && sums_.Blind(first)) ||
        (operation->merge_last && sums_.Blind(last))) {
      return Finish(operation, ErrorCode::kIoError);
    }
    const auto spoiled = [&](uint64_t block) {
      return sums_.Mismatches(
          block, operation->buffer + (block * kBlockBytes - operation->buffer_offset_bytes));
    };
    operation->spoils_first = operation->merge_first && spoiled(first);
    operation->spoils_last = operation->merge_last && spoiled(last);
  }
  std::memcpy(operation->buffer + (operation->offset_bytes - operation->buffer_offset_bytes),
              operation->data, operation->length_bytes);
  IssueWrite(operation, direct_ && operation->durable);
}

void Replica::IssueWrite(ReplicaOperation* operation, bool durable) {
  ReplicaOperation::Lane& write = operation->lanes[0];
  write.owner = operation;
  write.done = WriteLaneDone;
  write.file = chain_.head().file;
  write.offset_bytes = operation->buffer_offset_bytes;
  write.vectors[0] = {operation->buffer, operation->buffer_length_bytes};
  write.vectors_count = 1;
  write.direct = direct_;
  write.durable = durable;
  write.once = operation->once;
  ++operation->lanes_busy;
  reactor_.Write(&write);
}

void Replica::WriteLaneDone(io::Operation* lane) {
  auto* write = static_cast<ReplicaOperation::Lane*>(lane);
  auto* operation = static_cast<ReplicaOperation*>(lane->owner);
  Replica* self = operation->replica;
  lane->owner = nullptr;
  --operation->lanes_busy;
  self->chain_.head().unsynced = true;
  if (lane->result < 0) {
    const ErrorCode code = CodeOf(lane->result);
    // A buffered write is made durable by a second one of the same bytes: what fails then is the
    // sync alone, «no space» included, and the kernel may have dropped the pages (rule 1).
    const bool sync_failed = write->durable && !(write->direct && code == ErrorCode::kNoSpace);
    self->sums_.NoteFailed(*operation);
    if (sync_failed) return self->FinishSyncFailed(operation, lane->result);
    return self->FinishFailed(operation, code);
  }
  if (self->map_.reserved()) {
    const uint64_t first = operation->buffer_offset_bytes / kBlockBytes;
    const uint64_t end = operation->buffer_offset_bytes + operation->buffer_length_bytes;
    self->map_.Set(first, DivideUp(end, kBlockBytes) - first, self->chain_.head_index());
  }
  if (operation->durable && !write->durable) return self->IssueWrite(operation, true);
  self->sums_.Note(operation, FinishNoted);
}

// A change that failed may be in the head in part. Over other layers that must show from now on, as
// it does when the head is opened or frozen: nothing may be read that is gone then.
void Replica::FinishFailed(ReplicaOperation* operation, ErrorCode code) {
  operation->status = code;
  if (!map_.reserved()) return Finish(operation, code);
  operation->job.owner = operation;
  operation->job.work = [](io::Job* job) {
    auto* self = static_cast<ReplicaOperation*>(job->owner);
    Replica& replica = *self->replica;
    const Layer& head = replica.chain_.head();
    const io::FileRange range = {
        RoundDown(self->offset_bytes, kBlockBytes),
        std::min(head.size_bytes, RoundUp(self->offset_bytes + self->length_bytes, kBlockBytes))};
    const Status status =
        ForEachExtent(replica.files_, replica.directory_ + "/" + head.meta.name, head.file, range,
                      [self](uint64_t offset_bytes, uint64_t length_bytes) {
                        self->written.push_back({offset_bytes, offset_bytes + length_bytes});
                      });
    job->result = status.ok() ? 0 : -EIO;
  };
  operation->job.done = [](io::Operation* job) {
    auto* self = static_cast<ReplicaOperation*>(job->owner);
    Replica* replica = self->replica;
    for (const io::FileRange& range : self->written) {
      const uint64_t first = range.begin_bytes / kBlockBytes;
      replica->map_.Set(first, DivideUp(range.end_bytes, kBlockBytes) - first,
                        replica->chain_.head_index());
    }
    self->written.clear();
    replica->unshown_ |= job->result != 0;
    replica->Finish(self, self->status);
  };
  reactor_.Run(&operation->job);
}

}  // namespace ankole::replica

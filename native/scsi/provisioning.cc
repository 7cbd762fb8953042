#include <algorithm>
#include <cstring>

#include "scsi/body.h"

// Caches, and what happens to blocks without their data being moved.
namespace ankole::scsi {

// --- SYNCHRONIZE CACHE, START STOP UNIT ----------------------------------------------------------

// All of the cache, whatever range is named; and IMMED is not used (SBC-3, 5.24, allows both).
void LogicalUnit::Body::SynchronizeCache(Task* task) {
  Request(task, 0, BlockOperation::kFlush, 0, 0);
  Submit(task, 1, nullptr);
}

void LogicalUnit::Body::StartStopUnit(Task* task) {
  if (!task->command.flush_first) return SetPower(task);
  Request(task, 0, BlockOperation::kFlush, 0, 0);
  Submit(task, 1, &Step<&Body::SetPower>);
}

void LogicalUnit::Body::SetPower(Task* task) {
  stopped_ = !task->command.start;
  Finish(task);
}

// --- UNMAP ---------------------------------------------------------------------------------------

namespace {

constexpr uint32_t kUnmapHeaderBytes = 8;
constexpr uint32_t kUnmapDescriptorBytes = 16;

struct Extent {
  uint64_t lba = 0;
  uint32_t blocks = 0;
};

// SBC-3, 5.34.2. Data-Out is in one segment.
Extent DescriptorAt(const Task& task, size_t index) {
  const std::byte* at = task.out[0].data + kUnmapHeaderBytes + index * kUnmapDescriptorBytes;
  return {LoadBig64(at), LoadBig32(at + 8)};
}

// What is left over of a descriptor at the end is ignored.
size_t DescriptorCount(const Task& task) {
  return LoadBig16(task.out[0].data + 2) / kUnmapDescriptorBytes;
}

}  // namespace

void LogicalUnit::Body::Unmap(Task* task) {
  task->wanted_bytes = task->command.parameter_bytes;
  if (task->command.parameter_bytes == 0) return Finish(task);
  if (task->out_bytes < kUnmapHeaderBytes) {
    return Refuse(task, IllegalRequest(SenseCode::kParameterListLengthError));
  }
  if (kUnmapHeaderBytes + LoadBig16(task->out[0].data + 2) > task->out_bytes) {
    return Refuse(task, IllegalRequest(SenseCode::kParameterListLengthError));
  }
  const size_t count = DescriptorCount(*task);
  if (count > kUnmapDescriptorsMax) return Refuse(task, InvalidFieldInParameterList(2));
  for (size_t i = 0; i < count; ++i) {
    const Extent extent = DescriptorAt(*task, i);
    if (extent.lba > capacity_blocks_ || extent.blocks > capacity_blocks_ - extent.lba) {
      return Refuse(task, IllegalRequest(SenseCode::kBlockAddressOutOfRange));
    }
  }
  UnmapPieces(task);
}

// The next few pieces; `next_bytes` counts over all descriptors.
void LogicalUnit::Body::UnmapPieces(Task* task) {
  const size_t descriptors = DescriptorCount(*task);
  uint64_t skip_bytes = task->next_bytes;
  size_t count = 0;
  for (size_t i = 0; i < descriptors && count < task->requests.size(); ++i) {
    const Extent extent = DescriptorAt(*task, i);
    const uint64_t bytes = uint64_t{extent.blocks} * kLogicalBlockBytes;
    const uint64_t skipped = std::min(skip_bytes, bytes);
    skip_bytes -= skipped;
    for (uint64_t at = skipped; at < bytes && count < task->requests.size(); ++count) {
      const uint64_t piece = std::min(bytes - at, kRangeBytesMax);
      Request(task, count, BlockOperation::kUnmap, extent.lba * kLogicalBlockBytes + at, piece);
      at += piece;
      task->next_bytes += piece;
    }
  }
  if (count == 0) return Finish(task);
  Submit(task, count, &Step<&Body::UnmapPieces>);
}

// --- WRITE SAME ----------------------------------------------------------------------------------

void LogicalUnit::Body::WriteSame(Task* task) {
  const Command& command = task->command;
  if (command.no_data_out) return ZeroPieces(task);
  task->wanted_bytes = kLogicalBlockBytes;
  if (task->out_bytes < kLogicalBlockBytes || task->announced_out_bytes > kLogicalBlockBytes) {
    return Refuse(task, IllegalRequest(SenseCode::kInvalidFieldInInformationUnit));
  }
  const std::byte* pattern = task->out[0].data;
  // With LBPRZ = 1 a block that reads as zeros may be an unmapped one, and only such a one.
  if (std::all_of(pattern, pattern + kLogicalBlockBytes,
                  [](std::byte byte) { return byte == std::byte{0}; })) {
    return ZeroPieces(task);
  }
  const uint64_t bytes = std::min<uint64_t>(command.blocks * kLogicalBlockBytes, kPatternBytes);
  for (uint64_t at = 0; at < bytes; at += kLogicalBlockBytes) {
    std::memcpy(task->scratch[0].data + at, pattern, kLogicalBlockBytes);
  }
  PatternPieces(task);
}

void LogicalUnit::Body::ZeroPieces(Task* task) {
  const uint64_t bytes = task->command.blocks * kLogicalBlockBytes;
  if (task->next_bytes == bytes) return Finish(task);
  const uint64_t piece = std::min(bytes - task->next_bytes, kRangeBytesMax);
  Request(task, 0, task->command.unmap ? BlockOperation::kUnmap : BlockOperation::kZero,
          task->command.lba * kLogicalBlockBytes + task->next_bytes, piece);
  task->next_bytes += piece;
  Submit(task, 1, &Step<&Body::ZeroPieces>);
}

void LogicalUnit::Body::PatternPieces(Task* task) {
  const uint64_t bytes = task->command.blocks * kLogicalBlockBytes;
  size_t count = 0;
  for (; task->next_bytes < bytes && count < task->requests.size(); ++count) {
    const uint64_t piece = std::min<uint64_t>(bytes - task->next_bytes, kPatternBytes);
    Request(task, count, BlockOperation::kWrite,
            task->command.lba * kLogicalBlockBytes + task->next_bytes, piece,
            task->scratch[0].data);
    task->next_bytes += piece;
  }
  if (count == 0) return Finish(task);
  Submit(task, count, &Step<&Body::PatternPieces>);
}

// --- GET LBA STATUS ------------------------------------------------------------------------------

void LogicalUnit::Body::GetLbaStatus(Task* task) {
  const uint64_t from = task->command.lba * kLogicalBlockBytes;
  TaskRequest* request =
      Request(task, 0, BlockOperation::kStatus, from,
              std::min(capacity_blocks_ * kLogicalBlockBytes - from, kRangeBytesMax));
  CHECK(reinterpret_cast<uintptr_t>(task->scratch[0].data) % alignof(BlockExtent) == 0);
  request->extents = reinterpret_cast<BlockExtent*>(task->scratch[0].data);
  request->extents_max = kStatusDescriptorsMax;
  Submit(task, 1, &Step<&Body::FinishLbaStatus>);
}

void LogicalUnit::Body::FinishLbaStatus(Task* task) {
  constexpr uint8_t kMapped = 0;
  constexpr uint8_t kDeallocated = 1;
  const TaskRequest& request = task->requests[0];
  Answer answer(Room(*task));
  answer.U32(0);
  answer.U32(0);
  uint64_t at_bytes = 0;
  for (uint32_t i = 0; i < request.extents_count && at_bytes < request.length_bytes;) {
    const bool hole = request.extents[i].hole;
    uint64_t bytes = 0;
    for (; i < request.extents_count && request.extents[i].hole == hole; ++i) {
      bytes += request.extents[i].length_bytes;
    }
    bytes = std::min(bytes, request.length_bytes - at_bytes);
    answer.U64(task->command.lba + at_bytes / kLogicalBlockBytes);
    answer.U32(static_cast<uint32_t>(bytes / kLogicalBlockBytes));
    answer.U8(hole ? kDeallocated : kMapped);
    answer.Zeroes(3);
    at_bytes += bytes;
  }
  answer.PatchU32(0, answer.bytes() - 4);
  Deliver(task, answer);
}

}  // namespace ankole::scsi

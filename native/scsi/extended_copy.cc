#include <algorithm>

#include "scsi/body.h"
#include "scsi/inquiry.h"

// EXTENDED COPY with a list identifier of one byte (SPC-4, 6.4): copies within this logical unit,
// so that neither side of them passes the transport.
namespace ankole::scsi {

namespace {

using List = std::span<const std::byte>;
using Refusal = std::optional<Sense>;

// LIST ID USAGE (SPC-4, table 108). Whether a result may be discarded early is left to us.
constexpr uint8_t kUsageReserved = 1;
constexpr uint8_t kUsageNone = 3;

uint8_t ByteAt(List list, size_t at) { return static_cast<uint8_t>(list[at]); }
uint8_t ListIdentifier(List list) { return ByteAt(list, 0); }
uint8_t ListUsage(List list) { return ByteAt(list, 1) >> 3 & 3; }

// Invariant of all that is called after CheckList: what the lengths say is there.
uint32_t TargetBytes(List list) { return LoadBig16(&list[2]); }
uint32_t SegmentBytes(List list) { return LoadBig32(&list[8]); }
uint32_t TargetCount(List list) { return TargetBytes(list) / kCopyTargetBytes; }
uint32_t SegmentCount(List list) { return SegmentBytes(list) / kCopySegmentDescriptorBytes; }
uint32_t TargetAt(uint32_t index) { return kCopyHeaderBytes + index * kCopyTargetBytes; }
uint32_t SegmentAt(List list, uint32_t index) {
  return kCopyHeaderBytes + TargetBytes(list) + index * kCopySegmentDescriptorBytes;
}

List ListOf(const Task& task) { return {task.out[0].data, task.command.parameter_bytes}; }

// Block device to block device (SPC-4, 6.4.6.4). Both sides have the same blocks, so that neither
// DC nor CAT makes a difference.
struct Segment02 {
  uint32_t blocks;
  uint64_t from_lba;
  uint64_t to_lba;
};
Segment02 Load(List list, uint32_t index) {
  const std::byte* at = &list[SegmentAt(list, index)];
  return {LoadBig16(at + 10), LoadBig64(at + 12), LoadBig64(at + 20)};
}

Sense Illegal(SenseCode code, uint32_t byte) {
  return {
      SenseKey::kIllegalRequest, code, {}, FieldPointer{false, static_cast<uint16_t>(byte)}, {}};
}
Sense Aborted(SenseCode code, uint32_t byte) {
  return {SenseKey::kCopyAborted, code, {}, FieldPointer{false, static_cast<uint16_t>(byte)}, {}};
}

// Of its second byte SPC-4 has LU ID TYPE ignored in this descriptor, and NUL obsolete.
Refusal CheckTarget(List list, uint32_t at) {
  if (ByteAt(list, at) != kCopyIdentification) {
    return Illegal(SenseCode::kUnsupportedTargetDescriptor, at);
  }
  return {};
}

Refusal CheckSegment(List list, uint32_t at) {
  if (ByteAt(list, at) != kCopyBlockToBlock) {
    return Illegal(SenseCode::kUnsupportedSegmentDescriptor, at);
  }
  if (LoadBig16(&list[at + 2]) != kCopySegmentDescriptorBytes - 4) {
    return InvalidFieldInParameterList(at + 2);
  }
  if (uint64_t{LoadBig16(&list[at + 10])} * kLogicalBlockBytes > kCopySegmentBytesMax) {
    return InvalidFieldInParameterList(at + 10);
  }
  return {};
}

// What is refused before anything is done (SPC-4, 5.17.7.2). Segments are as long as they should
// be, as CheckSegment sees to.
Refusal CheckList(List list) {
  if (list.size() < kCopyHeaderBytes) return IllegalRequest(SenseCode::kParameterListLengthError);
  const uint8_t usage = ListUsage(list);
  if (usage == kUsageReserved) return InvalidFieldInParameterList(1, 4);
  if (usage == kUsageNone && ListIdentifier(list) != 0) return InvalidFieldInParameterList(0);
  if (LoadBig32(&list[12]) != 0) return Illegal(SenseCode::kInlineDataLengthExceeded, 12);
  const uint64_t bytes = uint64_t{TargetBytes(list)} + SegmentBytes(list);
  if (bytes > list.size() - kCopyHeaderBytes) {
    return IllegalRequest(SenseCode::kParameterListLengthError);
  }
  if (TargetCount(list) > kCopyTargetsMax) return Illegal(SenseCode::kTooManyTargetDescriptors, 2);
  if (TargetBytes(list) % kCopyTargetBytes != 0) return InvalidFieldInParameterList(2);
  for (uint32_t i = 0; i < TargetCount(list); ++i) {
    if (Refusal refused = CheckTarget(list, TargetAt(i))) return refused;
  }
  // The type of one that is cut off by the list's end is known, too.
  const uint32_t end = SegmentAt(list, 0) + SegmentBytes(list);
  for (uint32_t i = 0, at = SegmentAt(list, 0); at < end; ++i, at += kCopySegmentDescriptorBytes) {
    if (i == kCopySegmentsMax) return Illegal(SenseCode::kTooManySegmentDescriptors, 8);
    if (ByteAt(list, at) == kCopyBlockToBlock && end - at < kCopySegmentDescriptorBytes) {
      return InvalidFieldInParameterList(8);
    }
    if (Refusal refused = CheckSegment(list, at)) return refused;
  }
  return {};
}

// The target that a segment names by the index at `index_at`.
Refusal CheckReach(List list, uint32_t index_at, const Identity& identity) {
  const uint32_t index = LoadBig16(&list[index_at]);
  if (index >= TargetCount(list)) return Aborted(SenseCode::kUnreachableCopyTarget, index_at);
  const uint32_t at = TargetAt(index);
  if (!NamesUnit(identity, list.subspan(at + 4).first<kDesignatorFieldBytes>())) {
    return Aborted(SenseCode::kCopyTargetNotReachable, at + 4);
  }
  if ((ByteAt(list, at + 1) & 0x1f) != 0) {
    return Aborted(SenseCode::kIncorrectCopyTargetType, at + 1);
  }
  // With blocks of another length other blocks would be meant.
  if ((LoadBig32(&list[at + 28]) & 0xffffff) != kLogicalBlockBytes) {
    return Aborted(SenseCode::kNone, at + 29);
  }
  return {};
}

// What the segments ask for cannot be done (SPC-4, 5.17.7.3). All are looked at before the first is
// begun, so that none is done in vain.
Refusal CheckSegments(List list, const Identity& identity, uint64_t capacity_blocks) {
  const auto in_range = [&](uint64_t lba, uint32_t blocks) {
    return lba < capacity_blocks && blocks <= capacity_blocks - lba;
  };
  for (uint32_t i = 0; i < SegmentCount(list); ++i) {
    const uint32_t at = SegmentAt(list, i);
    if (Refusal refused = CheckReach(list, at + 4, identity)) return refused;
    if (Refusal refused = CheckReach(list, at + 6, identity)) return refused;
    const Segment02 segment = Load(list, i);
    if (!in_range(segment.from_lba, segment.blocks)) return Aborted(SenseCode::kNone, at + 12);
    if (!in_range(segment.to_lba, segment.blocks)) return Aborted(SenseCode::kNone, at + 20);
  }
  return {};
}

}  // namespace

void LogicalUnit::Body::ExtendedCopy(Task* task) {
  task->wanted_bytes = task->command.parameter_bytes;
  if (task->command.parameter_bytes == 0) return Finish(task);
  if (task->out_bytes < task->command.parameter_bytes) {
    return Refuse(task, IllegalRequest(SenseCode::kParameterListLengthError));
  }
  const List list = ListOf(*task);
  if (const Refusal refused = CheckList(list)) return Refuse(task, *refused);
  if (ListUsage(list) != kUsageNone) {
    CopyResults& copies = task->nexus->copies;
    if (copies.InProgress(ListIdentifier(list))) {
      return Refuse(task, IllegalRequest(SenseCode::kOperationInProgress));
    }
    if (!copies.Begin(ListIdentifier(list), *task)) return End(task, ScsiStatus::kTaskSetFull);
  }
  if (const Refusal refused = CheckSegments(list, identity_, capacity_blocks_)) {
    return Refuse(task, *refused);
  }
  CopyPiece(task);
}

// One piece after the other: the next segment may read what this one has written.
void LogicalUnit::Body::CopyPiece(Task* task) {
  const List list = ListOf(*task);
  while (task->next_segment < SegmentCount(list)) {
    const Segment02 segment = Load(list, task->next_segment);
    const uint64_t left = uint64_t{segment.blocks} * kLogicalBlockBytes - task->next_bytes;
    if (left == 0) {
      ++task->next_segment;
      task->next_bytes = 0;
      continue;
    }
    const uint64_t piece = std::min<uint64_t>(left, kScratchBytesMax);
    // Where both overlap, what is still to be read must not be written before: towards the front
    // from the front, towards the end from the end.
    const uint64_t at = segment.to_lba > segment.from_lba ? left - piece : task->next_bytes;
    Request(task, 0, BlockOperation::kRead, segment.from_lba * kLogicalBlockBytes + at, piece,
            task->scratch[0].data);
    return Submit(task, 1, &Step<&Body::WriteCopied>);
  }
  Finish(task);
}

void LogicalUnit::Body::WriteCopied(Task* task) {
  const Segment02 segment = Load(ListOf(*task), task->next_segment);
  const uint64_t at = task->requests[0].offset_bytes - segment.from_lba * kLogicalBlockBytes;
  Request(task, 0, BlockOperation::kWrite, segment.to_lba * kLogicalBlockBytes + at,
          task->requests[0].length_bytes, task->scratch[0].data);
  Submit(task, 1, &Step<&Body::FinishCopied>);
}

void LogicalUnit::Body::FinishCopied(Task* task) {
  task->next_bytes += task->requests[0].length_bytes;
  task->copied_bytes += static_cast<uint32_t>(task->requests[0].length_bytes);
  CopyPiece(task);
}

}  // namespace ankole::scsi

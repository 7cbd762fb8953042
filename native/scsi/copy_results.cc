#include "scsi/copy_results.h"

#include <algorithm>

#include "base/check.h"

namespace ankole::scsi {

const CopyResult* CopyResults::Find(uint8_t list_identifier) const {
  for (size_t i = 0; i < count_; ++i) {
    if (copies_[i].list_identifier == list_identifier) return &copies_[i];
  }
  return nullptr;
}

bool CopyResults::InProgress(uint8_t list_identifier) const {
  const CopyResult* copy = Find(list_identifier);
  return copy != nullptr && copy->task != nullptr;
}

void CopyResults::Erase(size_t index) {
  std::copy(copies_.begin() + index + 1, copies_.begin() + count_, copies_.begin() + index);
  --count_;
}

bool CopyResults::Begin(uint8_t list_identifier, const Task& task) {
  if (const CopyResult* before = Find(list_identifier)) {
    CHECK(before->task == nullptr);
    Erase(static_cast<size_t>(before - copies_.data()));
  }
  for (size_t i = 0; count_ == copies_.size() && i < count_; ++i) {
    if (copies_[i].task == nullptr) Erase(i);
  }
  if (count_ == copies_.size()) return false;
  copies_[count_++] = {list_identifier, &task, false, 0, 0};
  return true;
}

void CopyResults::End(const Task& task) {
  for (size_t i = 0; i < count_; ++i) {
    CopyResult& copy = copies_[i];
    if (copy.task != &task) continue;
    copy.task = nullptr;
    copy.failed = task.aborted || task.status != ScsiStatus::kGood;
    copy.segments = task.next_segment;
    copy.bytes = task.copied_bytes;
  }
}

std::optional<Sense> BuildCopyStatus(const CopyResults& copies, uint8_t list_identifier,
                                     Answer* to) {
  constexpr uint8_t kInProgress = 0x00;
  constexpr uint8_t kCompleted = 0x01;
  constexpr uint8_t kCompletedWithErrors = 0x02;
  constexpr uint8_t kUnitBytes = 0x00;
  const CopyResult* copy = copies.Find(list_identifier);
  if (copy == nullptr) return InvalidFieldInCdb(2);
  const bool ended = copy->task == nullptr;
  to->U32(8);
  to->U8(!ended ? kInProgress : copy->failed ? kCompletedWithErrors : kCompleted);
  to->U16(static_cast<uint16_t>(ended ? copy->segments : copy->task->next_segment));
  to->U8(kUnitBytes);
  to->U32(ended ? copy->bytes : copy->task->copied_bytes);
  return {};
}

void BuildCopyParameters(Answer* to) {
  constexpr uint8_t kNoListIdentifier = 0x01;  // SNLID
  constexpr uint8_t kBlockExponent = 9;
  static_assert(1u << kBlockExponent == kLogicalBlockBytes);
  constexpr uint8_t kTypes[] = {kCopyBlockToBlock, kCopyIdentification};
  to->U32(0);
  to->U8(kNoListIdentifier);
  to->Zeroes(3);
  to->U16(kCopyTargetsMax);
  to->U16(kCopySegmentsMax);
  to->U32(kCopyDescriptorBytesMax);
  to->U32(kCopySegmentBytesMax);
  to->Zeroes(12);  // no inline data, no held data, no stream devices
  to->Zeroes(2);
  to->U16(kCopiesMax);  // in total, and at the same time with a list identifier
  to->U8(kCopiesMax);
  to->U8(kBlockExponent);  // granularity of segments
  to->Zeroes(2);           // of inline and held data
  to->Zeroes(3);
  to->U8(sizeof(kTypes));
  to->Bytes(kTypes, sizeof(kTypes));
  to->PatchU32(0, to->bytes() - 4);
}

}  // namespace ankole::scsi

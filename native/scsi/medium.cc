#include <algorithm>
#include <cstring>

#include "scsi/body.h"

// Commands that move data of the medium, or compare with it.
namespace ankole::scsi {

namespace {

uint64_t OffsetOf(const Command& command) { return command.lba * kLogicalBlockBytes; }
uint64_t LengthOf(const Command& command) { return command.blocks * kLogicalBlockBytes; }

// What of a command's data has come: whole blocks only, where the initiator announced less.
uint64_t CameBytes(const Task& task) {
  return std::min(LengthOf(task.command), RoundDown(task.out_bytes, kLogicalBlockBytes));
}

// Data-Out from there on; all that is in the same segment.
std::byte* OutAt(const Task& task, uint64_t at_bytes) {
  return task.out[at_bytes / kDataBytesMax].data + at_bytes % kDataBytesMax;
}

// The next step of a command that goes through its data by the scratch memory.
uint64_t PieceBytes(const Task& task, uint64_t bytes) {
  return std::min<uint64_t>(bytes - task.next_bytes, kScratchBytesMax);
}
static_assert(kScratchBytesMax == kDataBytesMax, "a piece lies in one segment");

// Where they differ first; `bytes` if nowhere.
uint64_t FirstDifference(const std::byte* a, const std::byte* b, uint64_t bytes) {
  if (std::memcmp(a, b, bytes) == 0) return bytes;
  return static_cast<uint64_t>(std::mismatch(a, a + bytes, b).first - a);
}

}  // namespace

// --- READ ----------------------------------------------------------------------------------------

void LogicalUnit::Body::Read(Task* task) {
  task->wanted_bytes = static_cast<uint32_t>(LengthOf(task->command));
  if (task->wanted_bytes == 0 || task->in_room_bytes == 0) return Finish(task);
  if (!task->command.force_unit_access) return SubmitReads(task);
  // What is read is to be on the medium (SBC-3, 5.9).
  Request(task, 0, BlockOperation::kFlush, 0, 0);
  Submit(task, 1, &Step<&Body::SubmitReads>);
}

void LogicalUnit::Body::SubmitReads(Task* task) {
  const uint64_t bytes =
      std::min<uint64_t>(task->wanted_bytes, RoundUp(task->in_room_bytes, kLogicalBlockBytes));
  size_t count = 0;
  for (uint64_t at = 0; at < bytes; at += kDataBytesMax, ++count) {
    Request(task, count, BlockOperation::kRead, OffsetOf(task->command) + at,
            std::min<uint64_t>(bytes - at, kDataBytesMax), task->in[count].data);
  }
  Submit(task, count, &Step<&Body::FinishRead>);
}

void LogicalUnit::Body::FinishRead(Task* task) {
  task->in_bytes = std::min(task->wanted_bytes, task->in_room_bytes);
  Finish(task);
}

// --- WRITE, WRITE AND VERIFY ---------------------------------------------------------------------

void LogicalUnit::Body::Write(Task* task) {
  const bool verified = task->command.kind == Kind::kWriteAndVerify;
  task->wanted_bytes = static_cast<uint32_t>(LengthOf(task->command));
  const uint64_t bytes = CameBytes(*task);
  if (bytes == 0) return Finish(task);
  size_t count = 0;
  for (uint64_t at = 0; at < bytes; at += kDataBytesMax, ++count) {
    TaskRequest* request =
        Request(task, count, BlockOperation::kWrite, OffsetOf(task->command) + at,
                std::min<uint64_t>(bytes - at, kDataBytesMax), task->out[count].data);
    // What is verified is what is on the medium (SBC-3, 5.44).
    request->force_unit_access = task->command.force_unit_access || verified;
  }
  Submit(task, count, verified ? &Step<&Body::VerifyPiece> : nullptr);
}

// Another write between writing and comparing must not make it a miscompare.
void LogicalUnit::Body::WriteAndVerify(Task* task) {
  if (CameBytes(*task) == 0) return Write(task);
  Hold(task, &Step<&Body::Write>);
}

// --- VERIFY --------------------------------------------------------------------------------------

void LogicalUnit::Body::Verify(Task* task) {
  const Command& command = task->command;
  const bool compares = command.byte_check != ByteCheck::kMedium;
  if (command.blocks == 0) return Finish(task);
  if (compares) task->wanted_bytes = NeedsOf(command).out_bytes;
  if (command.byte_check == ByteCheck::kRepeated && task->out_bytes < kLogicalBlockBytes) {
    return Refuse(task, IllegalRequest(SenseCode::kInvalidFieldInInformationUnit));
  }
  // What is verified is what is on the medium (SBC-3, 5.36).
  Request(task, 0, BlockOperation::kFlush, 0, 0);
  Submit(task, 1, &Step<&Body::VerifyPiece>);
}

void LogicalUnit::Body::VerifyPiece(Task* task) {
  const Command& command = task->command;
  const bool data_came =
      command.kind == Kind::kWriteAndVerify || command.byte_check == ByteCheck::kCompare;
  const uint64_t bytes = data_came ? CameBytes(*task) : LengthOf(command);
  if (task->next_bytes == bytes) return Finish(task);
  Request(task, 0, BlockOperation::kRead, OffsetOf(command) + task->next_bytes,
          PieceBytes(*task, bytes), task->scratch[0].data);
  Submit(task, 1, &Step<&Body::ComparePiece>);
}

void LogicalUnit::Body::ComparePiece(Task* task) {
  const uint64_t bytes = task->requests[0].length_bytes;
  const std::byte* found = task->scratch[0].data;
  if (task->command.byte_check == ByteCheck::kCompare) {
    const uint64_t same = FirstDifference(found, OutAt(*task, task->next_bytes), bytes);
    if (same < bytes) return Miscompare(task, task->next_bytes + same);
  } else if (task->command.byte_check == ByteCheck::kRepeated) {
    for (uint64_t at = 0; at < bytes; at += kLogicalBlockBytes) {
      const uint64_t same = FirstDifference(found + at, task->out[0].data, kLogicalBlockBytes);
      if (same < kLogicalBlockBytes) return Miscompare(task, task->next_bytes + at + same);
    }
  }
  task->next_bytes += bytes;
  VerifyPiece(task);
}

void LogicalUnit::Body::Miscompare(Task* task, uint64_t offset_bytes) {
  Sense sense = {SenseKey::kMiscompare, SenseCode::kMiscompareDuringVerify, {}, {}, {}};
  sense.information = offset_bytes;
  Refuse(task, sense);
}

// --- COMPARE AND WRITE ---------------------------------------------------------------------------

// Compare and write are one step for everybody else, as the range is held in between.
void LogicalUnit::Body::CompareAndWrite(Task* task) {
  task->wanted_bytes = NeedsOf(task->command).out_bytes;
  // With more data than the CDB says, the halves are not where they were meant to be; and half of a
  // comparison is none.
  if (task->announced_out_bytes > task->wanted_bytes) return Refuse(task, InvalidFieldInCdb(13));
  if (task->out_bytes < task->wanted_bytes) {
    return Refuse(task, IllegalRequest(SenseCode::kInvalidFieldInInformationUnit));
  }
  if (task->command.blocks == 0) return Finish(task);
  Hold(task, &Step<&Body::ReadToCompare>);
}

void LogicalUnit::Body::ReadToCompare(Task* task) {
  Request(task, 0, BlockOperation::kRead, OffsetOf(task->command), LengthOf(task->command),
          task->scratch[0].data);
  Submit(task, 1, &Step<&Body::WriteIfEqual>);
}

void LogicalUnit::Body::WriteIfEqual(Task* task) {
  const uint64_t bytes = LengthOf(task->command);
  const uint64_t same = FirstDifference(task->scratch[0].data, task->out[0].data, bytes);
  if (same < bytes) return Miscompare(task, same);
  Request(task, 0, BlockOperation::kWrite, OffsetOf(task->command), bytes,
          task->out[0].data + bytes)
      ->force_unit_access = task->command.force_unit_access;
  Submit(task, 1, nullptr);
}

// --- ORWRITE -------------------------------------------------------------------------------------

void LogicalUnit::Body::OrWrite(Task* task) {
  task->wanted_bytes = static_cast<uint32_t>(LengthOf(task->command));
  if (CameBytes(*task) == 0) return Finish(task);
  Hold(task, &Step<&Body::OrPiece>);
}

void LogicalUnit::Body::OrPiece(Task* task) {
  const uint64_t bytes = CameBytes(*task);
  if (task->next_bytes == bytes) return Finish(task);
  Request(task, 0, BlockOperation::kRead, OffsetOf(task->command) + task->next_bytes,
          PieceBytes(*task, bytes), task->scratch[0].data);
  Submit(task, 1, &Step<&Body::WriteMerged>);
}

void LogicalUnit::Body::WriteMerged(Task* task) {
  const uint64_t bytes = task->requests[0].length_bytes;
  std::byte* merged = task->scratch[0].data;
  const std::byte* given = OutAt(*task, task->next_bytes);
  for (uint64_t i = 0; i < bytes; ++i) merged[i] |= given[i];
  Request(task, 0, BlockOperation::kWrite, OffsetOf(task->command) + task->next_bytes, bytes,
          merged)
      ->force_unit_access = task->command.force_unit_access;
  task->next_bytes += bytes;
  Submit(task, 1, &Step<&Body::OrPiece>);
}

}  // namespace ankole::scsi

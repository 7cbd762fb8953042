#include "scsi/command.h"

#include <algorithm>

#include "base/block_device.h"
#include "base/bytes.h"
#include "scsi/limits.h"

namespace ankole::scsi {

namespace {

using Refusal = std::optional<Sense>;

// Where the fields lie that CDBs of one length share (SPC-4, 4.2.5).
struct Layout {
  uint16_t address_byte;
  uint16_t length_byte;
};
Layout LayoutOf(uint8_t cdb_bytes) {
  switch (cdb_bytes) {
    case 6:
      return {1, 4};
    case 10:
      return {2, 7};
    case 12:
      return {2, 6};
    default:
      return {2, 10};
  }
}

uint32_t Length(const Cdb& cdb, uint8_t cdb_bytes) {
  switch (cdb_bytes) {
    case 6:
      return cdb[4];
    case 10:
      return LoadBig16(&cdb[7]);
    case 12:
      return LoadBig32(&cdb[6]);
    default:
      return LoadBig32(&cdb[10]);
  }
}

uint64_t Address(const Cdb& cdb, uint8_t cdb_bytes) {
  switch (cdb_bytes) {
    case 6:
      return LoadBig32(&cdb[0]) & 0x1fffff;
    case 10:
    case 12:
      return LoadBig32(&cdb[2]);
    default:
      return LoadBig64(&cdb[2]);
  }
}

// A block that does not exist is out of range also where none is to be moved.
Refusal CheckRange(const Command& command, uint64_t capacity_blocks) {
  if (command.lba < capacity_blocks && command.blocks <= capacity_blocks - command.lba) return {};
  return IllegalRequest(SenseCode::kBlockAddressOutOfRange);
}

Refusal DecodeExtent(const Cdb& cdb, uint64_t capacity_blocks, uint64_t blocks_max, Command* to) {
  const Layout layout = LayoutOf(to->cdb_bytes);
  to->lba = Address(cdb, to->cdb_bytes);
  to->blocks = Length(cdb, to->cdb_bytes);
  if (to->blocks > blocks_max) return InvalidFieldInCdb(layout.length_byte);
  return CheckRange(*to, capacity_blocks);
}

// READ, WRITE and their kin: RDPROTECT and the like, FUA, and BYTCHK where there is one. There is
// no protection information here, and DPO is a hint.
Refusal DecodeMedium(const Cdb& cdb, uint64_t capacity_blocks, Command* to) {
  if (to->cdb_bytes == 6) {
    to->lba = Address(cdb, 6);
    to->blocks = cdb[4] == 0 ? 256 : cdb[4];
    return CheckRange(*to, capacity_blocks);
  }
  if ((cdb[1] & 0xe0) != 0) return InvalidFieldInCdb(1, 7);
  uint64_t blocks_max = kTransferBlocksMax;
  if (to->kind == Kind::kVerify || to->kind == Kind::kWriteAndVerify) {
    if ((cdb[1] & 0x06) == 0x04) return InvalidFieldInCdb(1, 2);
    to->byte_check = static_cast<ByteCheck>(cdb[1] >> 1 & 3);
    // One block of Data-Out cannot be what is written to many.
    if (to->kind == Kind::kWriteAndVerify && to->byte_check == ByteCheck::kRepeated) {
      return InvalidFieldInCdb(1, 2);
    }
    const bool moves = to->kind == Kind::kWriteAndVerify || to->byte_check == ByteCheck::kCompare;
    if (!moves) blocks_max = UINT32_MAX;
  } else {
    to->force_unit_access = (cdb[1] & 0x08) != 0;
  }
  return DecodeExtent(cdb, capacity_blocks, blocks_max, to);
}

Refusal DecodeCompareAndWrite(const Cdb& cdb, uint64_t capacity_blocks, Command* to) {
  if ((cdb[1] & 0xe0) != 0) return InvalidFieldInCdb(1, 7);
  to->force_unit_access = (cdb[1] & 0x08) != 0;
  to->lba = LoadBig64(&cdb[2]);
  to->blocks = cdb[13];
  static_assert(kCompareBlocksMax == UINT8_MAX);
  return CheckRange(*to, capacity_blocks);
}

Refusal DecodeWriteSame(const Cdb& cdb, uint64_t capacity_blocks, Command* to) {
  if ((cdb[1] & 0xe0) != 0) return InvalidFieldInCdb(1, 7);
  // Nothing is anchored here (VPD page B2h: ANC_SUP = 0); PBDATA and LBDATA are obsolete, and would
  // change what is written.
  if ((cdb[1] & 0x10) != 0) return InvalidFieldInCdb(1, 4);
  if ((cdb[1] & 0x04) != 0) return InvalidFieldInCdb(1, 2);
  if ((cdb[1] & 0x02) != 0) return InvalidFieldInCdb(1, 1);
  to->unmap = (cdb[1] & 0x08) != 0;
  to->no_data_out = to->cdb_bytes == 16 && (cdb[1] & 0x01) != 0;
  if (Refusal refused = DecodeExtent(cdb, capacity_blocks, kWriteSameBlocksMax, to)) return refused;
  // VPD page B0h: WSNZ = 1, 0 does not mean «to the end».
  if (to->blocks == 0) return InvalidFieldInCdb(LayoutOf(to->cdb_bytes).length_byte);
  return {};
}

// 0 blocks: to the end of the medium (SBC-3, 5.13 and 5.24), which needs no number here.
Refusal DecodeCacheRange(const Cdb& cdb, uint64_t capacity_blocks, Command* to) {
  return DecodeExtent(cdb, capacity_blocks, UINT32_MAX, to);
}

Refusal DecodeReserve(const Cdb& cdb, Command* to) {
  // Neither extents nor third parties (SPC-2, 7.21).
  const uint8_t refused = cdb[1] & (to->cdb_bytes == 6 ? 0x11 : 0x13);
  if ((refused & 0x10) != 0) return InvalidFieldInCdb(1, 4);
  if (refused != 0) return InvalidFieldInCdb(1, (refused & 2) != 0 ? 1 : 0);
  return {};
}

Refusal DecodeModeSense(const Cdb& cdb, Command* to) {
  to->no_block_descriptors = (cdb[1] & 0x08) != 0;
  to->long_addresses = to->cdb_bytes == 10 && (cdb[1] & 0x10) != 0;
  to->page_control = cdb[2] >> 6;
  to->page = cdb[2] & 0x3f;
  to->subpage = cdb[3];
  to->allocation_bytes = Length(cdb, to->cdb_bytes);
  return {};
}

Refusal DecodeLogSense(const Cdb& cdb, Command* to) {
  // Nothing is saved (SP), and PPC is of SPC-3.
  if ((cdb[1] & 0x01) != 0) return InvalidFieldInCdb(1, 0);
  if ((cdb[1] & 0x02) != 0) return InvalidFieldInCdb(1, 1);
  // Current cumulative values: there are no thresholds to be asked for here.
  if (cdb[2] >> 6 != 1) return InvalidFieldInCdb(2, 7);
  to->page = cdb[2] & 0x3f;
  to->subpage = cdb[3];
  if (LoadBig16(&cdb[5]) != 0) return InvalidFieldInCdb(5);
  to->allocation_bytes = LoadBig16(&cdb[7]);
  return {};
}

Refusal DecodeModeSelect(const Cdb& cdb, Command* to) {
  // PF: pages are in the format of the standard, of which there is no other here; SP: nothing is
  // saved.
  if ((cdb[1] & 0x10) == 0) return InvalidFieldInCdb(1, 4);
  if ((cdb[1] & 0x01) != 0) return InvalidFieldInCdb(1, 0);
  to->parameter_bytes = Length(cdb, to->cdb_bytes);
  if (to->parameter_bytes > kModeListBytesMax) {
    return IllegalRequest(SenseCode::kParameterListLengthError);
  }
  return {};
}

Refusal DecodeStartStop(const Cdb& cdb, Command* to) {
  const uint8_t power_condition = cdb[4] >> 4;
  // START_VALID, and what an initiator without a wish may set: nothing else is known here.
  if (power_condition != 0) return InvalidFieldInCdb(4, 7);
  if ((cdb[3] & 0x0f) != 0) return InvalidFieldInCdb(3, 3);
  // LOEJ: there is no medium to load or to eject.
  if ((cdb[4] & 0x02) != 0) return InvalidFieldInCdb(4, 1);
  to->start = (cdb[4] & 0x01) != 0;
  to->flush_first = !to->start && (cdb[4] & 0x04) == 0;
  to->access = to->start ? Access::kAlways : Access::kWrites;
  return {};
}

Refusal DecodePersistentOut(const Cdb& cdb, Command* to) {
  to->scope = cdb[2] >> 4;
  to->type = cdb[2] & 0x0f;
  to->parameter_bytes = LoadBig32(&cdb[5]);
  // Without SPEC_I_PT and REGISTER AND MOVE the list has one length (SPC-4, 6.16.3).
  if (to->parameter_bytes != 24) return IllegalRequest(SenseCode::kParameterListLengthError);
  return {};
}

Refusal DecodeExtendedCopy(const Cdb& cdb, Command* to) {
  to->parameter_bytes = LoadBig32(&cdb[10]);
  if (to->parameter_bytes > kCopyListBytesMax) {
    return IllegalRequest(SenseCode::kParameterListLengthError);
  }
  return {};
}

Refusal DecodeReportOperationCodes(const Cdb& cdb, Command* to) {
  to->timeouts = (cdb[2] & 0x80) != 0;
  to->select = cdb[2] & 0x07;
  if (to->select > 3) return InvalidFieldInCdb(2, 2);
  to->asked_operation = cdb[3];
  to->asked_service_action = LoadBig16(&cdb[4]);
  to->allocation_bytes = LoadBig32(&cdb[6]);
  return {};
}

Refusal DecodeFields(const Cdb& cdb, uint64_t capacity_blocks, Command* to) {
  switch (to->kind) {
    case Kind::kTestUnitReady:
    case Kind::kReadCapacity10:
      return {};
    case Kind::kRequestSense:
      to->descriptor = (cdb[1] & 0x01) != 0;
      to->allocation_bytes = cdb[4];
      return {};
    case Kind::kInquiry:
      to->vital_data = (cdb[1] & 0x01) != 0;
      to->page = cdb[2];
      if ((cdb[1] & 0x02) != 0) return InvalidFieldInCdb(1, 1);
      if (!to->vital_data && to->page != 0) return InvalidFieldInCdb(2);
      to->allocation_bytes = LoadBig16(&cdb[3]);
      return {};
    case Kind::kReportLuns:
      to->select = cdb[2];
      if (to->select > 2) return InvalidFieldInCdb(2);
      to->allocation_bytes = LoadBig32(&cdb[6]);
      return {};
    case Kind::kModeSense:
      return DecodeModeSense(cdb, to);
    case Kind::kModeSelect:
      return DecodeModeSelect(cdb, to);
    case Kind::kLogSense:
      return DecodeLogSense(cdb, to);
    case Kind::kStartStopUnit:
      return DecodeStartStop(cdb, to);
    case Kind::kPreventAllow:
      // Only PREVENT would keep somebody from something, were there a medium to remove.
      if ((cdb[4] & 0x03) == 0) to->access = Access::kAlways;
      return {};
    case Kind::kReserve:
    case Kind::kRelease:
      return DecodeReserve(cdb, to);
    case Kind::kPersistentIn:
      to->allocation_bytes = LoadBig16(&cdb[7]);
      return {};
    case Kind::kPersistentOut:
      return DecodePersistentOut(cdb, to);
    case Kind::kReportOperationCodes:
      return DecodeReportOperationCodes(cdb, to);
    case Kind::kReportTaskManagement:
      to->extended = (cdb[2] & 0x80) != 0;
      to->allocation_bytes = LoadBig32(&cdb[6]);
      return {};
    case Kind::kReadCapacity16:
      to->allocation_bytes = LoadBig32(&cdb[10]);
      return {};
    case Kind::kReadDefectData:
      to->page = cdb[to->cdb_bytes == 10 ? 2 : 1] & 0x1f;
      to->allocation_bytes = Length(cdb, to->cdb_bytes);
      return {};
    case Kind::kGetLbaStatus:
      to->lba = LoadBig64(&cdb[2]);
      to->allocation_bytes = LoadBig32(&cdb[10]);
      return CheckRange(*to, capacity_blocks);
    case Kind::kRead:
    case Kind::kWrite:
    case Kind::kWriteAndVerify:
    case Kind::kVerify:
    case Kind::kOrWrite:
      return DecodeMedium(cdb, capacity_blocks, to);
    case Kind::kCompareAndWrite:
      return DecodeCompareAndWrite(cdb, capacity_blocks, to);
    case Kind::kPreFetch:
    case Kind::kSynchronizeCache:
      return DecodeCacheRange(cdb, capacity_blocks, to);
    case Kind::kUnmap:
      if ((cdb[1] & 0x01) != 0) return InvalidFieldInCdb(1, 0);
      to->parameter_bytes = LoadBig16(&cdb[7]);
      return {};
    case Kind::kWriteSame:
      return DecodeWriteSame(cdb, capacity_blocks, to);
    case Kind::kExtendedCopy:
      return DecodeExtendedCopy(cdb, to);
    case Kind::kCopyStatus:
      to->list_identifier = cdb[2];
      to->allocation_bytes = LoadBig32(&cdb[10]);
      return {};
    case Kind::kCopyParameters:
      to->allocation_bytes = LoadBig32(&cdb[10]);
      return {};
  }
  return IllegalRequest(SenseCode::kInvalidOperationCode);
}

}  // namespace

std::optional<Sense> Decode(const Cdb& cdb, uint64_t capacity_blocks, Command* to) {
  *to = {};
  const std::span<const Supported> candidates = SupportedCommands(cdb[0]);
  for (const Supported& supported : candidates) {
    if (supported.has_service_action && supported.service_action != (cdb[1] & 0x1f)) continue;
    to->kind = supported.kind;
    to->access = supported.access;
    to->operation = supported.operation;
    to->service_action = supported.service_action;
    to->cdb_bytes = supported.cdb_bytes;
    // NACA (SAM-5, 5.2): no ACA is supported.
    const uint8_t control = supported.cdb_bytes - 1;
    if ((cdb[control] & 0x04) != 0) return InvalidFieldInCdb(control, 2);
    return DecodeFields(cdb, capacity_blocks, to);
  }
  if (!candidates.empty()) return InvalidFieldInCdb(1, 4);
  return IllegalRequest(SenseCode::kInvalidOperationCode);
}

Needs NeedsOf(const Command& command) {
  const auto data_bytes = [&](uint64_t blocks) {
    return static_cast<uint32_t>(blocks * kLogicalBlockBytes);
  };
  const auto scratch_bytes = [&] {
    return static_cast<uint32_t>(
        std::min<uint64_t>(command.blocks * kLogicalBlockBytes, kScratchBytesMax));
  };
  Needs needs;
  switch (command.kind) {
    case Kind::kRead:
      needs.in_bytes = data_bytes(command.blocks);
      break;
    case Kind::kWrite:
      needs.out_bytes = data_bytes(command.blocks);
      break;
    case Kind::kWriteAndVerify:
    case Kind::kOrWrite:
      needs.out_bytes = data_bytes(command.blocks);
      needs.scratch_bytes = scratch_bytes();
      break;
    case Kind::kVerify:
      if (command.byte_check == ByteCheck::kCompare) needs.out_bytes = data_bytes(command.blocks);
      if (command.byte_check == ByteCheck::kRepeated && command.blocks > 0) {
        needs.out_bytes = kLogicalBlockBytes;
      }
      needs.scratch_bytes = scratch_bytes();
      break;
    case Kind::kCompareAndWrite:
      needs.out_bytes = data_bytes(2 * command.blocks);
      needs.scratch_bytes = data_bytes(command.blocks);
      break;
    case Kind::kWriteSame:
      if (command.no_data_out) break;
      needs.out_bytes = kLogicalBlockBytes;
      needs.scratch_bytes = std::min(scratch_bytes(), kPatternBytes);
      break;
    case Kind::kExtendedCopy:
      needs.out_bytes = command.parameter_bytes;
      // How much is to be copied is said in the list only.
      if (command.parameter_bytes > 0) needs.scratch_bytes = kScratchBytesMax;
      break;
    case Kind::kGetLbaStatus:
      needs.in_bytes = std::min(command.allocation_bytes, kResponseBytesMax);
      needs.scratch_bytes = kStatusDescriptorsMax * sizeof(BlockExtent);
      break;
    case Kind::kReadCapacity10:
      needs.in_bytes = 8;
      break;
    default:
      needs.out_bytes = command.parameter_bytes;
      needs.in_bytes = std::min(command.allocation_bytes, kResponseBytesMax);
      break;
  }
  return needs;
}

}  // namespace ankole::scsi

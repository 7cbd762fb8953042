#include "scsi/report.h"

#include <bit>

#include "scsi/limits.h"

namespace ankole::scsi {

namespace {

constexpr uint8_t kTimeoutsDescriptorBytes = 12;
constexpr uint8_t kCommandTimeouts = 0x02;     // CTDP in the list of all
constexpr uint8_t kServiceActionValid = 0x01;  // SERVACTV
constexpr uint8_t kOneCommandTimeouts = 0x80;  // CTDP in the answer for one
constexpr uint8_t kNotSupported = 0x01;
constexpr uint8_t kAsStandard = 0x03;

// SPC-4, 6.35.4: no time is given. How long a command takes depends on the replicas.
void AppendTimeouts(Answer* to) {
  to->U16(kTimeoutsDescriptorBytes - 2);
  to->Zeroes(kTimeoutsDescriptorBytes - 2);
}

void BuildAll(bool timeouts, Answer* to) {
  to->U32(0);
  for (const Supported& supported : SupportedCommands()) {
    to->U8(supported.operation);
    to->U8(0);
    to->U16(supported.service_action);
    to->U8(0);
    to->U8((timeouts ? kCommandTimeouts : 0) |
           (supported.has_service_action ? kServiceActionValid : 0));
    to->U16(supported.cdb_bytes);
    if (timeouts) AppendTimeouts(to);
  }
  to->PatchU32(0, to->bytes() - 4);
}

}  // namespace

void BuildReportLuns(const Command& command, Answer* to) {
  // Selected are the well-known logical units, of which there are none, or LUN 0 too.
  constexpr uint8_t kWellKnownOnly = 1;
  const bool listed = command.select != kWellKnownOnly;
  to->U32(listed ? 8 : 0);
  to->U32(0);
  if (listed) to->U64(0);
}

std::optional<Sense> BuildReportOperationCodes(const Command& command, Answer* to) {
  constexpr uint8_t kReportAll = 0;
  constexpr uint8_t kWithoutServiceAction = 1;
  constexpr uint8_t kWithServiceAction = 2;
  if (command.select == kReportAll) {
    BuildAll(command.timeouts, to);
    return {};
  }
  const std::span<const Supported> commands = SupportedCommands(command.asked_operation);
  const bool has_service_actions = !commands.empty() && commands[0].has_service_action;
  if (command.select == kWithoutServiceAction && has_service_actions) {
    return InvalidFieldInCdb(2, 2);
  }
  if (command.select == kWithServiceAction && !commands.empty() && !has_service_actions) {
    return InvalidFieldInCdb(2, 2);
  }
  const Supported* found = nullptr;
  for (const Supported& supported : commands) {
    const uint16_t asked =
        command.select == kWithoutServiceAction ? 0 : command.asked_service_action;
    if (supported.service_action == asked) found = &supported;
  }
  const bool timeouts = command.timeouts && found != nullptr;
  to->U8(0);
  to->U8((timeouts ? kOneCommandTimeouts : 0) | (found != nullptr ? kAsStandard : kNotSupported));
  to->U16(found != nullptr ? found->cdb_bytes : 0);
  if (found != nullptr) to->Bytes(found->usage.data(), found->cdb_bytes);
  if (timeouts) AppendTimeouts(to);
  return {};
}

void BuildReportTaskManagement(const Command& command, Answer* to) {
  // ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LOGICAL UNIT RESET, and iSCSI's target resets.
  constexpr uint8_t kAbortTask = 0x80;
  constexpr uint8_t kAbortTaskSet = 0x40;
  constexpr uint8_t kClearTaskSet = 0x10;
  constexpr uint8_t kLogicalUnitReset = 0x08;
  constexpr uint8_t kTargetReset = 0x02;
  to->U8(kAbortTask | kAbortTaskSet | kClearTaskSet | kLogicalUnitReset | kTargetReset);
  to->U8(0);
  to->U8(0);
  to->U8(command.extended ? 12 : 0);
  if (command.extended) to->Zeroes(12);  // no timeouts are given
}

void BuildReadCapacity10(uint64_t capacity_blocks, Answer* to) {
  to->U32(static_cast<uint32_t>(std::min<uint64_t>(capacity_blocks - 1, UINT32_MAX)));
  to->U32(kLogicalBlockBytes);
}

void BuildReadCapacity16(uint64_t capacity_blocks, uint32_t physical_block_bytes, Answer* to) {
  to->U64(capacity_blocks - 1);
  to->U32(kLogicalBlockBytes);
  to->U8(0);  // no protection information
  to->U8(static_cast<uint8_t>(std::countr_zero(physical_block_bytes / kLogicalBlockBytes)));
  to->U16(0xc000);  // LBPME, LBPRZ; the first aligned block is 0
  to->Zeroes(16);
}

void BuildReadDefectData(const Command& command, Answer* to) {
  to->U8(0);
  to->U8(command.page);
  to->U16(0);
  if (command.cdb_bytes == 12) to->U32(0);
}

}  // namespace ankole::scsi

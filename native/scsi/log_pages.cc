#include "scsi/log_pages.h"

namespace ankole::scsi {

namespace {

constexpr uint8_t kSupportedLogPages = 0x00;
constexpr uint8_t kProvisioningLogPage = 0x0c;
constexpr uint16_t kAvailableResource = 0x0001;
constexpr uint16_t kUsedResource = 0x0002;
// What is not for this logical unit alone: the file system is everybody's.
constexpr uint8_t kScopeShared = 0x02;

void AppendResource(uint16_t code, uint64_t bytes, Answer* to) {
  to->U16(code);
  to->U8(0x03);  // a binary list; DU = 0: the target updates it
  to->U8(8);
  to->U32(ThresholdSets(bytes));
  to->U8(kScopeShared);
  to->Zeroes(3);
}

}  // namespace

std::optional<Sense> BuildLogSense(const Command& command, const Resources& resources, Answer* to) {
  if (command.subpage != 0) return InvalidFieldInCdb(3);
  if (command.page != kSupportedLogPages && command.page != kProvisioningLogPage) {
    return InvalidFieldInCdb(2, 5);
  }
  to->U8(command.page);
  to->U8(0);
  to->U16(0);
  if (command.page == kSupportedLogPages) {
    to->U8(kSupportedLogPages);
    to->U8(kProvisioningLogPage);
  } else if (resources.known()) {
    AppendResource(kAvailableResource, resources.free_bytes, to);
    AppendResource(kUsedResource, resources.total_bytes - resources.free_bytes, to);
  }
  to->PatchU16(2, static_cast<uint16_t>(to->bytes() - 4));
  return {};
}

}  // namespace ankole::scsi

#include "scsi/mode.h"

#include "scsi/limits.h"

namespace ankole::scsi {

namespace {

constexpr uint8_t kRecoveryPage = 0x01;
constexpr uint8_t kCachingPage = 0x08;
constexpr uint8_t kControlPage = 0x0a;
constexpr uint8_t kProvisioningPage = 0x1c;
constexpr uint8_t kProvisioningSubpage = 0x02;
constexpr uint8_t kSubpageFormatBit = 0x40;  // SPF, byte 0 of a page
constexpr uint8_t kAllPages = 0x3f;
constexpr uint8_t kAllSubpages = 0xff;
constexpr uint8_t kDescriptorSenseBit = 0x04;       // D_SENSE, byte 2 of the control page
constexpr uint8_t kSoftwareWriteProtectBit = 0x08;  // SWP, byte 4 of the control page

enum class PageControl : uint8_t { kCurrent, kChangeable, kDefault, kSaved };

using RecoveryPage = std::array<uint8_t, 12>;
using ProvisioningPage = std::array<uint8_t, 24>;
using CachingPage = std::array<uint8_t, 20>;
using ControlPage = std::array<uint8_t, 12>;

CachingPage Caching(PageControl control) {
  CachingPage page = {kCachingPage, sizeof(CachingPage) - 2};
  if (control != PageControl::kChangeable) page[2] = 0x04;  // WCE
  return page;
}

// AWRE, ARRE: what a disk damaged is written anew. LBPERE: thresholds are told of.
RecoveryPage Recovery(PageControl control) {
  RecoveryPage page = {kRecoveryPage, sizeof(RecoveryPage) - 2};
  if (control == PageControl::kChangeable) return page;
  page[2] = 0xc0;
  page[7] = 0x80;
  return page;
}

// One threshold descriptor: what is free, as it becomes less. Every initiator is told (SITUA = 0).
// Whoever runs the cluster sets it, and nobody by MODE SELECT.
ProvisioningPage Provisioning(PageControl control, const Resources& resources) {
  ProvisioningPage page = {kProvisioningPage | kSubpageFormatBit, kProvisioningSubpage, 0,
                           sizeof(ProvisioningPage) - 4};
  if (control == PageControl::kChangeable) return page;
  page[16] = resources.known() ? 0x80 : 0;  // ENABLED; a soft threshold, armed by a decrease
  page[17] = 0x01;                          // of the available resource, as the log page has it
  const uint32_t sets = ThresholdSets(resources.soft_bytes);
  for (size_t i = 0; i < 4; ++i) page[20 + i] = static_cast<uint8_t>(sets >> (24 - 8 * i));
  return page;
}

// Which pages a MODE SENSE is for.
struct Wanted {
  bool recovery;
  bool caching;
  bool control;
  bool provisioning;
};
std::optional<Sense> FindPages(const Command& command, Wanted* to) {
  const bool all = command.page == kAllPages;
  const bool any_subpage = command.subpage == kAllSubpages;
  const bool plain = command.subpage == 0 || any_subpage;
  to->recovery = plain && (all || command.page == kRecoveryPage);
  to->caching = plain && (all || command.page == kCachingPage);
  to->control = plain && (all || command.page == kControlPage);
  const bool has_it = any_subpage || (!all && command.subpage == kProvisioningSubpage);
  to->provisioning = has_it && (all || command.page == kProvisioningPage);
  if (to->recovery || to->caching || to->control || to->provisioning) return {};
  const bool known = all || command.page == kRecoveryPage || command.page == kCachingPage ||
                     command.page == kControlPage;
  if (known || command.page == kProvisioningPage) return InvalidFieldInCdb(3);
  return InvalidFieldInCdb(2, 5);
}

template <typename Page>
void Append(bool wanted, const Page& page, Answer* to) {
  if (wanted) to->Bytes(page.data(), page.size());
}

ControlPage Control(PageControl control, const ModeState& current) {
  ControlPage page = {kControlPage, sizeof(ControlPage) - 2};
  ModeState state = current;
  if (control == PageControl::kChangeable) state = {true, true};
  if (control == PageControl::kDefault) state = {};
  page[2] = state.descriptor_sense ? kDescriptorSenseBit : 0;
  page[4] = state.software_write_protect ? kSoftwareWriteProtectBit : 0;
  if (control != PageControl::kChangeable) {
    // One task set for all (TST = 000b), in which simple tasks may go in any order. TAS = 0: what
    // another nexus aborts gets no answer.
    page[3] = 0x10;
  }
  return page;
}

void AppendBlockDescriptor(bool long_addresses, uint64_t capacity_blocks, Answer* to) {
  if (long_addresses) {
    to->U64(capacity_blocks);
    to->U32(0);
    to->U32(kLogicalBlockBytes);
  } else {
    to->U32(static_cast<uint32_t>(std::min<uint64_t>(capacity_blocks, UINT32_MAX)));
    to->U32(kLogicalBlockBytes);  // DENSITY CODE 0, and 24 bits
  }
}

// The header that MODE SENSE and MODE SELECT share (SPC-4, 7.5.5).
struct Header {
  size_t bytes;
  size_t descriptor_bytes;
  bool long_addresses;
};
std::optional<Header> DecodeHeader(bool short_form, std::span<const std::byte> list) {
  if (list.size() < (short_form ? 4 : 8)) return {};
  if (short_form) return Header{4, static_cast<size_t>(list[3]), false};
  return Header{8, LoadBig16(&list[6]), (list[4] & std::byte{1}) != std::byte{0}};
}

// The medium cannot be formatted otherwise: what is named is what it has.
std::optional<Sense> CheckBlockDescriptor(const Header& header, std::span<const std::byte> list,
                                          uint64_t capacity_blocks) {
  const auto at = static_cast<uint16_t>(header.bytes);
  if (header.descriptor_bytes == 0) return {};
  if (header.descriptor_bytes != (header.long_addresses ? 16 : 8)) {
    return InvalidFieldInParameterList(static_cast<uint16_t>(at - (at == 4 ? 1 : 2)));
  }
  if (list.size() < header.bytes + header.descriptor_bytes) {
    return IllegalRequest(SenseCode::kParameterListLengthError);
  }
  const std::byte* descriptor = list.data() + header.bytes;
  const uint64_t all = header.long_addresses ? UINT64_MAX : UINT32_MAX;
  const uint64_t blocks =
      header.long_addresses ? LoadBig64(descriptor) : uint64_t{LoadBig32(descriptor)};
  const uint32_t block_bytes =
      header.long_addresses ? LoadBig32(descriptor + 12) : LoadBig32(descriptor + 4) & 0x00ffffff;
  if (blocks != 0 && blocks != all && blocks != capacity_blocks) {
    return InvalidFieldInParameterList(at);
  }
  if (block_bytes != kLogicalBlockBytes) {
    return InvalidFieldInParameterList(
        static_cast<uint16_t>(at + (header.long_addresses ? 12 : 5)));
  }
  return {};
}

// Every bit that cannot be changed is as it is now.
std::optional<Sense> CheckPage(std::span<const uint8_t> current,
                               std::span<const uint8_t> changeable,
                               std::span<const std::byte> given, size_t at) {
  if (static_cast<uint8_t>(given[1]) != current[1]) {
    return InvalidFieldInParameterList(static_cast<uint16_t>(at + 1));
  }
  if (given.size() < current.size()) return IllegalRequest(SenseCode::kParameterListLengthError);
  for (size_t i = 2; i < current.size(); ++i) {
    const auto wrong =
        static_cast<uint8_t>((static_cast<uint8_t>(given[i]) ^ current[i]) & ~changeable[i]);
    if (wrong != 0) {
      const auto bit = static_cast<uint8_t>(31 - __builtin_clz(wrong));
      return InvalidFieldInParameterList(static_cast<uint16_t>(at + i), bit);
    }
  }
  return {};
}

}  // namespace

std::optional<Sense> BuildModeSense(const Command& command, const ModeView& view, Answer* to) {
  const auto control = static_cast<PageControl>(command.page_control);
  if (control == PageControl::kSaved) return IllegalRequest(SenseCode::kSavingNotSupported);
  Wanted wanted;
  if (std::optional<Sense> refused = FindPages(command, &wanted)) return refused;

  const bool short_form = command.cdb_bytes == 6;
  const bool descriptor = !command.no_block_descriptors;
  const bool write_protect = view.read_only || view.state.software_write_protect;
  const uint8_t specific = (write_protect ? 0x80 : 0) | 0x10;  // WP, DPOFUA
  if (short_form) {
    to->U8(0);
    to->U8(0);
    to->U8(specific);
    to->U8(descriptor ? 8 : 0);
  } else {
    to->U16(0);
    to->U8(0);
    to->U8(specific);
    to->U8(descriptor && command.long_addresses ? 1 : 0);
    to->U8(0);
    to->U16(descriptor ? (command.long_addresses ? 16 : 8) : 0);
  }
  if (descriptor) AppendBlockDescriptor(command.long_addresses, view.capacity_blocks, to);
  Append(wanted.recovery, Recovery(control), to);
  Append(wanted.caching, Caching(control), to);
  Append(wanted.control, Control(control, view.state), to);
  Append(wanted.provisioning, Provisioning(control, view.resources), to);
  // Not counting itself.
  if (short_form) {
    to->PatchU8(0, static_cast<uint8_t>(to->bytes() - 1));
  } else {
    to->PatchU16(0, static_cast<uint16_t>(to->bytes() - 2));
  }
  return {};
}

std::optional<Sense> ApplyModeSelect(const Command& command, std::span<const std::byte> list,
                                     uint64_t capacity_blocks, const Resources& resources,
                                     ModeState* state) {
  if (list.empty() && command.parameter_bytes == 0) return {};
  const std::optional<Header> header = DecodeHeader(command.cdb_bytes == 6, list);
  if (!header) return IllegalRequest(SenseCode::kParameterListLengthError);
  if (std::optional<Sense> refused = CheckBlockDescriptor(*header, list, capacity_blocks)) {
    return refused;
  }
  ModeState next = *state;
  size_t at = header->bytes + header->descriptor_bytes;
  while (at < list.size()) {
    const std::span<const std::byte> given = list.subspan(at);
    if (given.size() < 2) return IllegalRequest(SenseCode::kParameterListLengthError);
    // PS is reserved here.
    const auto code = static_cast<uint8_t>(given[0]) & 0x7f;
    if (code == kCachingPage) {
      const CachingPage current = Caching(PageControl::kCurrent);
      const CachingPage changeable = Caching(PageControl::kChangeable);
      if (std::optional<Sense> refused = CheckPage(current, changeable, given, at)) return refused;
      at += current.size();
    } else if (code == kControlPage) {
      const ControlPage current = Control(PageControl::kCurrent, *state);
      const ControlPage changeable = Control(PageControl::kChangeable, *state);
      if (std::optional<Sense> refused = CheckPage(current, changeable, given, at)) return refused;
      next.descriptor_sense = (static_cast<uint8_t>(given[2]) & kDescriptorSenseBit) != 0;
      next.software_write_protect =
          (static_cast<uint8_t>(given[4]) & kSoftwareWriteProtectBit) != 0;
      at += current.size();
    } else if (code == kRecoveryPage) {
      const RecoveryPage current = Recovery(PageControl::kCurrent);
      const RecoveryPage changeable = Recovery(PageControl::kChangeable);
      if (std::optional<Sense> refused = CheckPage(current, changeable, given, at)) return refused;
      at += current.size();
    } else if (code == (kProvisioningPage | kSubpageFormatBit)) {
      const ProvisioningPage current = Provisioning(PageControl::kCurrent, resources);
      const ProvisioningPage changeable = Provisioning(PageControl::kChangeable, resources);
      if (std::optional<Sense> refused = CheckPage(current, changeable, given, at)) return refused;
      at += current.size();
    } else {
      return InvalidFieldInParameterList(static_cast<uint16_t>(at), 5);
    }
  }
  *state = next;
  return {};
}

}  // namespace ankole::scsi

#include "scsi/mode.h"

#include "scsi/limits.h"

namespace ankole::scsi {

namespace {

constexpr uint8_t kCachingPage = 0x08;
constexpr uint8_t kControlPage = 0x0a;
constexpr uint8_t kAllPages = 0x3f;
constexpr uint8_t kAllSubpages = 0xff;
constexpr uint8_t kDescriptorSenseBit = 0x04;       // D_SENSE, byte 2 of the control page
constexpr uint8_t kSoftwareWriteProtectBit = 0x08;  // SWP, byte 4 of the control page

enum class PageControl : uint8_t { kCurrent, kChangeable, kDefault, kSaved };

using CachingPage = std::array<uint8_t, 20>;
using ControlPage = std::array<uint8_t, 12>;

CachingPage Caching(PageControl control) {
  CachingPage page = {kCachingPage, sizeof(CachingPage) - 2};
  if (control != PageControl::kChangeable) page[2] = 0x04;  // WCE
  return page;
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

std::optional<Sense> BuildModeSense(const Command& command, const ModeState& state, bool read_only,
                                    uint64_t capacity_blocks, Answer* to) {
  const auto control = static_cast<PageControl>(command.page_control);
  if (control == PageControl::kSaved) return IllegalRequest(SenseCode::kSavingNotSupported);
  const bool all = command.page == kAllPages;
  if (!all && command.page != kCachingPage && command.page != kControlPage) {
    return InvalidFieldInCdb(2, 5);
  }
  if (command.subpage != 0 && command.subpage != kAllSubpages) return InvalidFieldInCdb(3);

  const bool short_form = command.cdb_bytes == 6;
  const bool descriptor = !command.no_block_descriptors;
  const bool write_protect = read_only || state.software_write_protect;
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
  if (descriptor) AppendBlockDescriptor(command.long_addresses, capacity_blocks, to);
  if (all || command.page == kCachingPage) {
    const CachingPage page = Caching(control);
    to->Bytes(page.data(), page.size());
  }
  if (all || command.page == kControlPage) {
    const ControlPage page = Control(control, state);
    to->Bytes(page.data(), page.size());
  }
  // Not counting itself.
  if (short_form) {
    to->PatchU8(0, static_cast<uint8_t>(to->bytes() - 1));
  } else {
    to->PatchU16(0, static_cast<uint16_t>(to->bytes() - 2));
  }
  return {};
}

std::optional<Sense> ApplyModeSelect(const Command& command, std::span<const std::byte> list,
                                     uint64_t capacity_blocks, ModeState* state) {
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
    // PS is reserved here. SPF: there are no pages with subpages.
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
    } else {
      return InvalidFieldInParameterList(static_cast<uint16_t>(at), 5);
    }
  }
  *state = next;
  return {};
}

}  // namespace ankole::scsi

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/units.h"
#include "scsi/answer.h"
#include "scsi/sense.h"

// INQUIRY (SPC-4, 6.6): who the logical unit is, and what it can do.
namespace ankole::scsi {

// What a logical unit says of itself, in INQUIRY, its vital product data and READ CAPACITY (16).
struct Identity {
  std::string target;  // the target's iSCSI name
  std::string serial;  // of the volume, and of no other ever: the designators are made from it
  // Invariant: IsPhysicalBlock.
  uint32_t physical_block_bytes = kBlockBytes;
};

// `connected`: there is a logical unit behind the LUN that was asked.
void BuildInquiry(bool connected, Answer* to);

// Whether page 83h has that designator of the logical unit: what follows the type in an EXTENDED
// COPY's identification descriptor (SPC-4, 6.4.5.3), from the code set on.
inline constexpr size_t kDesignatorFieldBytes = 24;
bool NamesUnit(const Identity& identity, std::span<const std::byte, kDesignatorFieldBytes> field);

inline constexpr uint8_t kPageSupported = 0x00;
inline constexpr uint8_t kPageSerialNumber = 0x80;
inline constexpr uint8_t kPageIdentification = 0x83;
inline constexpr uint8_t kPageBlockLimits = 0xb0;
inline constexpr uint8_t kPageCharacteristics = 0xb1;
inline constexpr uint8_t kPageProvisioning = 0xb2;
// Vital product data (SPC-4, 7.8; SBC-3, 6.5). Refused where there is no such page, or no logical
// unit.
std::optional<Sense> BuildVitalData(uint8_t page, bool connected, const Identity& identity,
                                    Answer* to);

}  // namespace ankole::scsi

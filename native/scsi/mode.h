#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "scsi/answer.h"
#include "scsi/command.h"
#include "scsi/resources.h"

// Mode pages: read-write error recovery (01h; SBC-4, 6.5.10), caching (08h; SBC-3, 6.4.5), control
// (0Ah; SPC-4, 7.5.8) and logical block provisioning (1Ch/02h; SBC-4, 6.5.9).
//
// The write cache is volatile (WCE = 1) and stays so. Pages are not saved, so an initiator that had
// turned it off would rely on writes being durable which another engine, after a failover, no
// longer makes so. FUA and SYNCHRONIZE CACHE do what it wants.
namespace ankole::scsi {

// What MODE SELECT can change; for all nexuses, until the logical unit is reset.
struct ModeState {
  bool descriptor_sense = false;        // D_SENSE
  bool software_write_protect = false;  // SWP
  bool operator==(const ModeState&) const = default;
};

struct ModeView {
  const ModeState& state;
  bool read_only;  // the medium is write protected, whatever SWP says
  uint64_t capacity_blocks;
  const Resources& resources;
};
std::optional<Sense> BuildModeSense(const Command& command, const ModeView& view, Answer* to);
// Changes `state` if all of the list can be taken, else nothing.
std::optional<Sense> ApplyModeSelect(const Command& command, std::span<const std::byte> list,
                                     uint64_t capacity_blocks, const Resources& resources,
                                     ModeState* state);

}  // namespace ankole::scsi

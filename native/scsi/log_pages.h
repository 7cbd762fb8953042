#pragma once

#include <optional>

#include "scsi/answer.h"
#include "scsi/command.h"
#include "scsi/resources.h"

namespace ankole::scsi {

// LOG SENSE (SPC-4, 6.8): the supported pages (00h), and logical block provisioning (0Ch; SBC-4,
// 6.3.4): the space that is free and taken where the volume's members lie. Current values alone.
std::optional<Sense> BuildLogSense(const Command& command, const Resources& resources, Answer* to);

}  // namespace ankole::scsi

#pragma once

#include <optional>

#include "scsi/answer.h"
#include "scsi/command.h"

// What a logical unit tells about itself beside INQUIRY.
namespace ankole::scsi {

// SPC-4, 6.33: LUN 0 is all there is.
void BuildReportLuns(const Command& command, Answer* to);
// SPC-4, 6.35.
std::optional<Sense> BuildReportOperationCodes(const Command& command, Answer* to);
// SPC-4, 6.36.
void BuildReportTaskManagement(const Command& command, Answer* to);
// SBC-3, 5.15 and 5.16.
void BuildReadCapacity10(uint64_t capacity_blocks, Answer* to);
void BuildReadCapacity16(uint64_t capacity_blocks, uint32_t physical_block_bytes, Answer* to);
// SBC-3, 5.17 and 5.18: no defects, in whatever format was asked for.
void BuildReadDefectData(const Command& command, Answer* to);

}  // namespace ankole::scsi

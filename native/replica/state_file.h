#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/limits.h"
#include "base/result.h"
#include "io/file_system.h"

namespace ankole::replica {

// The file `target-state`: what a SCSI target keeps with the volume, in two slots that are
// overwritten in place in turn, so that it can be written on a full disk.
// Format: docs/internals/replica-format.md, «target-state».
inline constexpr size_t kStateSlotHeaderBytes = 4096;
inline constexpr size_t kStateSlotBytes = kStateSlotHeaderBytes + kTargetStateBytes;
inline constexpr size_t kStateFileBytes = 2 * kStateSlotBytes;

using TargetState = std::span<std::byte, kTargetStateBytes>;

// All block; used by one thread at a time. Nothing is kept open: it is read at a start and written
// when a reservation changes.

// Makes the file with zeros as the state, durable but for its name in the directory.
Status CreateStateFile(io::FileSystem& files, const std::string& path);
// kCorrupt when neither slot is whole. A replica of before the file existed has none: zeros.
Status ReadStateFile(io::FileSystem& files, const std::string& path, TargetState to);
// Durable when it returns. On failure the slot that holds the state until now is untouched. Makes a
// missing file. `sync_failed`: the disk may have lost it (rule 1).
Status WriteStateFile(io::FileSystem& files, const std::string& path, TargetState from,
                      bool* sync_failed);

}  // namespace ankole::replica

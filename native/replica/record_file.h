#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/result.h"
#include "io/file_system.h"
#include "wire/record.h"

namespace ankole::replica {

// Stands for one boot of the machine and one mount of the file system; zeros: not known.
using Incarnation = std::array<std::byte, 16>;
Incarnation IncarnationOf(const std::string& boot_id, const std::string& mount_id);

// What a replica must be able to write on a full disk.
struct RecordState {
  wire::RecordPair record;
  wire::Epoch welcomed;  // the highest epoch that was let in (rule 3)
  bool clean = true;     // stopped clean and not written since
  // Boot of the machine and mount of the file system in which it was first written since it was
  // last clean, or made equal (rule 7).
  std::string boot_id;
  std::string mount_id;
  Incarnation recorded_in = {};  // in which the record was written
  // The number of the head file and one more; 0: what volume.meta says. It is ahead of that from a
  // switch until the files have their names.
  uint32_t head = 0;
  bool unsealed = false;  // the layer under the head is not durable, or not at all members
  bool operator==(const RecordState&) const = default;
};

// The file `record`: two slots, preallocated, overwritten in place in turn.
// Format: docs/internals/replica-format.md, «record».
inline constexpr size_t kRecordSlotBytes = 4096;
inline constexpr size_t kRecordFileBytes = 2 * kRecordSlotBytes;
inline constexpr size_t kBootIdBytesMax = 36;
inline constexpr size_t kMountIdBytesMax = 36;

// Blocking; used by one thread at a time.
class RecordFile {
 public:
  // Makes the file with both slots holding `state`, durable but for its name in the directory.
  static Status Create(io::FileSystem& files, const std::string& path, const RecordState& state);
  // kCorrupt when neither slot is whole.
  static Result<RecordFile> Open(io::FileSystem& files, const std::string& path);
  static Result<RecordState> Read(io::FileSystem& files, const std::string& path);

  RecordFile() = default;
  void Close(io::FileSystem& files);
  const RecordState& state() const { return state_; }
  // Durable when it returns. On failure the slot that holds the state until now is untouched; where
  // `sync_failed` is set the file is not to be trusted any more, and further writes fail.
  Status Write(io::FileSystem& files, const RecordState& state, bool* sync_failed);
  // Makes durable what was read: a process that was killed may have written it and not synced.
  Status Sync(io::FileSystem& files, bool* sync_failed);

 private:
  io::File file_;
  RecordState state_;
  uint64_t sequence_ = 0;  // of state_; its slot is sequence_ % 2
  bool failed_ = false;
};

}  // namespace ankole::replica

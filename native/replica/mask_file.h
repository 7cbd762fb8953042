#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "base/mapping.h"
#include "base/result.h"
#include "base/units.h"
#include "io/file_system.h"

namespace ankole::replica {

// The masks of a layer, `<layer>.mask`: one bit a 4 KiB block of the volume. A set bit says that
// the layers below do not show through; data of the layer itself stands above its mask, so that a
// bit never needs clearing for a write. Format: docs/internals/replica-format.md, «masks».
inline constexpr size_t kMaskSectorBytes = 512;
inline constexpr size_t kMaskBitsBytes = 496;
inline constexpr uint64_t kMaskSectorBlocks = kMaskBitsBytes * 8;

// Blocking; used by one thread at a time.
class MaskFile {
 public:
  MaskFile() = default;
  ~MaskFile();  // CHECKs that it was closed
  MaskFile(MaskFile&& other) noexcept;
  MaskFile& operator=(MaskFile&& other) noexcept;

  // kNotFound where there is none, kCorrupt where a sector's checksum does not match.
  static Result<MaskFile> Open(io::FileSystem& files, const std::string& path,
                               uint64_t volume_blocks);
  // Makes the file with its space taken, as UNMAP must work on a full disk; durable, its name too.
  static Result<MaskFile> Create(io::FileSystem& files, const std::string& directory,
                                 const std::string& name, uint64_t volume_blocks);
  // Makes the file that may be there fit a larger volume, durably; does nothing where there is
  // none. By its name: one that has it open need not know. On failure it fits the volume as it was;
  // `sync_failed` as of io::ExtendFile.
  static Status Extend(io::FileSystem& files, const std::string& path, uint64_t blocks_before,
                       uint64_t blocks, bool* sync_failed);
  void Close(io::FileSystem& files);
  // The volume became larger.
  Status Grow(io::FileSystem& files, uint64_t volume_blocks);
  uint64_t blocks() const { return blocks_; }
  bool open() const { return file_.valid(); }

  bool Get(uint64_t block) const;
  // Calls `each` for the runs of set bits, in order.
  void ForEachRun(const std::function<void(uint64_t block, uint64_t blocks)>& each) const;
  // Sets the bits and writes the sectors that changed. They are durable after Sync. Once it failed,
  // the image may be ahead of the file, and it fails for good.
  Status Set(io::FileSystem& files, uint64_t block, uint64_t blocks);
  // Does nothing when nothing was written since the last.
  Status Sync(io::FileSystem& files);

 private:
  Status Reserve(uint64_t volume_blocks);
  Status Load(io::FileSystem& files);

  io::File file_;
  Mapping memory_;
  uint8_t* image_ = nullptr;  // the file's content, in memory that is taken by first use
  size_t bytes_ = 0;
  uint64_t blocks_ = 0;
  bool unsynced_ = false;
  bool failed_ = false;
};

}  // namespace ankole::replica

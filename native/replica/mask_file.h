#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <functional>

#include "base/result.h"
#include "base/units.h"
#include "io/file_system.h"

namespace ankole::replica {

// The masks of a layer, `<layer>.mask`: one bit a 4 KiB block of the volume. A set bit says that the
// layers below do not show through; data of the layer itself stands above its mask, so that a bit
// never needs clearing for a write.
// Format: docs/internals/replica-format.md, «masks».
inline constexpr size_t kMaskSectorBytes = 512;
inline constexpr size_t kMaskBitsBytes = 496;
inline constexpr uint64_t kMaskSectorBlocks = kMaskBitsBytes * 8;

// Blocking; used by one thread at a time.
class MaskFile {
 public:
  MaskFile() = default;
  ~MaskFile();
  MaskFile(MaskFile&& other) noexcept;
  MaskFile& operator=(MaskFile&& other) noexcept;

  // Opens the file, or makes it with its space taken (UNMAP must work on a full disk); durable, its
  // name too.
  static Result<MaskFile> OpenOrCreate(io::FileSystem& files, const std::string& directory,
                                       const std::string& layer_name, uint64_t volume_blocks);
  // Calls `each` for the runs of set bits of the file, if there is one.
  static Status ForEachRun(io::FileSystem& files, const std::string& path, uint64_t volume_blocks,
                           const std::function<void(uint64_t block, uint64_t blocks)>& each);
  void Close(io::FileSystem& files);
  bool open() const { return file_.valid(); }
  bool Get(uint64_t block) const;
  // Sets the bits and writes the sectors that changed. They are durable after Sync.
  Status Set(io::FileSystem& files, uint64_t block, uint64_t blocks);
  // No effect when nothing was written since the last.
  Status Sync(io::FileSystem& files);

 private:
  Status Load(io::FileSystem& files, const std::string& path);

  io::File file_;
  uint8_t* sectors_ = nullptr;  // the file's image, in reserved memory
  size_t bytes_ = 0;
  uint64_t blocks_ = 0;
  bool unsynced_ = false;
};

}  // namespace ankole::replica

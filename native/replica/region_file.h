#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/result.h"
#include "io/file_system.h"
#include "wire/regions.h"

namespace ankole::replica {

// The file `regions`: the dirty map and the missing maps of rule 5, one byte a region. Two slots of
// a header that says whose the missing maps are, then sectors that are overwritten in place.
// Format: docs/internals/replica-format.md, «regions».
inline constexpr size_t kRegionHeaderBytes = 4096;
inline constexpr size_t kRegionSectorBytes = 512;
inline constexpr uint32_t kRegionSectorRegions = 496;

// Bit 0 of a region's byte; bit 1 + k is the missing map of slot k.
inline constexpr uint8_t kDirtyBit = 1;
constexpr uint8_t MissingBit(size_t slot) { return static_cast<uint8_t>(2U << slot); }

// Whose map each slot is; an id of 0: nobody's.
using MissingSlots = std::array<wire::MissingSlot, wire::kMissingSlotsMax>;

// One of zeros has no bit set.
struct RegionSector {
  uint8_t regions[kRegionSectorRegions];
  uint64_t first_region;
  uint32_t reserved;
  uint32_t checksum;  // CRC32C of what is before it
};
static_assert(offsetof(RegionSector, regions) == 0);
static_assert(offsetof(RegionSector, first_region) == 496);
static_assert(offsetof(RegionSector, reserved) == 504);
static_assert(offsetof(RegionSector, checksum) == 508);
static_assert(sizeof(RegionSector) == kRegionSectorBytes);

// Sectors that are written together.
struct RegionBatch {
  static constexpr size_t kSectorsMax = 64;
  size_t count = 0;
  std::array<uint32_t, kSectorsMax> index;
  std::array<RegionSector, kSectorsMax> sectors;
};

// Blocking; used by one thread at a time.
class RegionFile {
 public:
  // Takes the content of one sector: the bytes of its regions. A sector that cannot be believed
  // counts as dirty and missing everywhere: all bits set.
  using Take = void (*)(void* owner, uint32_t first_region, const uint8_t* bytes, uint32_t count);
  struct Loaded {
    uint32_t sectors_bad = 0;
  };

  // Makes the file with its space taken and written, as it must be writable on a full disk; every
  // region has `bits`. Durable but for its name.
  static Status Create(io::FileSystem& files, const std::string& path, uint32_t regions,
                       uint8_t bits);
  // The same in place of one that may be there, its name durable too.
  static Status Replace(io::FileSystem& files, const std::string& directory, uint32_t regions,
                        uint8_t bits);
  // Hands over every sector that is not zero. kNotFound: there is none; kCorrupt: neither header is
  // whole; kUnsupported: of another version.
  static Result<RegionFile> Open(io::FileSystem& files, const std::string& path, uint32_t regions,
                                 Take take, void* owner, Loaded* loaded);

  // Makes the file fit a larger volume, durably: regions that have no bit, with their space taken
  // and written. By its name: see io::ExtendFile. On failure it fits the volume as it was.
  static Status Extend(io::FileSystem& files, const std::string& path, uint32_t regions_before,
                       uint32_t regions, bool* sync_failed);

  RegionFile() = default;
  void Close(io::FileSystem& files);
  const MissingSlots& slots() const { return slots_; }

  // Durable when it returns, with `sync`. Sets first_region and checksum. On failure each sector is
  // the old one, the new one or bad; where `sync_failed` is set the file is not to be trusted any
  // more, and further writes fail.
  Status Write(io::FileSystem& files, RegionBatch& batch, bool sync, bool* sync_failed);
  // Makes durable what was written without `sync`; does nothing where nothing was.
  Status SyncWritten(io::FileSystem& files, bool* sync_failed);
  // Durable when it returns; on failure the slots may be the old or the new ones.
  Status WriteSlots(io::FileSystem& files, const MissingSlots& slots, bool* sync_failed);
  // Whatever the file has, from whomever.
  Status Sync(io::FileSystem& files, bool* sync_failed);

 private:
  Status Load(io::FileSystem& files, uint32_t regions, Take take, void* owner, Loaded* loaded);

  io::File file_;
  MissingSlots slots_;
  uint64_t sequence_ = 0;  // of slots_; its header is the one at sequence_ % 2
  bool failed_ = false;
  bool unsynced_ = false;
};

}  // namespace ankole::replica

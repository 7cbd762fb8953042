#pragma once

#include <cstddef>
#include <cstdint>

#include "base/mapping.h"
#include "base/result.h"
#include "base/units.h"
#include "replica/region_file.h"
#include "wire/regions.h"

namespace ankole::replica {

// Regions [first, end).
struct RegionRange {
  uint32_t first = 0;
  uint32_t end = 0;
};
inline RegionRange RegionsOf(uint64_t offset_bytes, uint64_t length_bytes) {
  return {static_cast<uint32_t>(offset_bytes / kRegionBytes),
          static_cast<uint32_t>(DivideUp(offset_bytes + length_bytes, kRegionBytes))};
}

// The dirty map and the missing maps of a replica in memory (rule 5). Of each region it has what
// holds («wanted»), and what the file shows at least, whatever becomes of a write that is under way
// («durable»).
//
// Invariant: wanted ⊆ durable, and a region with the dirty bit has the bit of every used slot: so a
// write looks at the dirty bit alone. A bit leaves «wanted» first and the file later; until then it
// comes back without I/O.
class RegionMap {
 public:
  RegionMap() = default;
  RegionMap(const RegionMap&) = delete;
  RegionMap& operator=(const RegionMap&) = delete;

  // Once. Two bytes a region, taken by use.
  Status Reserve(uint32_t regions);
  // Room for so many; they count from Grow on.
  Status MakeRoom(uint32_t regions);
  // The volume became larger: regions that have no bit, and for which there is room.
  void Grow(uint32_t regions);
  // What the file has; then the slots that it names. Bits of unused slots mean nothing.
  void Load(uint32_t first_region, const uint8_t* bytes, uint32_t count);
  void SetSlots(const MissingSlots& slots);

  uint32_t regions() const { return regions_; }
  uint64_t dirty_regions() const { return dirty_regions_; }
  const MissingSlots& slots() const { return slots_; }
  // What a region that is marked gets: the dirty bit and those of all slots that are in use or
  // about to be.
  uint8_t full() const { return full_; }
  bool dirty(uint32_t region) const { return (wanted_[region] & kDirtyBit) != 0; }
  uint8_t wanted(uint32_t region) const { return wanted_[region]; }
  uint8_t durable(uint32_t region) const { return durable_[region]; }
  bool AllDirty(RegionRange range) const {
    for (uint32_t region = range.first; region < range.end; ++region) {
      if (!dirty(region)) return false;
    }
    return true;
  }
  // Whether the file has all that marking would write.
  bool AllDurable(RegionRange range) const;
  // Marks regions of which AllDurable holds.
  void Mark(RegionRange range);
  // Takes bits out of «wanted».
  void Clear(RegionRange range, uint8_t bits);
  // Adds bits that are durable.
  void Add(RegionRange range, uint8_t bits);

  // The slot of a replica's missing map; negative: it has none.
  int FindSlot(wire::ReplicaId id) const;

  // --- beginning maps
  // A slot that nobody uses, now `id`'s; negative: there is none. From now on marks have its bit.
  int Take(const wire::MissingSlot& slot);
  void Rename(int slot, const wire::Record& record) { slots_[slot].record = record; }
  // The file now has the dirty regions in the slots' maps: begun as copies of the dirty map.
  void Begin(uint8_t bits);
  void Free(int slot);

  // --- sectors
  uint32_t sectors() const { return DivideUp(regions_, kRegionSectorRegions); }
  // The regions of a sector.
  RegionRange Sector(uint32_t index) const;
  // Whether the file may show another content than «wanted».
  bool Lazy(uint32_t sector) const;
  // A sector of this content is about to be written: until that is known to have succeeded only
  // what old and new content have in common is durable.
  void Writing(uint32_t index, const RegionSector& sector);
  void Written(uint32_t index, const RegionSector& sector);

  // The runs of regions with a bit from `first` on, at most `runs_max`; returns how many.
  size_t Collect(uint8_t bit, uint32_t first, wire::RegionRun* runs, size_t runs_max) const;
  uint64_t Count(uint8_t bit) const;

 private:
  uint32_t FindBit(uint8_t bit, uint32_t from) const;

  Mapping wanted_memory_;
  Mapping durable_memory_;
  uint8_t* wanted_ = nullptr;  // kRegionBytes of the volume each
  uint8_t* durable_ = nullptr;
  uint32_t regions_ = 0;
  uint64_t dirty_regions_ = 0;
  uint8_t full_ = kDirtyBit;
  MissingSlots slots_;
};

}  // namespace ankole::replica

#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/region_set.h"

namespace ankole::engine {

// What a joiner lacks: whole regions, or parts of them. What clients write while it is filled adds
// parts only, or all of the volume would have to be compared once more under random writes.
// Allocates when it is made or grows and never else; memory is touched where parts were added (2
// MiB for each TiB of the volume that was written so).
class LackSet {
 public:
  // One bit of a mask: 64 of them are a region.
  static constexpr uint64_t kPartBytes = kRegionBytes / 64;
  static constexpr uint64_t kWhole = ~uint64_t{0};

  explicit LackSet(uint64_t regions);  // of the volume
  LackSet(const LackSet&) = delete;
  LackSet& operator=(const LackSet&) = delete;

  // Whole and in part.
  const RegionSet& regions() const { return regions_; }
  bool empty() const { return regions_.empty(); }
  uint64_t count() const { return regions_.count(); }
  // Whole ones. What lies beyond the volume's end is left out.
  void Add(RegionRun run);
  void AddAll() { Add({0, static_cast<uint32_t>(regions_.size())}); }
  // The parts that the range touches. `length_bytes` > 0, within the volume.
  void AddRange(uint64_t offset_bytes, uint64_t length_bytes);
  // Whether each part that the range touches is lacking.
  bool ContainsRange(uint64_t offset_bytes, uint64_t length_bytes) const;
  // Removes a region that is in the set, and returns which of its parts are lacking: the lowest bit
  // is the first one.
  uint64_t Take(uint64_t region);
  // The volume became larger; nothing of the new regions is lacking.
  void Grow(uint64_t regions);
  // Gives the memory back.
  void Clear();

 private:
  uint64_t MaskOf(uint64_t region) const;

  RegionSet regions_;
  Mapping memory_;
  // For each region in the set: 0, all of it is lacking. 0 for the others.
  uint64_t* parts_ = nullptr;
  bool touched_ = false;
};

}  // namespace ankole::engine

#pragma once

#include <cstddef>
#include <cstdint>

#include "base/mapping.h"
#include "base/units.h"
#include "wire/regions.h"

namespace ankole::engine {

using wire::RegionRun;

// The regions that a range of bytes touches. `length_bytes` > 0.
inline RegionRun RegionsOf(uint64_t offset_bytes, uint64_t length_bytes) {
  const uint64_t first = offset_bytes / kRegionBytes;
  const uint64_t end = DivideUp(offset_bytes + length_bytes, kRegionBytes);
  return {static_cast<uint32_t>(first), static_cast<uint32_t>(end - first)};
}

// A set of regions: one bit each, in memory that is only touched where bits were set (2 MiB for the
// largest volume). Allocates when it is made or grows and never else.
class RegionSet {
 public:
  static constexpr uint64_t kNone = UINT64_MAX;

  explicit RegionSet(uint64_t regions);  // of the volume
  RegionSet(const RegionSet&) = delete;
  RegionSet& operator=(const RegionSet&) = delete;

  uint64_t size() const { return regions_; }  // regions of the volume
  uint64_t count() const { return count_; }   // of these, in the set
  bool empty() const { return count_ == 0; }
  bool Contains(uint64_t region) const { return (words_[region / 64] >> (region % 64) & 1) != 0; }
  bool ContainsAll(RegionRun run) const;
  bool ContainsAny(RegionRun run) const {
    return Next(run.first) < uint64_t{run.first} + run.count;
  }
  // What lies beyond the volume's end is left out.
  void Add(RegionRun run);
  void Remove(uint64_t region);
  void AddAll() { Add({0, static_cast<uint32_t>(regions_)}); }
  // The volume became larger; the new regions are not in it.
  void Grow(uint64_t regions);
  // Gives the memory back.
  void Clear();
  // The first one from `from` on; kNone: there is none.
  uint64_t Next(uint64_t from) const;

 private:
  uint64_t regions_ = 0;
  Mapping memory_;
  uint64_t* words_ = nullptr;
  uint64_t count_ = 0;
};

}  // namespace ankole::engine

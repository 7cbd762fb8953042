#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "replica/region_map.h"
#include "wire/regions.h"

namespace ankole::replica {

// Regions of writes, zeros and unmaps that may not be complete on all members (rule 7): of each the
// highest tag, which is complete when the engine has said so. What an engine left incomplete stays,
// through further engines too, until the region is cleaned. In memory only, of bounded size, and
// without memory taken for an I/O but at the first.
class RecentRegions {
 public:
  // All that one engine can have dirty (4096 regions, rule 5), and as many left by the one before.
  static constexpr size_t kRegionsMax = 8192;

  // The replica was opened, or has nothing under way: what is not complete on all members is dirty.
  void Reset(const RegionMap& regions);
  // Whether all regions there may be are in the table.
  bool known() const { return known_; }
  // A request with this tag changes data of these regions.
  void Add(RegionRange range, uint64_t tag);
  // All tags up to this one are complete.
  void Complete(uint64_t tag) {
    if (tag > complete_tag_) complete_tag_ = tag;
  }
  // These are equal on all members.
  void Remove(RegionRange range);
  // Another engine begins, with tags of its own.
  void NextEngine();

  // In ascending order, joined. Negative: not known, or more runs than `runs_max`.
  int Collect(wire::RegionRun* runs, size_t runs_max) const;
  // Whether one frame can tell all of it.
  bool Tellable() const;

 private:
  static constexpr size_t kSlots = 2 * kRegionsMax;  // a power of two, half of it empty
  static constexpr uint64_t kLeft = UINT64_MAX;      // tag of what an earlier engine left
  struct Entry {
    uint64_t tag = 0;
    uint32_t region_after = 0;  // the region and one; 0: empty
  };

  static size_t Home(uint32_t region) {
    return static_cast<uint32_t>(region * 2'654'435'769U) >> (32 - 14);
  }
  static_assert(kSlots == 1U << 14);
  // Where the region is or would be.
  size_t Find(uint32_t region) const;
  void AddOne(uint32_t region, uint64_t tag);
  void Erase(size_t at);
  void Sweep();

  std::unique_ptr<std::array<Entry, kSlots>> table_;
  size_t count_ = 0;
  uint64_t complete_tag_ = 0;
  bool known_ = false;
};

}  // namespace ankole::replica

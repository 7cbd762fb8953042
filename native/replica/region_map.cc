#include "replica/region_map.h"

#include <algorithm>
#include <cstring>

#include "base/bytes.h"

namespace ankole::replica {

Status RegionMap::Reserve(uint32_t regions) {
  CHECK(regions_ == 0 && regions > 0);
  RETURN_IF_ERROR(MakeRoom(regions));
  regions_ = regions;
  return Status::Ok();
}

Status RegionMap::MakeRoom(uint32_t regions) {
  CHECK(regions <= kRegionsMax);
  // Whole words, as FindBit takes them.
  const size_t bytes = RoundUp(regions, kBlockBytes);
  RETURN_IF_ERROR(wanted_memory_.Grow(bytes, "the region maps"));
  wanted_ = wanted_memory_.as<uint8_t>();
  RETURN_IF_ERROR(durable_memory_.Grow(bytes, "the region maps"));
  durable_ = durable_memory_.as<uint8_t>();
  return Status::Ok();
}

void RegionMap::Grow(uint32_t regions) {
  CHECK(regions >= regions_ && regions <= durable_memory_.bytes());
  regions_ = regions;
}

void RegionMap::Load(uint32_t first_region, const uint8_t* bytes, uint32_t count) {
  CHECK(first_region + count <= regions_);
  if (count == 0) return;
  std::memcpy(wanted_ + first_region, bytes, count);
  std::memcpy(durable_ + first_region, bytes, count);
}

void RegionMap::SetSlots(const MissingSlots& slots) {
  slots_ = slots;
  full_ = kDirtyBit;
  for (size_t i = 0; i < slots.size(); ++i) {
    if (slots[i].id != 0) full_ |= MissingBit(i);
  }
  dirty_regions_ = 0;
  for (uint32_t region = 0; region < regions_; ++region) {
    if (wanted_[region] == 0) continue;
    wanted_[region] &= full_;
    dirty_regions_ += dirty(region) ? 1 : 0;
  }
}

bool RegionMap::AllDurable(RegionRange range) const {
  for (uint32_t region = range.first; region < range.end; ++region) {
    if ((durable_[region] & full_) != full_) return false;
  }
  return true;
}

void RegionMap::Mark(RegionRange range) {
  for (uint32_t region = range.first; region < range.end; ++region) {
    CHECK((durable_[region] & full_) == full_);
    dirty_regions_ += dirty(region) ? 0 : 1;
    wanted_[region] |= full_;
  }
}

void RegionMap::Clear(RegionRange range, uint8_t bits) {
  for (uint32_t region = range.first; region < range.end; ++region) {
    if (wanted_[region] == 0) continue;  // does not take the page for a region that is clean
    if ((bits & kDirtyBit) != 0 && dirty(region)) --dirty_regions_;
    wanted_[region] &= static_cast<uint8_t>(~bits);
  }
}

void RegionMap::Add(RegionRange range, uint8_t bits) {
  CHECK((bits & kDirtyBit) == 0);
  for (uint32_t region = range.first; region < range.end; ++region) {
    CHECK((durable_[region] & bits) == bits);
    wanted_[region] |= bits;
  }
}

int RegionMap::FindSlot(wire::ReplicaId id) const {
  for (size_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i].id == id) return static_cast<int>(i);
  }
  return -1;
}

int RegionMap::Take(const wire::MissingSlot& slot) {
  const int free = FindSlot(0);
  if (free < 0) return free;
  slots_[free] = slot;
  full_ |= MissingBit(free);
  return free;
}

void RegionMap::Begin(uint8_t bits) {
  for (uint32_t region = 0; region < regions_; ++region) {
    if (wanted_[region] == 0) continue;
    wanted_[region] &= static_cast<uint8_t>(~bits);
    if (!dirty(region)) continue;
    CHECK((durable_[region] & bits) == bits);
    wanted_[region] |= bits;
  }
}

void RegionMap::Free(int slot) {
  const uint8_t bit = MissingBit(slot);
  slots_[slot] = {};
  full_ &= static_cast<uint8_t>(~bit);
  Clear({0, regions_}, bit);
}

RegionRange RegionMap::Sector(uint32_t index) const {
  const uint32_t first = index * kRegionSectorRegions;
  return {first, std::min(regions_, first + kRegionSectorRegions)};
}

bool RegionMap::Lazy(uint32_t sector) const {
  const RegionRange range = Sector(sector);
  return std::memcmp(wanted_ + range.first, durable_ + range.first, range.end - range.first) != 0;
}

void RegionMap::Writing(uint32_t index, const RegionSector& sector) {
  const RegionRange range = Sector(index);
  for (uint32_t region = range.first; region < range.end; ++region) {
    durable_[region] &= sector.regions[region - range.first];
    CHECK((wanted_[region] & ~durable_[region]) == 0);
  }
}

void RegionMap::Written(uint32_t index, const RegionSector& sector) {
  const RegionRange range = Sector(index);
  std::memcpy(durable_ + range.first, sector.regions, range.end - range.first);
}

// The first region with the bit, regions_ where there is none. Eight at a time: most have nothing.
uint32_t RegionMap::FindBit(uint8_t bit, uint32_t from) const {
  const uint64_t all = uint64_t{0x0101'0101'0101'0101} * bit;
  uint32_t region = from;
  while (region < regions_) {
    if (region % 8 == 0 && (LoadLittle<uint64_t>(wanted_ + region) & all) == 0) {
      region += 8;
    } else if ((wanted_[region] & bit) != 0) {
      return region;
    } else {
      ++region;
    }
  }
  return regions_;
}

size_t RegionMap::Collect(uint8_t bit, uint32_t first, wire::RegionRun* runs,
                          size_t runs_max) const {
  size_t count = 0;
  for (uint32_t region = FindBit(bit, first); region < regions_ && count < runs_max;
       region = FindBit(bit, region)) {
    wire::RegionRun& run = runs[count++];
    run = {region, 0};
    while (region < regions_ && (wanted_[region] & bit) != 0) ++region;
    run.count = region - run.first;
  }
  return count;
}

uint64_t RegionMap::Count(uint8_t bit) const {
  uint64_t count = 0;
  for (uint32_t region = FindBit(bit, 0); region < regions_; region = FindBit(bit, region + 1)) {
    ++count;
  }
  return count;
}

}  // namespace ankole::replica

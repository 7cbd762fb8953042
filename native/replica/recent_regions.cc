#include "replica/recent_regions.h"

#include <algorithm>
#include <vector>

namespace ankole::replica {

void RecentRegions::Reset(const RegionMap& regions) {
  if (table_ != nullptr) table_->fill({});
  count_ = 0;
  complete_tag_ = 0;
  known_ = regions.dirty_regions() <= kRegionsMax;
  if (!known_) return;
  wire::RegionRun run;
  for (uint32_t from = 0; regions.Collect(kDirtyBit, from, &run, 1) > 0;) {
    from = run.first + run.count;
    Add({run.first, from}, kLeft);
  }
}

size_t RecentRegions::Find(uint32_t region) const {
  size_t at = Home(region);
  while ((*table_)[at].region_after != 0 && (*table_)[at].region_after != region + 1) {
    at = (at + 1) % kSlots;
  }
  return at;
}

void RecentRegions::Add(RegionRange range, uint64_t tag) {
  if (!known_) return;
  if (table_ == nullptr) table_ = std::make_unique<std::array<Entry, kSlots>>();
  for (uint32_t region = range.first; region < range.end && known_; ++region) AddOne(region, tag);
}

void RecentRegions::AddOne(uint32_t region, uint64_t tag) {
  Entry& entry = (*table_)[Find(region)];
  if (entry.region_after != 0) {
    entry.tag = std::max(entry.tag, tag);
    return;
  }
  if (count_ < kRegionsMax) {
    entry = {tag, region + 1};
    ++count_;
    return;
  }
  Sweep();
  if (count_ == kRegionsMax) {
    known_ = false;
  } else {
    AddOne(region, tag);
  }
}

// Closes the gap, so that what was put behind it for want of its place is still found.
void RecentRegions::Erase(size_t at) {
  std::array<Entry, kSlots>& table = *table_;
  size_t gap = at;
  for (size_t next = (at + 1) % kSlots; table[next].region_after != 0; next = (next + 1) % kSlots) {
    const size_t home = Home(table[next].region_after - 1);
    if ((next - home) % kSlots < (next - gap) % kSlots) continue;  // its home lies behind the gap
    table[gap] = table[next];
    gap = next;
  }
  table[gap] = {};
  --count_;
}

void RecentRegions::Sweep() {
  for (size_t at = 0; at < kSlots;) {
    const Entry& entry = (*table_)[at];
    if (entry.region_after != 0 && entry.tag <= complete_tag_) {
      Erase(at);  // another may lie here now
    } else {
      ++at;
    }
  }
}

void RecentRegions::Remove(RegionRange range) {
  if (table_ == nullptr || count_ == 0) return;
  for (uint32_t region = range.first; region < range.end; ++region) {
    const size_t at = Find(region);
    if ((*table_)[at].region_after != 0) Erase(at);
  }
}

void RecentRegions::NextEngine() {
  if (table_ != nullptr) {
    Sweep();
    for (Entry& entry : *table_) {
      if (entry.region_after != 0) entry.tag = kLeft;
    }
  }
  complete_tag_ = 0;
}

bool RecentRegions::Tellable() const {
  std::array<wire::RegionRun, wire::kRegionRunsMax> runs;
  return Collect(runs.data(), runs.size()) >= 0;
}

int RecentRegions::Collect(wire::RegionRun* runs, size_t runs_max) const {
  if (!known_) return -1;
  if (table_ == nullptr) return 0;
  std::vector<uint32_t> regions;
  for (const Entry& entry : *table_) {
    if (entry.region_after != 0 && entry.tag > complete_tag_) {
      regions.push_back(entry.region_after - 1);
    }
  }
  std::sort(regions.begin(), regions.end());
  size_t count = 0;
  for (const uint32_t region : regions) {
    if (count > 0 && runs[count - 1].first + runs[count - 1].count == region) {
      ++runs[count - 1].count;
    } else if (count == runs_max) {
      return -1;
    } else {
      runs[count++] = {region, 1};
    }
  }
  return static_cast<int>(count);
}

}  // namespace ankole::replica

#include "engine/lack_set.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace ankole::engine {
namespace {

// The parts of a region that the range touches; it touches the region.
uint64_t PartsOf(uint64_t region, uint64_t offset_bytes, uint64_t length_bytes) {
  const uint64_t start = region * kRegionBytes;
  const uint64_t begin = std::max(offset_bytes, start) - start;
  const uint64_t end = std::min(offset_bytes + length_bytes, start + kRegionBytes) - start;
  const uint64_t first = begin / LackSet::kPartBytes;
  const uint64_t count = DivideUp(end, LackSet::kPartBytes) - first;
  return LackSet::kWhole >> (64 - count) << first;
}

}  // namespace

LackSet::LackSet(uint64_t regions) : regions_(regions) { Grow(regions); }

void LackSet::Grow(uint64_t regions) {
  regions_.Grow(std::max(regions, regions_.size()));
  CHECK(memory_.Grow(regions_.size() * sizeof(uint64_t), "what a replica lacks").ok());
  parts_ = memory_.as<uint64_t>();
}

uint64_t LackSet::MaskOf(uint64_t region) const {
  if (!regions_.Contains(region)) return 0;
  return parts_[region] == 0 ? kWhole : parts_[region];
}

void LackSet::Add(RegionRun run) {
  regions_.Add(run);
  if (!touched_) return;
  const uint64_t end = std::min(uint64_t{run.first} + run.count, regions_.size());
  for (uint64_t region = run.first; region < end; ++region) {
    // Reading does not touch memory, writing would.
    if (parts_[region] != 0) parts_[region] = 0;
  }
}

void LackSet::AddRange(uint64_t offset_bytes, uint64_t length_bytes) {
  const RegionRun run = RegionsOf(offset_bytes, length_bytes);
  const uint64_t end = std::min(uint64_t{run.first} + run.count, regions_.size());
  for (uint64_t region = run.first; region < end; ++region) {
    const uint64_t before = MaskOf(region);
    const uint64_t mask = before | PartsOf(region, offset_bytes, length_bytes);
    if (mask == before) continue;
    regions_.Add({static_cast<uint32_t>(region), 1});
    if (mask == kWhole && before == 0) continue;
    parts_[region] = mask == kWhole ? 0 : mask;
    touched_ = true;
  }
}

bool LackSet::ContainsRange(uint64_t offset_bytes, uint64_t length_bytes) const {
  const RegionRun run = RegionsOf(offset_bytes, length_bytes);
  for (uint64_t region = run.first; region < uint64_t{run.first} + run.count; ++region) {
    if ((PartsOf(region, offset_bytes, length_bytes) & ~MaskOf(region)) != 0) return false;
  }
  return true;
}

uint64_t LackSet::Take(uint64_t region) {
  const uint64_t mask = MaskOf(region);
  CHECK(mask != 0);
  regions_.Remove(region);
  if (parts_[region] != 0) parts_[region] = 0;
  return mask;
}

void LackSet::Clear() {
  regions_.Clear();
  if (touched_) memory_.Clear();
  touched_ = false;
}

}  // namespace ankole::engine

#include "engine/region_set.h"

#include <algorithm>
#include <bit>

#include "base/check.h"

namespace ankole::engine {

RegionSet::RegionSet(uint64_t regions) { Grow(std::max<uint64_t>(regions, 1)); }

void RegionSet::Grow(uint64_t regions) {
  CHECK(regions >= regions_);
  CHECK(memory_.Grow(DivideUp(regions, 64) * sizeof(uint64_t), "a set of regions").ok());
  words_ = memory_.as<uint64_t>();
  regions_ = regions;
}

bool RegionSet::ContainsAll(RegionRun run) const {
  for (uint64_t region = run.first; region < uint64_t{run.first} + run.count; ++region) {
    if (!Contains(region)) return false;
  }
  return true;
}

void RegionSet::Add(RegionRun run) {
  const uint64_t end = std::min(uint64_t{run.first} + run.count, regions_);
  for (uint64_t region = run.first; region < end; ++region) {
    uint64_t& word = words_[region / 64];
    const uint64_t bit = 1ULL << (region % 64);
    count_ += (word & bit) == 0 ? 1 : 0;
    word |= bit;
  }
}

void RegionSet::Remove(uint64_t region) {
  if (!Contains(region)) return;
  words_[region / 64] &= ~(1ULL << (region % 64));
  --count_;
}

void RegionSet::Clear() {
  if (count_ > 0) memory_.Clear();
  count_ = 0;
}

uint64_t RegionSet::Next(uint64_t from) const {
  if (from >= regions_ || count_ == 0) return kNone;
  uint64_t index = from / 64;
  uint64_t word = words_[index] & (~0ULL << (from % 64));
  const uint64_t words = DivideUp(regions_, 64);
  while (word == 0) {
    if (++index == words) return kNone;
    word = words_[index];
  }
  return index * 64 + static_cast<uint64_t>(std::countr_zero(word));
}

}  // namespace ankole::engine

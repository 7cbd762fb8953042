#include "engine/region_table.h"

#include <sys/mman.h>

#include <algorithm>

#include "base/check.h"

namespace ankole::engine {
namespace {

static_assert((kDirtyRegionsMax & (kDirtyRegionsMax - 1)) == 0 && kDirtyRegionsMax < UINT16_MAX);
static_assert(kVolumeBytesMax / kRegionBytes <= UINT32_MAX);

void* Reserve(size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(memory != MAP_FAILED);
  return memory;
}

}  // namespace

RegionTable::RegionTable(uint64_t size_bytes)
    : entries_(static_cast<Entry*>(Reserve(kDirtyRegionsMax * sizeof(Entry)))),
      slots_(static_cast<uint16_t*>(Reserve(kSlots * sizeof(uint16_t)))),
      old_(DivideUp(size_bytes, kRegionBytes)) {}

RegionTable::~RegionTable() {
  munmap(entries_, kDirtyRegionsMax * sizeof(Entry));
  munmap(slots_, kSlots * sizeof(uint16_t));
}

void RegionTable::Grow(uint64_t size_bytes) { old_.Grow(DivideUp(size_bytes, kRegionBytes)); }

RegionTable::Entry* RegionTable::Find(uint64_t region) const {
  for (size_t slot = SlotOf(region); slots_[slot] != 0; slot = (slot + 1) % kSlots) {
    Entry* entry = &entries_[slots_[slot] - 1];
    if (entry->region == region) return entry;
  }
  return nullptr;
}

RegionTable::Entry* RegionTable::Open(uint64_t region) {
  CHECK(open_ < kDirtyRegionsMax);
  size_t slot = SlotOf(region);
  while (slots_[slot] != 0) slot = (slot + 1) % kSlots;
  Entry* entry = &entries_[open_++];
  *entry = {static_cast<uint32_t>(region), 0, 0, 0};
  slots_[slot] = static_cast<uint16_t>(open_);
  old_.Remove(region);
  return entry;
}

void RegionTable::Close(uint64_t region) {
  size_t slot = SlotOf(region);
  while (entries_[slots_[slot] - 1].region != region) slot = (slot + 1) % kSlots;
  const size_t index = slots_[slot] - 1U;
  // Linear probing without tombstones: those behind the gap that may not stand behind it move up.
  for (size_t next = (slot + 1) % kSlots; slots_[next] != 0; next = (next + 1) % kSlots) {
    const size_t home = SlotOf(entries_[slots_[next] - 1].region);
    const bool stays = slot < next ? home > slot && home <= next : home > slot || home <= next;
    if (stays) continue;
    slots_[slot] = slots_[next];
    slot = next;
  }
  slots_[slot] = 0;
  // The last entry takes the free place.
  if (--open_ == index) return;
  const uint64_t moved = entries_[open_].region;
  size_t of_moved = SlotOf(moved);
  while (slots_[of_moved] != open_ + 1) of_moved = (of_moved + 1) % kSlots;
  slots_[of_moved] = static_cast<uint16_t>(index + 1);
  entries_[index] = entries_[open_];
}

bool RegionTable::Pin(RegionRun run, uint64_t now_ns, size_t open_max) {
  CHECK(run.count > 0 && uint64_t{run.first} + run.count <= regions());
  size_t lacking = 0;
  for (uint32_t region = run.first; region < run.first + run.count; ++region) {
    lacking += Find(region) == nullptr ? 1 : 0;
  }
  if (lacking > 0 && open_ + lacking > open_max) return false;
  for (uint32_t region = run.first; region < run.first + run.count; ++region) {
    Entry* entry = Find(region);
    if (entry == nullptr) entry = Open(region);
    ++entry->pins;
    entry->epoch = epoch_;
    entry->written_ns = std::max(entry->written_ns, now_ns);
  }
  return true;
}

void RegionTable::Unpin(RegionRun run, uint64_t now_ns) {
  for (uint32_t region = run.first; region < run.first + run.count; ++region) {
    Entry* entry = Find(region);
    CHECK(entry != nullptr && entry->pins > 0);
    --entry->pins;
    entry->epoch = epoch_;
    entry->written_ns = std::max(entry->written_ns, now_ns);
  }
}

void RegionTable::FlushEnds(uint64_t ticket) { flushed_epoch_ = std::max(flushed_epoch_, ticket); }

bool RegionTable::Cleanable(RegionRun run) const {
  for (uint32_t region = run.first; region < run.first + run.count; ++region) {
    const Entry* entry = Find(region);
    if (entry == nullptr || !IsCleanable(*entry)) return false;
  }
  return true;
}

size_t RegionTable::CollectCleanable(uint64_t before_ns, std::span<uint32_t> to) const {
  // A heap of those taken, the youngest on top: it goes when an older one comes.
  const auto older = [this](uint32_t a, uint32_t b) {
    return entries_[a].written_ns < entries_[b].written_ns;
  };
  size_t taken = 0;
  for (size_t i = 0; i < open_; ++i) {
    if (!IsCleanable(entries_[i]) || entries_[i].written_ns >= before_ns) continue;
    if (taken == to.size()) {
      if (taken == 0 || !older(static_cast<uint32_t>(i), to[0])) continue;
      std::pop_heap(to.begin(), to.end(), older);
      --taken;
    }
    to[taken++] = static_cast<uint32_t>(i);
    std::push_heap(to.begin(), to.begin() + static_cast<ptrdiff_t>(taken), older);
  }
  for (size_t i = 0; i < taken; ++i) to[i] = entries_[to[i]].region;
  std::sort(to.begin(), to.begin() + static_cast<ptrdiff_t>(taken));
  return taken;
}

bool RegionTable::WantsFlush(uint64_t before_ns) const {
  for (size_t i = 0; i < open_; ++i) {
    const Entry& entry = entries_[i];
    if (entry.pins == 0 && !IsFlushed(entry) && entry.written_ns < before_ns) {
      return true;
    }
  }
  return false;
}

void RegionTable::Cleaned(RegionRun run, uint64_t ticket) {
  for (uint32_t region = run.first; region < run.first + run.count; ++region) {
    const Entry* entry = Find(region);
    if (entry != nullptr && entry->pins == 0 && IsCleanedBy(*entry, ticket)) Close(region);
  }
}

void RegionTable::AddPinned(RegionSet* to) const {
  for (size_t i = 0; i < open_; ++i) {
    if (entries_[i].pins > 0) to->Add({entries_[i].region, 1});
  }
}

void RegionTable::AddOld(RegionRun run) {
  const uint64_t end = std::min(uint64_t{run.first} + run.count, regions());
  for (uint32_t region = run.first; region < end; ++region) {
    Entry* entry = Find(region);
    if (entry == nullptr) {
      old_.Add({region, 1});
    } else {
      entry->epoch = epoch_;  // not by a CLEAN that is under way
    }
  }
}

}  // namespace ankole::engine

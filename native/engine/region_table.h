#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/limits.h"
#include "base/mutant.h"
#include "engine/region_set.h"

namespace ankole::engine {

// The background leaves so much of the table to clients.
inline constexpr size_t kBackgroundOpenMax = kDirtyRegionsMax - 256;

// Which regions may be dirty at some member, and which of them may be cleaned (rule 5). A superset
// of every member's durable map at any time.
//
//   absent ──Pin──▶ open ──flushed on all, not written since──▶ cleanable ──cleaned──▶ absent
//     ▲              ▲└───────────────────Pin───────────────────────┘
//     └── old (dirty from before this engine): becomes open by Pin
//
// At most kDirtyRegionsMax are open, so that what must be compared after a crash is bounded: who
// would open one more waits. Memory is taken once, and touched as far as it is used.
class RegionTable {
 public:
  explicit RegionTable(uint64_t size_bytes);
  ~RegionTable();
  RegionTable(const RegionTable&) = delete;
  RegionTable& operator=(const RegionTable&) = delete;

  // The volume became larger; the new regions are clean.
  void Grow(uint64_t size_bytes);
  uint64_t regions() const { return old_.size(); }
  size_t open() const { return open_; }
  // Those that are dirty, open or old.
  uint64_t dirty() const { return open_ + old_.count(); }

  // --- writes -----------------------------------------------------------------------------------
  // Something that changes data of the run is on its way, until Unpin. All regions of the run
  // become open. False, and nothing happened: more than `open_max` would be. Of several times for a
  // region the latest counts: who would have it cleaned earlier gives one that lies back.
  bool Pin(RegionRun run, uint64_t now_ns, size_t open_max = kDirtyRegionsMax);
  void Unpin(RegionRun run, uint64_t now_ns);

  // --- flushes ----------------------------------------------------------------------------------
  // A flush goes out to all members. What was pinned then, or will be, is not covered by it.
  uint64_t FlushBegins() { return ++epoch_; }
  // It was done by all of them. Any order.
  void FlushEnds(uint64_t ticket);

  // --- cleaning ---------------------------------------------------------------------------------
  // Flushed, and not written from that flush until now.
  bool Cleanable(RegionRun run) const;
  // Fills `to` with the cleanable regions that were last written before `before_ns`, the longest
  // untouched ones where there is no room for all; in ascending order. Returns how many.
  size_t CollectCleanable(uint64_t before_ns, std::span<uint32_t> to) const;
  // Whether a flush would make regions cleanable that were last written before `before_ns`.
  bool WantsFlush(uint64_t before_ns) const;
  // A CLEAN goes out to all members.
  uint64_t CleanBegins() const { return flushed_epoch_; }
  // The run was cleaned on all members, by one that began then. Those that were pinned or found
  // dirty meanwhile stay.
  void Cleaned(RegionRun run, uint64_t ticket);

  // --- from before this engine, or another process of a disk host --------------------------------
  // Found dirty at a member. What is open already takes another flush, and a CLEAN that begins
  // after it: one that is under way may have been answered before the member ended and lost that.
  void AddOld(RegionRun run);
  const RegionSet& old() const { return old_; }
  // Adds those that something is on its way to.
  void AddPinned(RegionSet* to) const;
  bool IsDirty(uint64_t region) const { return Find(region) != nullptr || old_.Contains(region); }

 private:
  struct Entry {
    uint32_t region;
    uint32_t pins;
    uint64_t epoch;       // of the last Pin or Unpin
    uint64_t written_ns;  // the latest of those times
  };
  static constexpr size_t kSlots = 2 * kDirtyRegionsMax;  // of the hash; a power of two

  bool IsFlushed(const Entry& entry) const {
    return entry.epoch < flushed_epoch_ || Mutant("dirty-cleared-early");
  }
  bool IsCleanable(const Entry& entry) const { return entry.pins == 0 && IsFlushed(entry); }
  // Nothing has touched it since a CLEAN began.
  static bool IsCleanedBy(const Entry& entry, uint64_t ticket) {
    return entry.epoch < ticket || Mutant("dirty-cleared-early");
  }
  static size_t SlotOf(uint64_t region) {
    return static_cast<size_t>(region * 0x9e3779b97f4a7c15ULL >> 32) % kSlots;
  }
  Entry* Find(uint64_t region) const;
  Entry* Open(uint64_t region);
  void Close(uint64_t region);

  // Entries lie in entries_[0, open_) in no order; a slot of the hash is an entry's index + 1, or
  // 0.
  Entry* entries_;
  uint16_t* slots_;
  size_t open_ = 0;
  uint64_t epoch_ = 1;  // grows with each flush
  uint64_t flushed_epoch_ = 0;
  RegionSet old_;
};

}  // namespace ankole::engine

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/mapping.h"
#include "base/result.h"
#include "replica/sum_file.h"

namespace ankole::replica {

// The checksums that a replica has in memory, a frame a region: those of blocks written since the
// region became dirty, which the file does not have yet, and those that were read from the file.
// All memory is reserved at once and taken by first use; nothing is allocated for an I/O.
//
// Owned by one thread, and knows no files.
class SumTable {
 public:
  // An engine has at most 4096 regions dirty (rule 5); some more are marked ahead. 4.2 KiB each,
  // 17 MiB at most. Where all are out, the checksums of a region are not known (`stale`).
  static constexpr size_t kFrames = 4096 + 128;

  // What is known of a block.
  enum class Knowledge {
    kKnown,    // `sum` holds: a checksum, kSumNone or kSumBad
    kUnknown,  // nobody knows: its data is not verified
    kAbsent    // the file knows: to be merged first
  };
  struct Entry {
    Knowledge knowledge = Knowledge::kAbsent;
    uint32_t sum = kSumNone;
  };

  SumTable() = default;
  SumTable(const SumTable&) = delete;
  SumTable& operator=(const SumTable&) = delete;

  // Address space for a volume of that many regions; again for one that becomes larger, or was
  // to.
  Status Reserve(uint64_t regions);
  bool reserved() const { return frames_ != nullptr; }
  uint64_t regions() const { return regions_; }

  // The file may lack checksums of the region's blocks, or hold some that match no more: what it
  // says is not believed, but for kSumBad.
  bool stale(uint64_t region) const { return (stale_[region / 64] >> (region % 64) & 1) != 0; }
  void SetStale(uint64_t region);
  // The frame holds what the file does not.
  bool dirty(uint64_t region) const;
  // Everything that is known of the region is in the file.
  bool settled(uint64_t region) const { return !stale(region) && !dirty(region); }

  // Of each block of the region something is known.
  bool AllKnown(uint64_t region) const;

  Entry Get(uint64_t block) const;
  // Whether Get will not say kAbsent for any block of the region. With `bad`: for none that the
  // file may hold as kSumBad either.
  bool Available(uint64_t region, bool bad) const;
  // Where no frame is free, the region becomes stale.
  void Set(uint64_t block, uint32_t sum) { SetRun(block, 1, sum); }
  void SetRun(uint64_t block, uint64_t blocks, uint32_t sum);
  // What the blocks hold is not known, as after a write that failed.
  void Forget(uint64_t block, uint64_t blocks);

  // Takes in what the file holds of the region, null for nothing, under what is known already. Does
  // nothing where no frame is free.
  void Merge(uint64_t region, const uint32_t* sums);

  // What the file is to hold of a region, copied out: the job that writes it is another thread's.
  struct Copy {
    uint64_t region = 0;
    bool stale = false;    // as of CopyOut
    bool changed = false;  // the table's: written since
    uint32_t sums[kRegionBlocks];
    uint64_t known[kRegionBlocks / 64];
  };
  static constexpr size_t kCopiesMax = 16;
  // `copy` stays where it is until Settle or Abandon; at most kCopiesMax are out.
  void CopyOut(uint64_t region, Copy* copy);
  // The file holds the copy's checksums; those that are not known are of blocks in lower layers.
  // False where the region was written meanwhile: it is as dirty as before.
  bool Settle(Copy* copy);
  void Abandon(Copy* copy);

  // What the file of the head that is frozen now does not have, a region each: of its blocks those
  // that are known, and whether what the file says of the others is not believed.
  struct Frozen {
    uint64_t region = 0;
    bool stale = false;
    uint32_t sums[kRegionBlocks];
    uint64_t known[kRegionBlocks / 64];
  };
  // The file is another, empty one from now on, and all regions are settled: what the one before
  // lacks goes to `to`, by ascending regions. What is known of blocks stays known.
  void Freeze(std::vector<std::unique_ptr<Frozen>>* to);

  // Gives back the memory of frames that hold nothing new. For when nothing was done for a while.
  void Trim();

  size_t frames_in_use() const { return used_; }

 private:
  struct Meta {
    uint64_t region;
    bool in_use;
    bool dirty;
    bool loaded;  // what the file knows was merged
    bool recent;  // used since the hand of the clock passed
  };
  struct Frame {
    uint32_t sums[kRegionBlocks];
    uint64_t known[kRegionBlocks / 64];
  };
  static constexpr size_t kNoFrame = SIZE_MAX;

  size_t Find(uint64_t region) const {
    return slots_[region] == 0 ? kNoFrame : slots_[region] - size_t{1};
  }
  size_t Take(uint64_t region);
  void NoteChange(uint64_t region);
  void Drop(size_t index);

  Mapping memory_;  // of the frames, then of what is told of them
  Mapping stale_memory_;
  Mapping slots_memory_;
  uint64_t regions_ = 0;
  uint16_t* slots_ = nullptr;  // by region: its frame's index + 1, or 0
  uint64_t* stale_ = nullptr;  // a bit a region
  Meta* metas_ = nullptr;
  Frame* frames_ = nullptr;
  size_t made_ = 0;   // frames that were ever used
  size_t used_ = 0;   // of them in use
  size_t dirty_ = 0;  // of them dirty; these stay
  size_t hand_ = 0;
  Copy* copies_[kCopiesMax] = {};
  size_t copies_out_ = 0;
};

}  // namespace ankole::replica

#include "replica/sum_table.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "base/check.h"

namespace ankole::replica {
namespace {

constexpr uint64_t kWordBits = 64;
constexpr size_t kWords = kRegionBlocks / kWordBits;

bool Bit(const uint64_t* words, uint64_t bit) {
  return (words[bit / kWordBits] >> (bit % kWordBits) & 1) != 0;
}

void SetBits(uint64_t* words, uint64_t first, uint64_t count, bool value) {
  for (uint64_t bit = first; bit < first + count;) {
    const uint64_t at = bit % kWordBits;
    const uint64_t bits = std::min(kWordBits - at, first + count - bit);
    const uint64_t ones = bits == kWordBits ? ~uint64_t{0} : ((uint64_t{1} << bits) - 1) << at;
    uint64_t& word = words[bit / kWordBits];
    word = value ? word | ones : word & ~ones;
    bit += bits;
  }
}

bool AllSet(const uint64_t* words) {
  return std::all_of(words, words + kWords, [](uint64_t word) { return word == ~uint64_t{0}; });
}

}  // namespace

Status SumTable::Reserve(uint64_t regions) {
  CHECK(regions > 0);
  // There was to be more once, and there was no more.
  if (regions <= regions_) return Status::Ok();
  static_assert(kFrames < UINT16_MAX);
  const size_t frames_bytes = RoundUp(kFrames * sizeof(Frame), kBlockBytes);
  constexpr const char* kWhat = "the checksums";
  RETURN_IF_ERROR(memory_.Grow(frames_bytes + kFrames * sizeof(Meta), kWhat));
  frames_ = memory_.as<Frame>();
  metas_ = reinterpret_cast<Meta*>(memory_.as<std::byte>() + frames_bytes);
  RETURN_IF_ERROR(stale_memory_.Grow(DivideUp(regions, kWordBits) * sizeof(uint64_t), kWhat));
  stale_ = stale_memory_.as<uint64_t>();
  RETURN_IF_ERROR(slots_memory_.Grow(regions * sizeof(uint16_t), kWhat));
  slots_ = slots_memory_.as<uint16_t>();
  regions_ = regions;
  return Status::Ok();
}

void SumTable::SetStale(uint64_t region) {
  SetBits(stale_, region, 1, true);
  NoteChange(region);
}

void SumTable::NoteChange(uint64_t region) {
  for (size_t i = 0; i < copies_out_; ++i) {
    if (copies_[i]->region == region) copies_[i]->changed = true;
  }
}

bool SumTable::dirty(uint64_t region) const {
  const size_t index = Find(region);
  return index != kNoFrame && metas_[index].dirty;
}

bool SumTable::AllKnown(uint64_t region) const {
  const size_t index = Find(region);
  return index != kNoFrame && AllSet(frames_[index].known);
}

SumTable::Entry SumTable::Get(uint64_t block) const {
  const uint64_t region = block / kRegionBlocks;
  const uint64_t at = block % kRegionBlocks;
  const size_t index = Find(region);
  if (index == kNoFrame) {
    return {stale(region) ? Knowledge::kUnknown : Knowledge::kAbsent, kSumNone};
  }
  metas_[index].recent = true;
  const Frame& frame = frames_[index];
  if (Bit(frame.known, at)) return {Knowledge::kKnown, frame.sums[at]};
  return {metas_[index].loaded || stale(region) ? Knowledge::kUnknown : Knowledge::kAbsent,
          kSumNone};
}

bool SumTable::Available(uint64_t region, bool bad) const {
  const size_t index = Find(region);
  if (index != kNoFrame && (metas_[index].loaded || AllSet(frames_[index].known))) return true;
  return stale(region) && !bad;
}

// The frame of the region, its own or a free one, for change or use. kNoFrame when all are dirty.
size_t SumTable::Take(uint64_t region) {
  size_t index = Find(region);
  if (index != kNoFrame) {
    metas_[index].recent = true;
    return index;
  }
  if (made_ < kFrames) {
    index = made_++;
  } else {
    if (dirty_ == used_ && used_ == kFrames) return kNoFrame;
    // The clock: one that was used since the hand passed is passed once more.
    for (;;) {
      index = hand_;
      hand_ = (hand_ + 1) % kFrames;
      Meta& meta = metas_[index];
      if (!meta.in_use) break;
      if (meta.dirty) continue;
      if (!meta.recent) break;
      meta.recent = false;
    }
    if (metas_[index].in_use) Drop(index);
  }
  ++used_;
  metas_[index] = {
      .region = region, .in_use = true, .dirty = false, .loaded = false, .recent = true};
  std::memset(frames_[index].known, 0, sizeof(frames_[index].known));
  slots_[region] = static_cast<uint16_t>(index + 1);
  return index;
}

void SumTable::Drop(size_t index) {
  Meta& meta = metas_[index];
  CHECK(meta.in_use && !meta.dirty);
  slots_[meta.region] = 0;
  meta.in_use = false;
  --used_;
}

void SumTable::SetRun(uint64_t block, uint64_t blocks, uint32_t sum) {
  while (blocks > 0) {
    const uint64_t region = block / kRegionBlocks;
    const uint64_t at = block % kRegionBlocks;
    const uint64_t count = std::min(blocks, kRegionBlocks - at);
    const size_t index = Take(region);
    if (index == kNoFrame) {
      SetStale(region);
    } else {
      Frame& frame = frames_[index];
      std::fill_n(frame.sums + at, count, sum);
      SetBits(frame.known, at, count, true);
      NoteChange(region);
      if (!metas_[index].dirty) ++dirty_;
      metas_[index].dirty = true;
    }
    block += count;
    blocks -= count;
  }
}

void SumTable::Forget(uint64_t block, uint64_t blocks) {
  while (blocks > 0) {
    const uint64_t region = block / kRegionBlocks;
    const uint64_t at = block % kRegionBlocks;
    const uint64_t count = std::min(blocks, kRegionBlocks - at);
    const size_t index = Find(region);
    if (index != kNoFrame) SetBits(frames_[index].known, at, count, false);
    SetStale(region);
    block += count;
    blocks -= count;
  }
}

void SumTable::Merge(uint64_t region, const uint32_t* sums) {
  const size_t index = Take(region);
  if (index == kNoFrame) return;
  Frame& frame = frames_[index];
  metas_[index].loaded = true;
  const bool believed = !stale(region);
  for (size_t word = 0; word < kWords; ++word) {
    if (frame.known[word] == ~uint64_t{0}) continue;
    if (frame.known[word] == 0 && believed) {
      uint32_t* to = frame.sums + word * kWordBits;
      if (sums == nullptr) {
        std::fill_n(to, kWordBits, kSumNone);
      } else {
        std::memcpy(to, sums + word * kWordBits, kWordBits * sizeof(*to));
      }
      frame.known[word] = ~uint64_t{0};
      continue;
    }
    for (uint64_t bit = 0; bit < kWordBits; ++bit) {
      const size_t at = word * kWordBits + bit;
      const uint32_t sum = sums == nullptr ? kSumNone : sums[at];
      if (Bit(frame.known, at) || (!believed && sum != kSumBad)) continue;
      frame.sums[at] = sum;
      SetBits(frame.known, at, 1, true);
    }
  }
}

void SumTable::CopyOut(uint64_t region, Copy* copy) {
  CHECK(copies_out_ < kCopiesMax);
  copies_[copies_out_++] = copy;
  copy->region = region;
  copy->stale = stale(region);
  copy->changed = false;
  const size_t index = Find(region);
  if (index == kNoFrame) {
    std::memset(copy->known, 0, sizeof(copy->known));
    return;
  }
  std::memcpy(copy->sums, frames_[index].sums, sizeof(copy->sums));
  std::memcpy(copy->known, frames_[index].known, sizeof(copy->known));
}

void SumTable::Abandon(Copy* copy) {
  size_t i = 0;
  while (i < copies_out_ && copies_[i] != copy) ++i;
  CHECK(i < copies_out_);
  copies_[i] = copies_[--copies_out_];
}

bool SumTable::Settle(Copy* copy) {
  Abandon(copy);
  if (copy->changed) return false;
  SetBits(stale_, copy->region, 1, false);
  const size_t index = Find(copy->region);
  if (index == kNoFrame) return true;
  // Nothing was written since, so that the copy knows all that the frame does, but for what was
  // loaded of lower layers meanwhile.
  Frame& frame = frames_[index];
  for (size_t at = 0; at < kRegionBlocks; ++at) {
    if (Bit(copy->known, at)) frame.sums[at] = copy->sums[at];
  }
  for (size_t word = 0; word < kWords; ++word) frame.known[word] |= copy->known[word];
  if (metas_[index].dirty) --dirty_;
  metas_[index].dirty = false;
  metas_[index].loaded = metas_[index].loaded || AllSet(frame.known);
  return true;
}

void SumTable::Freeze(std::vector<std::unique_ptr<Frozen>>* to) {
  // What is being written goes to the old file: the new one settles nothing by it.
  for (size_t i = 0; i < copies_out_; ++i) copies_[i]->changed = true;
  to->reserve(dirty_);
  for (size_t index = 0; index < made_; ++index) {
    Meta& meta = metas_[index];
    if (!meta.in_use || (!meta.dirty && !stale(meta.region))) continue;
    auto frozen = std::make_unique<Frozen>();
    frozen->region = meta.region;
    frozen->stale = stale(meta.region);
    std::memcpy(frozen->sums, frames_[index].sums, sizeof(frozen->sums));
    std::memcpy(frozen->known, frames_[index].known, sizeof(frozen->known));
    to->push_back(std::move(frozen));
    meta.dirty = false;
    // Of a stale region more was looked for than is known.
    meta.loaded = AllSet(frames_[index].known);
  }
  dirty_ = 0;
  for (uint64_t word = 0; word < DivideUp(regions_, kWordBits); ++word) {
    for (uint64_t bits = std::exchange(stale_[word], 0); bits != 0; bits &= bits - 1) {
      const uint64_t region = word * kWordBits + static_cast<uint64_t>(std::countr_zero(bits));
      if (Find(region) != kNoFrame) continue;
      auto frozen = std::make_unique<Frozen>();
      frozen->region = region;
      frozen->stale = true;
      std::memset(frozen->known, 0, sizeof(frozen->known));
      to->push_back(std::move(frozen));
    }
  }
  std::sort(to->begin(), to->end(),
            [](const auto& a, const auto& b) { return a->region < b->region; });
}

void SumTable::Trim() {
  if (!reserved()) return;
  for (size_t index = 0; index < made_; ++index) {
    if (metas_[index].in_use && !metas_[index].dirty) Drop(index);
  }
  if (used_ > 0) return;
  // The frames come first.
  madvise(frames_, RoundUp(kFrames * sizeof(Frame), kBlockBytes), MADV_DONTNEED);
  made_ = 0;
  hand_ = 0;
}

}  // namespace ankole::replica

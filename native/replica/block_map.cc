#include "replica/block_map.h"

#include <sys/mman.h>

#include <algorithm>
#include <utility>

namespace ankole::replica {
namespace {

constexpr size_t kPageBytes = 4096;

}  // namespace

BlockMap::BlockMap(BlockMap&& other) noexcept { *this = std::move(other); }

BlockMap& BlockMap::operator=(BlockMap&& other) noexcept {
  if (this == &other) return *this;
  entries_memory_ = std::move(other.entries_memory_);
  leaves_memory_ = std::move(other.leaves_memory_);
  entries_ = std::exchange(other.entries_, nullptr);
  leaves_ = std::exchange(other.leaves_, nullptr);
  chunks_ = std::exchange(other.chunks_, 0);
  return *this;
}

Status BlockMap::Reserve(uint64_t blocks) {
  const uint64_t chunks = DivideUp(blocks, kChunkBlocks);
  CHECK(chunks > 0);
  // There was to be more once, and there was no more.
  if (chunks <= chunks_) return Status::Ok();
  // The leaves first: they count where an entry says so.
  RETURN_IF_ERROR(leaves_memory_.Grow(chunks * kLeafBytes, "the block map"));
  leaves_ = leaves_memory_.as<uint16_t>();
  RETURN_IF_ERROR(entries_memory_.Grow(chunks * sizeof(uint16_t), "the block map"));
  entries_ = entries_memory_.as<uint16_t>();
  chunks_ = chunks;
  return Status::Ok();
}

BlockMap::Run BlockMap::Find(uint64_t block, uint64_t blocks_max) const {
  CHECK(blocks_max > 0);
  if (entries_ == nullptr) return {0, blocks_max};
  const uint16_t layer = Layer(block);
  const uint64_t end = block + blocks_max;
  uint64_t at = block;
  while (at < end) {
    const uint64_t chunk = at / kChunkBlocks;
    const uint64_t chunk_end = std::min(end, (chunk + 1) * kChunkBlocks);
    if (entries_[chunk] != kMixed) {
      if (entries_[chunk] != layer) break;
      at = chunk_end;
      continue;
    }
    const uint16_t* leaf = Leaf(chunk);
    while (at < chunk_end && leaf[at % kChunkBlocks] == layer) ++at;
    if (at < chunk_end) break;
  }
  return {layer, at - block};
}

void BlockMap::Set(uint64_t block, uint64_t blocks, uint16_t layer) {
  CHECK(entries_ != nullptr && layer != kMixed);
  CHECK(block + blocks <= chunks_ * kChunkBlocks);
  const uint64_t end = block + blocks;
  while (block < end) {
    const uint64_t chunk = block / kChunkBlocks;
    const uint64_t first = block % kChunkBlocks;
    const uint64_t count = std::min(end - block, kChunkBlocks - first);
    block += count;
    if (entries_[chunk] == layer) continue;
    if (count == kChunkBlocks) {
      entries_[chunk] = layer;
      continue;
    }
    uint16_t* leaf = Leaf(chunk);
    if (entries_[chunk] != kMixed) {
      std::fill_n(leaf, kChunkBlocks, entries_[chunk]);
      entries_[chunk] = kMixed;
    }
    std::fill_n(leaf + first, count, layer);
  }
}

void BlockMap::Compact() {
  if (entries_ == nullptr) return;
  constexpr uint64_t kLeavesPerPage = kPageBytes / kLeafBytes;
  for (uint64_t page = 0; page < chunks_; page += kLeavesPerPage) {
    bool was_used = false;
    bool used = false;
    for (uint64_t chunk = page; chunk < std::min(chunks_, page + kLeavesPerPage); ++chunk) {
      if (entries_[chunk] != kMixed) continue;
      was_used = true;
      const uint16_t* leaf = Leaf(chunk);
      if (std::all_of(leaf, leaf + kChunkBlocks, [&](uint16_t at) { return at == leaf[0]; })) {
        entries_[chunk] = leaf[0];
      } else {
        used = true;
      }
    }
    if (was_used && !used) madvise(Leaf(page), kPageBytes, MADV_DONTNEED);
  }
}

uint64_t BlockMap::CountLeaves() const {
  if (entries_ == nullptr) return 0;
  return static_cast<uint64_t>(std::count(entries_, entries_ + chunks_, kMixed));
}

}  // namespace ankole::replica

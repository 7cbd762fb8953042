#pragma once

#include <cstddef>
#include <cstdint>

#include "base/mapping.h"
#include "base/result.h"
#include "base/units.h"

namespace ankole::replica {

// Which layer holds each 4 KiB block of the volume: an entry of 16 bits for 2 MiB that lie in one
// layer, and a leaf of 512 entries where they are mixed. Entries and leaves have fixed addresses in
// memory that is reserved at once and taken by first use, so that no write allocates.
//
// Everything lies in layer 0, the bottom, until it is set: of a volume that is in one layer the map
// takes no memory.
class BlockMap {
 public:
  static constexpr uint16_t kZero = 0xffff;  // in no layer: masked, reads as zeros
  static constexpr uint64_t kChunkBlocks = 512;
  static constexpr uint64_t kChunkBytes = kChunkBlocks * kBlockBytes;

  struct Run {
    uint16_t layer = 0;
    uint64_t blocks = 0;
  };

  BlockMap() = default;
  BlockMap(BlockMap&& other) noexcept;
  BlockMap& operator=(BlockMap&& other) noexcept;

  // Address space for a volume of that many blocks; again for one that becomes larger, or was
  // to. Until then the map is of one layer: every block is in 0, and Set is a fault of ours.
  Status Reserve(uint64_t blocks);
  bool reserved() const { return entries_ != nullptr; }

  uint16_t Layer(uint64_t block) const {
    if (entries_ == nullptr) return 0;
    const uint16_t entry = entries_[block / kChunkBlocks];
    return entry == kMixed ? Leaf(block / kChunkBlocks)[block % kChunkBlocks] : entry;
  }
  // The blocks from `block` on, at most `blocks_max` (> 0), that lie in the same layer.
  Run Find(uint64_t block, uint64_t blocks_max) const;
  void Set(uint64_t block, uint64_t blocks, uint16_t layer);
  // Gives up leaves whose entries are all equal. For after the map was built.
  void Compact();
  // Leaves in use, for tests and metrics: 1 KiB each.
  uint64_t CountLeaves() const;

 private:
  static constexpr uint16_t kMixed = 0xfffe;
  static constexpr size_t kLeafBytes = kChunkBlocks * sizeof(uint16_t);

  uint16_t* Leaf(uint64_t chunk) const { return leaves_ + chunk * kChunkBlocks; }

  Mapping entries_memory_;
  Mapping leaves_memory_;
  uint16_t* entries_ = nullptr;  // one a chunk: a layer, kZero or kMixed
  uint16_t* leaves_ = nullptr;   // kChunkBlocks a chunk; valid where the entry is kMixed
  uint64_t chunks_ = 0;
};

}  // namespace ankole::replica

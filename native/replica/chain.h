#pragma once

#include <atomic>
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "base/limits.h"
#include "base/result.h"
#include "io/file_system.h"
#include "replica/block_map.h"
#include "replica/layer.h"
#include "replica/metadata.h"

namespace ankole::replica {

// Reads the layers' .meta files from the head down to the bottom.
Result<std::vector<LayerMeta>> ReadChain(io::FileSystem& files, const std::string& directory,
                                         const VolumeMeta& volume);

// The layers of a replica, open, from the bottom (0) to the head.
class Chain {
 public:
  Chain() = default;
  Chain(Chain&& other) noexcept;
  Chain& operator=(Chain&& other) noexcept;

  // Opens the layers' files and checks them against the metadata; `layers` from the head down.
  static Result<Chain> Open(io::FileSystem& files, const std::string& directory,
                            const VolumeMeta& volume, const std::vector<LayerMeta>& layers,
                            bool direct);
  void Close(io::FileSystem& files);

  uint64_t size_bytes() const { return size_bytes_.load(std::memory_order_relaxed); }
  uint64_t blocks() const { return DivideUp(size_bytes(), kBlockBytes); }
  // The volume became larger, and the head's file is.
  void Grow(uint64_t size_bytes);
  uint16_t head_index() const { return static_cast<uint16_t>(layers_.size() - 1); }
  bool head_alone() const { return layers_.size() == 1; }
  Layer& head() { return layers_.back(); }
  Layer& layer(uint16_t index) { return layers_[index]; }
  std::vector<Layer>& layers() { return layers_; }
  const std::vector<Layer>& layers() const { return layers_; }
  // A new head; what was the head is a layer now.
  void Push(Layer head) { layers_.push_back(std::move(head)); }

  // Fills the map from the extents and masks of all layers but the bottom, which is its default.
  Status BuildMap(io::FileSystem& files, const std::string& directory, BlockMap* map);

 private:
  std::vector<Layer> layers_;
  // Jobs look at it. Where it was a multiple of the block it is all the same to what is under way
  // whether it grows meanwhile; otherwise nothing is.
  std::atomic<uint64_t> size_bytes_ = 0;
};

}  // namespace ankole::replica

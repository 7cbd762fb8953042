#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "replica/metadata.h"
#include "sim/disk.h"

namespace ankole::sim {

// The layers of a replica as its files have them at this moment, whatever its disk host is about.
// It holds no copy of their data: good until the world goes on.
class LayersNow {
 public:
  struct Layer {
    replica::LayerMeta meta;
    InodePtr data;
    InodePtr sums;             // null: there are none
    uint64_t size_bytes = 0;   // behind that it has nothing
    std::vector<bool> masked;  // by block; empty: none is
    bool sealed = false;       // of the head: false
    bool live() const { return sealed && !meta.removed; }
    bool Masks(uint64_t block) const { return block < masked.size() && masked[block]; }
    std::string snapshot() const { return replica::SnapshotNameOf(meta.name); }
  };

  // kBusy while files are being given other names, unless `while_named`: then the layers are those
  // that they are given to, but programs do not find them under these.
  static Result<LayersNow> Read(Disk& disk, const std::string& directory, bool while_named);

  uint64_t size_bytes() const { return size_bytes_; }
  // The head first.
  const std::vector<Layer>& chain() const { return chain_; }
  // Frozen layers that the head does not stand on.
  const std::vector<Layer>& branches() const { return branches_; }
  // What that one stands on, itself first; without branches of its own. kNotFound: one is missing.
  Result<LayersNow> Branch(const Layer& layer) const;
  // How many layers stand on it, the head included.
  size_t Children(const Layer& layer) const;
  // All files are called as they are to be.
  bool named() const { return named_; }
  // Where the snapshot is in the chain.
  std::optional<size_t> Find(const std::string& snapshot) const;

  // What a program finds of the block in this layer or under it.
  struct Place {
    size_t layer = 0;            // the bottom where nothing is there
    const Page* page = nullptr;  // null: zeros
  };
  Place PlaceOf(uint64_t block, size_t from) const;
  const std::byte* DataOf(uint64_t block, size_t from) const;
  // What the files of checksums say of it.
  uint32_t SumOf(uint64_t block, const Place& place) const;
  // The blocks that some layer from there on down has something of, in order.
  std::vector<uint64_t> Blocks(size_t from) const;
  // For findings: what each layer has of the block.
  std::string Describe(uint64_t block) const;
  // What replica::View is opened with, for the layer.
  std::vector<replica::LayerMeta> Metas(size_t from) const;

 private:
  uint32_t SumOfLayer(size_t at, uint64_t block) const;

  const Disk* disk_ = nullptr;
  std::vector<Layer> chain_;
  std::vector<Layer> branches_;
  uint64_t size_bytes_ = 0;
  bool named_ = true;
};

}  // namespace ankole::sim

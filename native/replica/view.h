#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "io/file_system.h"
#include "replica/block_map.h"
#include "replica/metadata.h"
#include "replica/operation.h"
#include "replica/sum_file.h"

namespace ankole::replica {

// What a volume held according to a frozen layer and those under it. It has files of its own, so
// that layers may be merged and renamed meanwhile: what it reads of them does not change.
//
// Made, used and destroyed by blocking calls; any number of threads may read at a time.
class View {
 public:
  // `layers` from the wanted one down to the bottom, or (with `difference`) down to the one
  // above the base: then only Extents can be asked for. `size_bytes`: of the volume.
  static Result<std::unique_ptr<View>> Open(io::FileSystem& files, const std::string& directory,
                                            const std::vector<LayerMeta>& layers,
                                            uint64_t size_bytes, bool checksums, bool difference);
  ~View();
  View(const View&) = delete;
  View& operator=(const View&) = delete;

  bool difference() const { return difference_; }
  // kRead: kCorrupt where a block does not match its checksum (rule 9). Fills the operation's
  // checksums where they are asked for.
  Status Read(ReplicaOperation* operation) const;
  // kSum.
  Status Sum(ReplicaOperation* operation) const;
  // kStatus. Of a difference what is in none of its layers is a hole that does not read as zeros.
  void Extents(ReplicaOperation* operation) const;

 private:
  // In no layer, and masked: reads as zeros. Of BlockMap's numbers those that no layer has.
  static constexpr uint16_t kNowhere = BlockMap::kZero;
  static constexpr uint16_t kMasked = BlockMap::kZero - 2;
  struct Layer {
    io::File file;
    std::unique_ptr<SumFile> sums;  // null: there are none
  };
  // Pages of checksums of one region, by layer, read when they are wanted first.
  class Pages;

  explicit View(io::FileSystem& files) : files_(files) {}
  Status OpenLayer(const std::string& directory, const LayerMeta& meta, bool checksums);
  // [offset, end) of one run of the map.
  Status ReadRun(uint16_t layer, uint64_t offset_bytes, std::byte* to, uint64_t length_bytes,
                 bool once) const;
  bool MayHoldBad(uint64_t region) const;
  // The volume may have become larger since it was opened: behind the end there is nothing.
  BlockMap::Run Find(uint64_t block, uint64_t blocks_max) const;
  uint64_t BlockBytes(uint64_t block) const;

  io::FileSystem& files_;
  std::vector<Layer> layers_;  // from the bottom
  BlockMap map_;
  uint64_t size_bytes_ = 0;  // of the volume, when it was opened
  bool difference_ = false;
};

}  // namespace ankole::replica

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sim/cluster.h"
#include "sim/rot.h"

namespace ankole::sim {

// What must hold of the layers of replicas, as they lie on the disks: rule 8 for their files, rule
// 9 for their checksums. It only looks.
class LayerChecks {
 public:
  LayerChecks(Cluster& cluster, const Rot& rot) : cluster_(cluster), rot_(rot) {}

  // What is left to be done at the members: layers that are to be merged, files that are nobody's.
  // Empty: nothing. After a snapshot was taken, so that none is prepared.
  std::string Unrest() const;
  // No files of these are being renamed: only then can they be looked at.
  bool Readable(const wire::Members& members) const;
  // They were closed as equal: their heads must be, byte by byte, and synced.
  void Equal(const wire::Members& members);
  // Where a checksum is stored it must match. `regions`: of its map. `known`: none is lacking in
  // the head.
  void CheckSums(size_t replica, const std::vector<uint8_t>& regions, bool known);

 private:
  std::string CheckSums(const LayersNow& layers, size_t at, size_t replica,
                        const std::vector<uint8_t>& regions, bool known) const;
  // Why what is stored of the block, of which the disk has that data, is wrong; empty: it is not.
  std::string WrongSum(uint64_t block, uint32_t stored, const std::byte* data, bool known) const;
  bool IsKnownFile(const LayersNow& layers, const std::string& name) const;
  void Finding(size_t replica, const std::string& what);

  Cluster& cluster_;
  const Rot& rot_;
};

}  // namespace ankole::sim

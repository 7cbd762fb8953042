#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "io/file_system.h"

namespace ankole::replica {

// What the files of one replica take up on their file system: blocks that are allocated, as stat(2)
// counts them.
struct ReplicaUsage {
  struct Layer {
    std::string name;  // of the snapshot; empty: the head
    uint64_t allocated_bytes = 0;
  };
  std::vector<Layer> layers;  // by the names of their files
  // All else in the directory, and the directory itself: maps, checksums, records, and layers that
  // belong to no chain any more and are still to go.
  uint64_t metadata_bytes = 0;

  Json ToJson() const;
};

// May be called while the replica is open: what comes or goes meanwhile may be counted or not.
// kNotFound, kIoError, kCorrupt: what cannot be read.
Result<ReplicaUsage> UsageOf(io::FileSystem& files, const std::string& directory);

}  // namespace ankole::replica

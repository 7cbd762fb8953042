#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "io/file_system.h"
#include "replica/metadata.h"
#include "wire/record.h"

// A linked clone: a replica of another volume on the same disk whose bottom layers are the files of
// a snapshot here, under second names (hard links). So it is made at once, and takes no space. Such
// a file has more than one name, which is how either side knows that it must not change: it needs
// no record, and heals by itself when either volume is deleted (docs/internals/snapshots.md,
// «Clones»).
namespace ankole::replica {

struct CloneTarget {
  std::string directory;
  Identity identity;
  uint64_t size_bytes = 0;
  // What all replicas of the clone begin with: FirstRecordOfClone.
  wire::Record record;
  // The layers from the snapshot's down to the bottom: kClone fills it.
  std::vector<LayerMeta> chain;
};

// No engine writes one of attachment 0, and it is no salvage's, which is of run 0.
wire::Record FirstRecordOfClone(const wire::Members& members);

// Makes the replica, whole or not at all, of layers in `directory`: their data linked, what
// describes it copied, an empty head on top. In the new replica they count as removed: they are
// nobody's snapshots, and are merged once they are its own. kOk where it is there already;
// kInvalidArgument where the snapshot is of a larger volume.
Status MakeClone(io::FileSystem& files, const std::string& directory, const CloneTarget& target);

}  // namespace ankole::replica

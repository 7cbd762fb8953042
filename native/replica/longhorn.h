#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "io/file_system.h"
#include "replica/metadata.h"

// A replica directory as Longhorn's v1 engine leaves it: what is in it, and what speaks against
// serving it. What is read as what: docs/operating/longhorn.md.
namespace ankole::replica {

// More layers than this, the head among them, Longhorn does not open.
inline constexpr size_t kLonghornLayersMax = 250;
inline constexpr std::string_view kRevisionName = "revision.counter";
// The label that keeps the name of a snapshot that could not be a layer's name here.
inline constexpr std::string_view kLonghornNameLabel = "ankole.longhorn-name";

// What may be wrong with a directory and be taken all the same, if somebody says so.
struct LonghornAccept {
  bool dirty = false;       // a replica had it open and did not close it
  bool rebuilding = false;  // it was being filled from another replica
  bool error = false;       // Longhorn noted an error

  // By its name; kInvalidArgument for any other.
  Status Add(const std::string& what);
};

struct LonghornProblem {
  std::string kind;  // "dirty", "rebuilding", "error": see LonghornAccept; empty: not to be taken
  std::string message;
};

struct LonghornLayer {
  // Its parent is a file name of Longhorn's, as found.
  LayerMeta meta;
  std::string mapped;  // what its file is to be called here: meta.name where that will do
  uint64_t size_bytes = 0;
  uint64_t allocated_bytes = 0;
  // Allocated and never written: it reads as zeros there, and hides what is below. None is counted
  // in a layer that has nothing below.
  uint64_t unwritten_bytes = 0;
};

struct LonghornReplica {
  std::string directory;
  VolumeMeta volume;                  // as found; its size may be none that a volume has here
  uint64_t volume_bytes = 0;          // rounded up to whole blocks of 4 KiB
  std::string error;                  // Error
  std::vector<LonghornLayer> layers;  // from the head down to the bottom, then other branches
  size_t chain = 0;                   // how many of them the head stands on, it among them
  std::optional<uint64_t> revision;   // of the file revision.counter
  // Of a renaming that was begun: the file is there under its new name as well.
  std::vector<std::string> leftovers;
  bool adopting = false;  // an adoption of it was begun
  std::vector<std::string> notes;
  std::vector<LonghornProblem> problems;

  // Of what is wrong and not accepted; kOk where nothing is.
  Status Obstacle(const LonghornAccept& accept) const;
  Json ToJson() const;
};

struct LonghornOptions {
  std::string backing_file;  // instead of what volume.meta says; empty: that
  bool copied = false;       // it is copied first: other names of its files do no harm
};

// Reads and judges a directory, and changes nothing in it. Fails only where there is nothing to
// judge: no directory, no volume.meta that can be read.
Result<LonghornReplica> ReadLonghorn(io::FileSystem& files, const std::string& directory,
                                     const LonghornOptions& options);

// Where the name of a layer's file is none here: another one, the same each time.
std::string MapLayerName(const std::string& file_name);

// How far a copy has come; false: it is to end, with kCancelled.
using CopyProgress = std::function<bool(uint64_t bytes)>;

// Copies a sparse file: holes stay holes, and what was allocated and never written stays so.
// Durable but for its name. The file is made anew.
Status CopySparseFile(io::FileSystem& files, const std::string& from, const std::string& to,
                      const CopyProgress& progress);

}  // namespace ankole::replica

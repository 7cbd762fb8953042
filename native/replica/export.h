#pragma once

#include <map>
#include <string>

#include "base/json.h"
#include "base/result.h"
#include "io/reactor.h"
#include "replica/longhorn.h"

// A way out: a replica here becomes a directory that Longhorn opens.
namespace ankole::replica {

struct ExportOptions {
  // The layer of a snapshot that the volume is to be as; empty: what it holds now.
  std::string snapshot;
  // What snapshots are called there, by their layers; others go by the layer's name.
  std::map<std::string, std::string> names;
  // Also where Longhorn does not open it, as the chain is too long.
  bool any_length = false;
};

// Copies the replica in `directory`, which nobody may have open, to `target`, which is made: the
// layers by extents, masks as zeros that are written, and Longhorn's metadata. What is copied is
// verified where it has checksums. The directory has its name when it is complete and durable.
// kBusy: it is open; kUnavailable: it was not stopped clean; kCorrupt: a block is damaged;
// kUnsupported: the chain is too long.
//
// {"directory", "sizeBytes", "chain", "layers", "copiedBytes", "maskedBytes", "notes"}
Result<Json> ExportLonghorn(io::Reactor& reactor, const std::string& directory,
                            const std::string& target, const ExportOptions& options,
                            const CopyProgress& progress);

}  // namespace ankole::replica

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "sim/cluster.h"
#include "sim/layer_checks.h"
#include "sim/rot.h"

namespace ankole::sim {

// What must hold of the engine, the disk hosts and what lies on the disks, whatever clients are
// told: maps and memory within their bounds (rule 5), checksums that match (rule 9). It only looks:
// nothing in a run changes by it.
class Checks {
 public:
  Checks(Cluster& cluster, const Rot& rot);

  // Clients want nothing any more, and all replicas are members: what has not come to rest, of the
  // engine and of the disk hosts. Empty: nothing. `snapshots`: the last thing that was asked for
  // was to take one, and it was answered.
  std::string Unrest(bool snapshots);
  // The fewest bytes that the whole simulation has allocated at a time within the next `time_ns`.
  uint64_t AllocatedWithin(uint64_t time_ns);
  // The engine closed the record's members clean. `all_sums`: Unrest was empty before, and there
  // was no stop before this one, so that no region was left without its checksums.
  bool Readable(const wire::Members& members) const { return layers_.Readable(members); }
  void ClosedClean(const wire::Record& record, bool all_sums);

 private:
  // The maps of an open replica, as its disk host tells.
  struct Maps {
    uint64_t dirty = 0;     // regions; 0 where it goes by its file
    wire::Members missing;  // replicas that have a map
  };
  // Its disk host was started since the engine was, and took the dirty regions from the file, which
  // may show more than there are: the engine may not have heard of those yet.
  bool GoesByFile(size_t replica);
  // The engine has asked the process that the replica's disk host is now.
  bool CountsDirtyOf(size_t replica);
  std::optional<Maps> MapsOf(size_t replica);
  // The same of one that is closed, as they lie on its disk.
  struct Closed {
    bool clean = false;
    wire::Record record;
    std::vector<uint8_t> regions;
    wire::Members missing;
  };
  std::optional<Closed> ReadClosed(size_t replica);
  void LookEverySecond();
  void Look();
  void CheckMissing(size_t replica, const wire::Members& missing);
  void Finding(size_t replica, const std::string& what);

  Cluster& cluster_;
  const Rot& rot_;
  LayerChecks layers_;
  wire::Members ever_members_;
};

}  // namespace ankole::sim

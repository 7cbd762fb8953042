#pragma once

#include <cstdint>

#include "base/json.h"
#include "engine/region_table.h"
#include "engine/walker.h"

namespace ankole::engine {

// Goes once through a part of the volume in the background, and compares what all members have
// there (rule 9): blocks that are corrupt at one are written anew from another, and those that
// members differ in are counted.
class Scrubber final : Walker::Client {
 public:
  // Regions in `unequal` are left out: something else makes them equal.
  Scrubber(ResyncHost& host, Copier& copier, RegionTable& table, const RegionSet& unequal);

  // From the start again where one is under way. `bytes_per_second` of the volume; 0: no bound.
  void Start(RegionRun regions, uint64_t bytes_per_second);
  void Pump() { walker_.Pump(); }
  void Stop();
  bool running() const { return done_ < total_; }
  bool idle() const { return walker_.idle(); }
  uint64_t repaired_blocks() const { return totals_.repaired_blocks; }
  // Of the one that is under way, or the last one.
  Json ToJson() const;

 private:
  bool NextRegion(Walker::Region* region) override;
  void RegionDone(const Walker::Region& region, ErrorCode status,
                  const Walker::Totals& totals) override;

  ResyncHost& host_;
  RegionTable& table_;
  const RegionSet& unequal_;
  Walker walker_;
  uint64_t next_ = 0;  // region
  uint64_t end_ = 0;
  uint64_t round_ = 0;  // grows with each Start
  uint64_t total_ = 0;
  uint64_t done_ = 0;
  uint64_t failed_ = 0;  // regions that could not be compared
  Walker::Totals totals_;
};

}  // namespace ankole::engine

#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "base/json.h"
#include "engine/region_table.h"
#include "engine/walker.h"

namespace ankole::engine {

// What a scrub has gone through, and what it found.
struct ScrubProgress {
  uint64_t regions_done = 0;    // from its beginning on; none before that is left
  uint64_t regions_failed = 0;  // of these, those that could not be compared
  uint64_t repaired_blocks = 0;
  uint64_t corrupt_blocks = 0;  // at all members
  uint64_t differing_blocks = 0;
};

// Goes once through a part of the volume in the background, and compares what all members have
// there (rule 9): blocks that are corrupt at one are written anew from another, and those that
// members differ in are counted.
class Scrubber final : Walker::Client {
 public:
  // Regions in `unequal` are left out: something else makes them equal.
  Scrubber(ResyncHost& host, Copier& copier, RegionTable& table, const RegionSet& unequal);

  // One that is under way ends, but for one of the same `id`, which gets the new rate only. `id`:
  // the caller's, for the reports. `bytes_per_second` of the volume; 0: no bound. `before`: of an
  // earlier run that was broken off; this one goes on behind it, and counts on.
  void Start(const std::string& id, RegionRun regions, uint64_t bytes_per_second,
             const ScrubProgress& before);
  void Pump() { walker_.Pump(); }
  void Stop();
  bool running() const { return state_ == State::kStarted && Passed() < end_; }
  bool idle() const { return walker_.idle(); }
  // By this process.
  uint64_t repaired_blocks() const { return repaired_blocks_; }
  // Whether there is something to report: it ended, or went on for a while.
  bool TakeNews(uint64_t now_ns);
  // Of the one that is under way, or the last one.
  Json ToJson() const;

 private:
  enum class State : uint8_t { kNone, kStarted, kStopped };
  static constexpr uint64_t kNoRegion = UINT64_MAX;

  // The region before which all are done.
  uint64_t Passed() const;
  bool finished() const { return state_ == State::kStarted && !running(); }
  bool NextRegion(Walker::Region* region) override;
  void RegionDone(const Walker::Region& region, ErrorCode status,
                  const Walker::Totals& totals) override;

  ResyncHost& host_;
  RegionTable& table_;
  const RegionSet& unequal_;
  Walker walker_;
  State state_ = State::kNone;
  std::string id_;
  uint64_t begin_ = 0;  // regions
  uint64_t next_ = 0;
  uint64_t end_ = 0;
  uint64_t round_ = 0;  // grows with each Start
  // Those of this round that the walker is at.
  std::array<uint64_t, Walker::kJobs> walked_;
  ScrubProgress found_;  // but for regions_done
  uint64_t repaired_blocks_ = 0;
  uint64_t told_ns_ = 0;
  bool told_end_ = true;
};

}  // namespace ankole::engine

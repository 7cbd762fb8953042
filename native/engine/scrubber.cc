#include "engine/scrubber.h"

#include <algorithm>

namespace ankole::engine {
namespace {

// The background leaves so much of the table of dirty regions to clients.
constexpr size_t kOpenMax = kDirtyRegionsMax - 256;

}  // namespace

Scrubber::Scrubber(ResyncHost& host, Copier& copier, RegionTable& table, const RegionSet& unequal)
    : host_(host),
      table_(table),
      unequal_(unequal),
      walker_(host, copier, *this, CopyKind::kScrub) {}

void Scrubber::Start(RegionRun regions, uint64_t bytes_per_second) {
  next_ = regions.first;
  end_ = std::min(uint64_t{regions.first} + regions.count, table_.regions());
  total_ = end_ > next_ ? end_ - next_ : 0;
  done_ = failed_ = 0;
  totals_ = {};
  ++round_;
  walker_.SetRate(bytes_per_second);
}

void Scrubber::Stop() {
  end_ = next_;
  total_ = done_;
  ++round_;
  walker_.Cancel();
}

bool Scrubber::NextRegion(Walker::Region* region) {
  if (!host_.Settled()) return false;
  while (next_ < end_ && unequal_.Contains(next_)) {
    ++next_;
    ++done_;
  }
  if (next_ >= end_) return false;
  // What is repaired is written.
  const RegionRun run = {static_cast<uint32_t>(next_), 1};
  if (!table_.Pin(run, host_.reactor().NowNs(), kOpenMax)) return false;
  region->number = run.first;
  region->round = round_;
  ++next_;
  return true;
}

void Scrubber::RegionDone(const Walker::Region& region, ErrorCode status,
                          const Walker::Totals& totals) {
  table_.Unpin({region.number, 1}, host_.reactor().NowNs());
  if (region.round != round_) return;
  ++done_;
  failed_ += status != ErrorCode::kOk ? 1 : 0;
  totals_.repaired_blocks += totals.repaired_blocks;
  totals_.corrupt_blocks += totals.corrupt_blocks;
  totals_.differing_blocks += totals.differing_blocks;
  if (totals.corrupt_blocks + totals.differing_blocks + totals.repaired_blocks == 0) return;
  host_.log().Log(LogLevel::kWarn,
                  "scrubbing region " + std::to_string(region.number) + ": " +
                      std::to_string(totals.repaired_blocks) +
                      " blocks were corrupt and repaired, " +
                      std::to_string(totals.corrupt_blocks) + " are corrupt at all members, " +
                      std::to_string(totals.differing_blocks) + " are not the same at all members");
}

Json Scrubber::ToJson() const {
  return Json::Object()
      .Set("running", running())
      .Set("regions", total_)
      .Set("regionsDone", done_)
      .Set("regionsFailed", failed_)
      .Set("repairedBlocks", totals_.repaired_blocks)
      .Set("corruptBlocks", totals_.corrupt_blocks)
      .Set("differingBlocks", totals_.differing_blocks);
}

}  // namespace ankole::engine

#include "engine/scrubber.h"

#include <algorithm>

namespace ankole::engine {
namespace {

// How often its progress is reported: what is done since is done again after a restart.
constexpr uint64_t kNewsNs = 60 * kNsPerSecond;

}  // namespace

Scrubber::Scrubber(ResyncHost& host, Copier& copier, RegionTable& table, const RegionSet& unequal)
    : host_(host),
      table_(table),
      unequal_(unequal),
      walker_(host, copier, *this, CopyKind::kScrub) {
  walked_.fill(kNoRegion);
}

void Scrubber::Start(const std::string& id, RegionRun regions, uint64_t bytes_per_second,
                     const ScrubProgress& before) {
  if (running() && !id.empty() && id == id_) {
    walker_.SetRate(bytes_per_second);
    return;
  }
  state_ = State::kStarted;
  id_ = id;
  begin_ = regions.first;
  end_ = std::min(uint64_t{regions.first} + regions.count, table_.regions());
  next_ = std::min(begin_ + before.regions_done, end_);
  walked_.fill(kNoRegion);
  found_ = before;
  told_ns_ = host_.reactor().NowNs();
  told_end_ = false;
  ++round_;
  walker_.SetRate(bytes_per_second);
}

void Scrubber::Stop() {
  if (running()) state_ = State::kStopped;
  next_ = end_;
  ++round_;
  walker_.Cancel();
}

uint64_t Scrubber::Passed() const {
  return std::min(next_, *std::min_element(walked_.begin(), walked_.end()));
}

bool Scrubber::TakeNews(uint64_t now_ns) {
  if (state_ == State::kNone || told_end_) return false;
  if (running() && ElapsedNs(told_ns_, now_ns) < kNewsNs) return false;
  told_ns_ = now_ns;
  told_end_ = !running();
  return true;
}

bool Scrubber::NextRegion(Walker::Region* region) {
  if (!host_.Settled()) return false;
  while (next_ < end_ && unequal_.Contains(next_)) ++next_;
  if (next_ >= end_) return false;
  // What is repaired is written.
  const RegionRun run = {static_cast<uint32_t>(next_), 1};
  if (!table_.Pin(run, host_.reactor().NowNs(), kBackgroundOpenMax)) return false;
  region->number = run.first;
  region->round = round_;
  *std::find(walked_.begin(), walked_.end(), kNoRegion) = next_++;
  return true;
}

void Scrubber::RegionDone(const Walker::Region& region, ErrorCode status,
                          const Walker::Totals& totals) {
  table_.Unpin({region.number, 1}, host_.reactor().NowNs());
  repaired_blocks_ += totals.repaired_blocks;
  if (region.round != round_) return;
  *std::find(walked_.begin(), walked_.end(), region.number) = kNoRegion;
  found_.regions_failed += status != ErrorCode::kOk ? 1 : 0;
  found_.repaired_blocks += totals.repaired_blocks;
  found_.corrupt_blocks += totals.corrupt_blocks;
  found_.differing_blocks += totals.differing_blocks;
  if (totals.corrupt_blocks + totals.differing_blocks + totals.repaired_blocks == 0) return;
  host_.log().Log(LogLevel::kWarn,
                  "scrubbing region " + std::to_string(region.number) + ": " +
                      std::to_string(totals.repaired_blocks) +
                      " blocks were corrupt and repaired, " +
                      std::to_string(totals.corrupt_blocks) + " are corrupt at all members, " +
                      std::to_string(totals.differing_blocks) + " are not the same at all members");
}

Json Scrubber::ToJson() const {
  // One that was stopped has come nowhere.
  const uint64_t done = state_ == State::kStarted ? Passed() - begin_ : 0;
  return Json::Object()
      .Set("id", id_)
      .Set("running", running())
      .Set("finished", finished())
      .Set("regions", end_ - begin_)
      .Set("regionsDone", done)
      .Set("regionsFailed", found_.regions_failed)
      .Set("repairedBlocks", found_.repaired_blocks)
      .Set("corruptBlocks", found_.corrupt_blocks)
      .Set("differingBlocks", found_.differing_blocks);
}

}  // namespace ankole::engine

#include "engine/walker.h"

#include <algorithm>
#include <bit>

namespace ankole::engine {
namespace {

// Chunks in flight at a time: enough to keep a disk and a network busy. While clients are at work
// half as many, so that none of their requests stands behind much; but for what is filled, as its
// redundancy is missed, and clients' requests stand behind its syncs much rather.
constexpr size_t kCopies = 4;
constexpr size_t kCopiesWhileBusy = 2;

}  // namespace

Walker::Walker(ResyncHost& host, Copier& copier, Client& client, CopyKind kind)
    : host_(host), copier_(copier), client_(client), kind_(kind) {
  for (Job& job : jobs_) job.walker = this;
  timer_.owner = this;
  timer_.done = [](io::Operation* operation) { static_cast<Walker*>(operation->owner)->Pump(); };
}

void Walker::Cancel() {
  host_.reactor().Cancel(&timer_);
  for (Job& job : jobs_) {
    if (!job.used) continue;
    if (job.status == ErrorCode::kOk) job.status = ErrorCode::kCancelled;
    if (job.copies > 0) continue;
    job.used = false;
    client_.RegionDone(job.region, job.status, job.totals);
  }
}

bool Walker::idle() const {
  return std::none_of(jobs_.begin(), jobs_.end(), [](const Job& job) { return job.used; });
}

void Walker::SetRate(uint64_t bytes_per_second) {
  pace_.Set(bytes_per_second, host_.reactor().NowNs());
  Pump();
}

bool Walker::MayStart() {
  const uint64_t now_ns = host_.reactor().NowNs();
  const uint64_t wait_ns = pace_.WaitNs(now_ns);
  if (wait_ns == 0) return true;
  host_.reactor().Arm(&timer_, now_ns + wait_ns);
  return false;
}

// The one that has chunks left to start; else the next region's.
Walker::Job* Walker::NextJob() {
  Job* unused = nullptr;
  for (Job& job : jobs_) {
    if (!job.used) {
      unused = &job;
    } else if (job.next_bytes < job.end_bytes && job.status == ErrorCode::kOk) {
      return &job;
    }
  }
  Region region;
  if (unused == nullptr || !client_.NextRegion(&region)) return nullptr;
  unused->used = true;
  unused->region = region;
  unused->next_bytes = region.number * kRegionBytes;
  unused->end_bytes = std::min(unused->next_bytes + kRegionBytes, host_.size_bytes());
  unused->status = ErrorCode::kOk;
  unused->totals = {};
  Skip(unused);
  return unused;
}

// To the next part that is wanted.
void Walker::Skip(Job* job) {
  const uint64_t start = job->region.number * kRegionBytes;
  const uint64_t part = DivideUp(job->next_bytes - start, LackSet::kPartBytes);
  const uint64_t left = part < 64 ? job->region.parts >> part : 0;
  const uint64_t next = left == 0 ? job->end_bytes
                                  : start + (part + static_cast<uint64_t>(std::countr_zero(left))) *
                                                LackSet::kPartBytes;
  job->next_bytes = std::min(next, job->end_bytes);
}

// From there on, as far as parts are wanted.
uint32_t Walker::ChunkBytes(const Job& job) {
  const uint64_t part = job.next_bytes % kRegionBytes / LackSet::kPartBytes;
  const auto parts = static_cast<uint64_t>(std::countr_one(job.region.parts >> part));
  return static_cast<uint32_t>(std::min<uint64_t>(
      {kDataBytesMax, parts * LackSet::kPartBytes, job.end_bytes - job.next_bytes}));
}

size_t Walker::CopiesMax() const {
  return kind_ != CopyKind::kFill && host_.Busy() ? kCopiesWhileBusy : kCopies;
}

void Walker::Pump() {
  if (pumping_) return;
  pumping_ = true;
  while (copies_ < CopiesMax() && client_.MayCopy() && MayStart()) {
    Copy* copy = copier_.Acquire();
    if (copy == nullptr) break;
    Job* job = NextJob();
    if (job == nullptr) {
      copier_.Release(copy);
      break;
    }
    copy->kind = kind_;
    copy->offset_bytes = job->next_bytes;
    copy->length_bytes = ChunkBytes(*job);
    copy->virgin = job->region.virgin;
    copy->joiner = job->region.joiner;
    copy->views = job->region.views;
    copy->owner = job;
    copy->done = [](Copy* done) { static_cast<Job*>(done->owner)->walker->OnCopy(done); };
    job->next_bytes += copy->length_bytes;
    Skip(job);
    ++job->copies;
    ++copies_;
    if (kind_ == CopyKind::kScrub) pace_.Spend(copy->length_bytes);
    copier_.Start(copy);
  }
  pumping_ = false;
}

void Walker::OnCopy(Copy* copy) {
  auto* job = static_cast<Job*>(copy->owner);
  if (job->status == ErrorCode::kOk) job->status = copy->status;
  job->totals.copied_bytes += copy->copied_bytes;
  job->totals.repaired_blocks += copy->repaired_blocks;
  job->totals.corrupt_blocks += copy->corrupt_blocks;
  job->totals.differing_blocks += copy->differing_blocks;
  const uint32_t copied_bytes = copy->copied_bytes;
  if (kind_ != CopyKind::kScrub) pace_.Spend(copied_bytes);
  copier_.Release(copy);
  --job->copies;
  --copies_;
  client_.ChunkDone(copied_bytes);
  const bool ended = job->next_bytes >= job->end_bytes || job->status != ErrorCode::kOk;
  if (job->copies == 0 && ended) {
    job->used = false;
    client_.RegionDone(job->region, job->status, job->totals);
  }
  Pump();
}

}  // namespace ankole::engine

#include "engine/cleaner.h"

#include <span>

namespace ankole::engine {
namespace {

// A region that was not written for so long will hardly be written in the next moments either.
constexpr uint64_t kColdNs = 30 * kNsPerSecond;
// What a joiner received is made safe from a new start this often.
constexpr uint64_t kCopiedNs = 5 * kNsPerSecond;
// Above the first, the longest untouched ones go until the second is reached.
constexpr size_t kPressed = kDirtyRegionsMax / 8 * 7;
// In one request; a CLEAN covers less than 4 GiB.
constexpr uint32_t kRunMax = 512;
// After a member found a run too much for one request.
constexpr uint64_t kNarrowNs = 10 * kNsPerSecond;

}  // namespace

Cleaner::Cleaner(ResyncHost& host, RegionTable& table) : host_(host), table_(table) {
  flush_.operation = BlockOperation::kFlush;
  flush_.owner = this;
  flush_.done = [](BlockRequest* request) {
    static_cast<Cleaner*>(static_cast<OwnRequest*>(request)->owner)->OnFlushed();
  };
  for (Clean& clean : cleans_) {
    clean.cleaner = this;
    clean.request.operation = BlockOperation::kClean;
    clean.request.owner = &clean;
    clean.request.done = [](BlockRequest* request) {
      auto* of = static_cast<Clean*>(static_cast<OwnRequest*>(request)->owner);
      of->cleaner->OnCleaned(of);
    };
  }
}

uint64_t Cleaner::CopiedAt(uint64_t now_ns) {
  constexpr uint64_t kBackNs = kColdNs - kCopiedNs;
  return now_ns > kBackNs ? now_ns - kBackNs : 0;
}

void Cleaner::Look(bool pressed, bool idle, bool copied) {
  if (!host_.Settled() || table_.open() == 0) return;
  const uint64_t now_ns = host_.reactor().NowNs();
  const auto ago = [now_ns](uint64_t ns) { return now_ns > ns ? now_ns - ns : 0; };
  pressed |= table_.open() >= kPressed;
  uint64_t period_ns = kColdNs;  // between flushes for this reason
  before_ns_ = ago(kColdNs);
  if (copied) period_ns = kCopiedNs;
  if (idle || pressed) {
    before_ns_ = now_ns + 1;
    period_ns = 0;
  }
  if (!flushing_ && table_.WantsFlush(before_ns_) && flushed_ns_ <= ago(period_ns)) {
    Flush(nullptr, nullptr);
  }
  if (next_ == listed_ && cleaning_ == 0) {
    listed_ = table_.CollectCleanable(before_ns_, list_);
    next_ = 0;
  }
  SendCleans();
}

bool Cleaner::Flush(void (*done)(void* owner, bool ok), void* owner) {
  if (flushing_) return false;
  flushed_ = done;
  flushed_owner_ = owner;
  flushing_ = true;
  flushed_ns_ = host_.reactor().NowNs();
  if (host_.SubmitOwn(&flush_)) return true;
  flushing_ = false;
  return false;
}

void Cleaner::OnFlushed() {
  flushing_ = false;
  const bool ok = flush_.status == ErrorCode::kOk;
  if (flushed_ != nullptr) flushed_(flushed_owner_, ok);
  if (!ok || !host_.Settled() || next_ < listed_ || cleaning_ > 0) return;
  listed_ = table_.CollectCleanable(before_ns_, list_);
  next_ = 0;
  SendCleans();
}

void Cleaner::SendCleans() {
  const bool narrow = host_.reactor().NowNs() < narrow_until_ns_;
  const uint32_t run_max = narrow ? 1 : kRunMax;
  for (Clean& clean : cleans_) {
    if (next_ == listed_ || (narrow && cleaning_ > 0)) return;
    if (clean.used) continue;
    const uint32_t first = list_[next_];
    uint32_t count = 1;
    while (next_ + count < listed_ && count < run_max && list_[next_ + count] == first + count) {
      ++count;
    }
    clean.request.offset_bytes = first * kRegionBytes;
    clean.request.length_bytes = count * kRegionBytes;
    clean.ticket = table_.CleanBegins();
    if (!host_.SubmitOwn(&clean.request)) return;
    clean.used = true;
    ++cleaning_;
    next_ += count;
  }
}

void Cleaner::OnCleaned(Clean* clean) {
  clean->used = false;
  --cleaning_;
  if (clean->request.status == ErrorCode::kOk) {
    table_.Cleaned(RegionsOf(clean->request.offset_bytes, clean->request.length_bytes),
                   clean->ticket);
    host_.RegionsCleaned();
  }
  if (clean->request.status == ErrorCode::kBusy) {
    narrow_until_ns_ = host_.reactor().NowNs() + kNarrowNs;
    next_ = listed_;
  }
  if (!host_.Settled()) {
    next_ = listed_;
    return;
  }
  const ErrorCode status = clean->request.status;
  const bool goes_on =
      status == ErrorCode::kBusy || (status == ErrorCode::kOk && narrow_until_ns_ != 0);
  if (goes_on && next_ == listed_ && cleaning_ == 0) {
    listed_ = table_.CollectCleanable(before_ns_, list_);
    next_ = 0;
    if (listed_ == 0) narrow_until_ns_ = 0;
  }
  SendCleans();
}

}  // namespace ankole::engine

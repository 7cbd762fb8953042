#include "engine/trimmer.h"

#include <algorithm>
#include <cstring>

#include "base/mutant.h"
#include "wire/hello.h"

namespace ankole::engine {
namespace {

// How often its progress is reported: what is done since is done again after a restart.
constexpr uint64_t kTrimNewsNs = 60 * kNsPerSecond;
// What members are asked about at a time: so a volume of which little was written is gone through
// in few steps.
constexpr uint64_t kLookBytes = 64 * kMiB;

bool IsZero(const std::byte* data, size_t bytes) {
  return data[0] == std::byte{0} && std::memcmp(data, data + 1, bytes - 1) == 0;
}

}  // namespace

Trimmer::Trimmer(ResyncHost& host) : host_(host) {
  timer_.owner = this;
  timer_.done = [](io::Operation* operation) { static_cast<Trimmer*>(operation->owner)->Pump(); };
  for (Errand& errand : look_.errands) {
    errand.owner = this;
    errand.opcode = wire::Opcode::kStatus;
    errand.take = TakeExtents;
    errand.done = [](Errand* done) { static_cast<Trimmer*>(done->owner)->OnLook(done); };
  }
  for (Lane& lane : lanes_) {
    lane.trimmer = this;
    lane.read.owner = lane.hold.owner = &lane;
    lane.read.operation = BlockOperation::kRead;
    lane.read.done = [](BlockRequest* request) {
      auto* of = static_cast<Lane*>(static_cast<OwnRequest*>(request)->owner);
      --of->outstanding;
      of->trimmer->OnRead(of);
    };
    lane.hold.operation = BlockOperation::kHold;
    lane.hold.done = [](BlockRequest* request) {
      auto* of = static_cast<Lane*>(static_cast<OwnRequest*>(request)->owner);
      --of->outstanding;
      of->held = request->status == ErrorCode::kOk;
      if (of->held) {
        of->step = Lane::Step::kReadingAgain;
      } else if (!of->trimmer->Cancelled(*of)) {
        // Nobody can tell what is there.
        of->trimmer->found_.failed_bytes += (of->end - of->begin) * kBlockBytes;
        of->trimmer->NextBatch(of);
      }
      of->trimmer->Go(of);
      of->trimmer->Pump();
    };
    for (OwnRequest& unmap : lane.unmaps) {
      unmap.owner = &lane;
      unmap.operation = BlockOperation::kUnmap;
      unmap.done = [](BlockRequest* request) {
        auto* own = static_cast<OwnRequest*>(request);
        static_cast<Lane*>(own->owner)->trimmer->OnUnmap(own);
      };
    }
  }
}

Trimmer::~Trimmer() { CHECK(idle()); }

void Trimmer::Start(const std::string& id, uint64_t bytes_per_second, const TrimProgress& before) {
  if (!running() || id != id_) {
    state_ = State::kStarted;
    id_ = id;
    end_bytes_ = host_.size_bytes();
    next_bytes_ = std::min(RoundDown(before.bytes_done, kChunkBytes), end_bytes_);
    found_ = before;
    told_ns_ = host_.reactor().NowNs();
    told_end_ = false;
    look_.known = false;
    ++round_;
  }
  pace_.Set(bytes_per_second, host_.reactor().NowNs());
  Pump();
}

void Trimmer::Stop() {
  if (running()) state_ = State::kStopped;
  next_bytes_ = end_bytes_;
  look_.known = false;
  ++round_;
  host_.reactor().Cancel(&timer_);
  for (Lane& lane : lanes_) Go(&lane);
}

bool Trimmer::idle() const {
  return look_.outstanding == 0 && std::all_of(lanes_.begin(), lanes_.end(), [](const Lane& lane) {
           return lane.step == Lane::Step::kFree;
         });
}

// All before it is done.
uint64_t Trimmer::Passed() const {
  uint64_t passed = next_bytes_;
  for (const Lane& lane : lanes_) {
    if (lane.step != Lane::Step::kFree && !Cancelled(lane)) {
      passed = std::min(passed, lane.offset_bytes);
    }
  }
  return passed;
}

bool Trimmer::TakeNews(uint64_t now_ns) {
  if (state_ == State::kNone || told_end_) return false;
  if (running() && ElapsedNs(told_ns_, now_ns) < kTrimNewsNs) return false;
  told_ns_ = now_ns;
  told_end_ = !running();
  return true;
}

void Trimmer::Pump() {
  if (pumping_) return;
  pumping_ = true;
  for (Lane& lane : lanes_) Go(&lane);
  if (state_ == State::kStarted && look_.outstanding == 0 && next_bytes_ < end_bytes_) {
    if (look_.known) {
      Lane* lane = FreeLane();
      if (lane != nullptr) Begin(lane);
    }
    if (!look_.known && next_bytes_ < end_bytes_) StartLook();
  }
  pumping_ = false;
}

// --- where there is something to look at
// --------------------------------------------------------------------------------------------

void Trimmer::StartLook() {
  if (!host_.Settled() || !host_.AllEqual() || host_.HoldsReads()) return;
  const uint64_t now_ns = host_.reactor().NowNs();
  const uint64_t wait_ns = pace_.WaitNs(now_ns);
  if (wait_ns > 0) {
    host_.reactor().Arm(&timer_, now_ns + wait_ns);
    return;
  }
  look_.offset_bytes = next_bytes_;
  look_.length_bytes = std::min(kLookBytes, end_bytes_ - next_bytes_);
  look_.first_bytes = look_.length_bytes;
  look_.blocks.reset();
  look_.round = round_;
  look_.answered = 0;
  look_.lost = false;
  for (const auto& link : host_.links()) {
    if (!host_.IsStaying(link->index()) || !link->up()) continue;
    Errand& errand = look_.errands[link->index()];
    errand.link = link.get();
    errand.offset_bytes = look_.offset_bytes;
    errand.length_bytes = static_cast<uint32_t>(look_.length_bytes);
    ++look_.outstanding;
    host_.SendErrand(&errand);
  }
}

// What the answer does not cover counts as taking up space: it is asked about in its turn.
Status Trimmer::TakeExtents(Errand* errand, std::span<const std::byte> payload) {
  Look& look = static_cast<Trimmer*>(errand->owner)->look_;
  std::array<BlockExtent, wire::kStatusExtentsMax> extents;
  Result<uint32_t> count =
      wire::DecodeExtents(payload, errand->length_bytes, extents.data(), extents.size());
  if (!count.ok()) return count.status();
  const auto takes_space = [&look](uint64_t begin, uint64_t end) {
    if (begin == end) return;
    look.first_bytes = std::min(look.first_bytes, begin);
    const uint64_t blocks = std::min<uint64_t>(DivideUp(end, kBlockBytes), kChunkBlocks);
    for (uint64_t block = begin / kBlockBytes; block < blocks; ++block) look.blocks[block] = true;
  };
  uint64_t at = 0;
  for (uint32_t i = 0; i < count.value(); ++i) {
    const uint64_t end = at + extents[i].length_bytes;
    if (!extents[i].hole) takes_space(at, end);
    at = end;
  }
  takes_space(at, errand->length_bytes);
  return Status::Ok();
}

void Trimmer::OnLook(Errand* errand) {
  if (errand->status == ErrorCode::kOk) ++look_.answered;
  look_.lost |= errand->status == ErrorCode::kConnectionLost;
  if (--look_.outstanding > 0) return;
  EndLook();
  Pump();
}

void Trimmer::EndLook() {
  if (look_.round != round_) return;
  if (look_.answered == 0) {
    if (look_.lost) return;  // asked again by the tick
    const uint64_t bytes = std::min(kChunkBytes, end_bytes_ - next_bytes_);
    found_.failed_bytes += bytes;
    next_bytes_ += bytes;
    return;
  }
  const uint64_t first = look_.offset_bytes + look_.first_bytes;
  next_bytes_ = first == end_bytes_ ? first : RoundDown(first, kChunkBytes);
  // Else another look is taken from there.
  look_.known = next_bytes_ < end_bytes_ && next_bytes_ == look_.offset_bytes;
}

// --- a chunk
// --------------------------------------------------------------------------------------------

Trimmer::Lane* Trimmer::FreeLane() {
  // So that clients' requests do not stand behind much.
  const size_t lanes = host_.Busy() ? 1 : kLanes;
  Lane* unused = nullptr;
  size_t used = 0;
  for (Lane& lane : lanes_) {
    if (lane.step == Lane::Step::kFree) {
      unused = &lane;
    } else {
      ++used;
    }
  }
  return used < lanes ? unused : nullptr;
}

// The chunk of the last look.
void Trimmer::Begin(Lane* lane) {
  lane->step = Lane::Step::kReading;
  lane->round = round_;
  lane->offset_bytes = look_.offset_bytes;
  lane->length_bytes = static_cast<uint32_t>(std::min(kChunkBytes, end_bytes_ - next_bytes_));
  lane->blocks = look_.blocks;
  lane->at = 0;
  while (!lane->blocks[lane->at]) ++lane->at;
  lane->begin = lane->at;
  lane->end = lane->length_bytes / kBlockBytes;
  while (!lane->blocks[lane->end - 1]) --lane->end;
  look_.known = false;
  next_bytes_ += lane->length_bytes;
  pace_.Spend((lane->end - lane->begin) * kBlockBytes);
  Go(lane);
}

void Trimmer::Go(Lane* lane) {
  if (lane->step == Lane::Step::kFree || lane->outstanding > 0) return;
  if (Cancelled(*lane)) return Free(lane);
  switch (lane->step) {
    case Lane::Step::kFree:
      return;
    case Lane::Step::kReading:
    case Lane::Step::kReadingAgain:
      return Read(lane);
    case Lane::Step::kHolding:
      return Hold(lane);
    case Lane::Step::kUnmapping:
      return Unmap(lane);
  }
}

void Trimmer::Read(Lane* lane) {
  if (lane->chunk == nullptr) lane->chunk = host_.buffers().Acquire(kChunkBytes);
  if (lane->chunk == nullptr) return;
  OwnRequest& read = lane->read;
  read.offset_bytes = lane->offset_bytes + lane->begin * kBlockBytes;
  read.length_bytes = (lane->end - lane->begin) * kBlockBytes;
  read.data = lane->chunk->data + lane->begin * kBlockBytes;
  read.hold = lane->held ? &lane->hold : nullptr;
  if (host_.SubmitOwn(&read)) ++lane->outstanding;
}

void Trimmer::OnRead(Lane* lane) {
  if (Cancelled(*lane)) return Free(lane);
  const bool good = lane->read.status == ErrorCode::kOk;
  for (uint32_t block = lane->begin; block < lane->end; ++block) {
    if (!lane->blocks[block]) continue;
    if (!good) found_.failed_bytes += kBlockBytes;
    const std::byte* data = lane->chunk->data + block * kBlockBytes;
    const bool trusted = lane->held && Mutant("trim-without-reading-again");
    lane->blocks[block] = good && (trusted || IsZero(data, kBlockBytes));
  }
  if (lane->held) {
    lane->step = Lane::Step::kUnmapping;
  } else {
    NextBatch(lane);
  }
  Go(lane);
  Pump();
}

// A few runs of zeros are held at a time, so that nobody waits for long.
void Trimmer::NextBatch(Lane* lane) {
  const uint32_t blocks = lane->length_bytes / kBlockBytes;
  uint32_t at = lane->at;
  while (at < blocks && !lane->blocks[at]) ++at;
  if (at == blocks) return Free(lane);
  lane->begin = at;
  for (size_t runs = 0; runs < kUnmaps && at < blocks; ++runs) {
    while (at < blocks && lane->blocks[at]) ++at;
    lane->end = at;
    while (at < blocks && !lane->blocks[at]) ++at;
  }
  lane->at = lane->end;
  lane->step = Lane::Step::kHolding;
}

void Trimmer::Hold(Lane* lane) {
  lane->hold.offset_bytes = lane->offset_bytes + lane->begin * kBlockBytes;
  lane->hold.length_bytes = (lane->end - lane->begin) * kBlockBytes;
  if (host_.SubmitOwn(&lane->hold)) ++lane->outstanding;
}

void Trimmer::Unmap(Lane* lane) {
  for (size_t i = 0; i < kUnmaps; ++i) {
    if (lane->busy[i]) continue;
    while (lane->begin < lane->end && !lane->blocks[lane->begin]) ++lane->begin;
    if (lane->begin == lane->end) break;
    uint32_t end = lane->begin;
    while (end < lane->end && lane->blocks[end]) ++end;
    OwnRequest& unmap = lane->unmaps[i];
    unmap.offset_bytes = lane->offset_bytes + lane->begin * kBlockBytes;
    unmap.length_bytes = (end - lane->begin) * kBlockBytes;
    unmap.hold = &lane->hold;
    if (!host_.SubmitOwn(&unmap)) return;
    lane->busy[i] = true;
    ++lane->outstanding;
    lane->begin = end;
  }
  if (lane->outstanding > 0) return;
  Release(lane);
  NextBatch(lane);
  Go(lane);
}

void Trimmer::OnUnmap(OwnRequest* request) {
  auto* lane = static_cast<Lane*>(request->owner);
  lane->busy[static_cast<size_t>(request - lane->unmaps.data())] = false;
  --lane->outstanding;
  if (request->status == ErrorCode::kOk) {
    found_.unmapped_bytes += Cancelled(*lane) ? 0 : request->length_bytes;
    unmapped_bytes_ += request->length_bytes;
  } else if (!Cancelled(*lane)) {
    found_.failed_bytes += request->length_bytes;
  }
  if (!Cancelled(*lane)) {
    Unmap(lane);
  } else {
    Go(lane);
  }
  Pump();
}

void Trimmer::Release(Lane* lane) {
  if (!std::exchange(lane->held, false)) return;
  host_.Release(&lane->hold);
}

void Trimmer::Free(Lane* lane) {
  if (lane->chunk != nullptr) BufferPool::Release(std::exchange(lane->chunk, nullptr));
  // The engine may look whether all is idle from within.
  lane->step = Lane::Step::kFree;
  Release(lane);
}

Json Trimmer::ToJson() const {
  // One that was stopped has come nowhere.
  const uint64_t done = state_ == State::kStarted ? Passed() : 0;
  return Json::Object()
      .Set("id", id_)
      .Set("running", running())
      .Set("finished", finished())
      .Set("bytes", end_bytes_)
      .Set("bytesDone", done)
      .Set("unmappedBytes", found_.unmapped_bytes)
      .Set("failedBytes", found_.failed_bytes);
}

}  // namespace ankole::engine

#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <span>
#include <string>

#include "base/json.h"
#include "engine/errand.h"
#include "engine/pace.h"
#include "engine/resync_host.h"

namespace ankole::engine {

// What a trim has gone through, and what came of it.
struct TrimProgress {
  uint64_t bytes_done = 0;      // of the volume, from its beginning on; none before that is left
  uint64_t unmapped_bytes = 0;  // took up space and held zeros: given back, or masked
  uint64_t failed_bytes = 0;    // could not be read or unmapped, and are as they were
};

// Goes once through the volume in the background, and unmaps what takes up space and holds nothing
// but zeros. One look at a time asks all members which blocks take up space; blocks that do at any
// of them are read, in up to two lanes:
//
//   kReading ─zeros found▶ kHolding ▶ kReadingAgain ─still zeros▶ kUnmapping ─▶ kHolding, or free
//       └────── none ──▶ free
//
// The first read needs no lock, as most of what lies in a volume is no zeros. What was found is
// read again where nobody else is at it, and unmapped before anybody is: so no client's write, and
// no revert, comes between. All of it goes the way of clients' requests, so that replicas that are
// away, or are being filled, miss nothing of it.
class Trimmer {
 public:
  explicit Trimmer(ResyncHost& host);
  ~Trimmer();

  // One that is under way ends, but for one of the same `id`, which gets the new rate only. `id`:
  // the caller's, for the reports. `bytes_per_second` that are read; 0: no bound. `before`: of an
  // earlier run that was broken off; this one goes on behind it, and counts on.
  void Start(const std::string& id, uint64_t bytes_per_second, const TrimProgress& before);
  void Pump();
  void Stop();
  bool running() const { return state_ == State::kStarted && Passed() < end_bytes_; }
  bool idle() const;
  // By this process.
  uint64_t unmapped_bytes() const { return unmapped_bytes_; }
  // Whether there is something to report: it ended, or went on for a while.
  bool TakeNews(uint64_t now_ns);
  // Of the one that is under way, or the last one.
  Json ToJson() const;

 private:
  static constexpr size_t kLanes = kTrimLanesMax;
  static constexpr size_t kUnmaps = kTrimUnmapsMax;  // of a lane, at a time
  static constexpr uint64_t kChunkBytes = kDataBytesMax;
  static constexpr size_t kChunkBlocks = kChunkBytes / kBlockBytes;
  using Blocks = std::bitset<kChunkBlocks>;

  enum class State : uint8_t { kNone, kStarted, kStopped };

  // From `offset_bytes` on, which is where the trim has come to.
  struct Look {
    std::array<Errand, kReplicasMax> errands;  // by link
    uint64_t offset_bytes = 0;
    uint64_t length_bytes = 0;
    uint64_t round = 0;
    uint64_t first_bytes = 0;  // the first that takes up space at a member, from the offset on
    Blocks blocks;             // of the first chunk: those that do
    uint32_t outstanding = 0;
    uint32_t answered = 0;
    bool lost = false;   // a member could not be asked: it may be asked again
    bool known = false;  // the chunk waits for a lane
  };

  struct Lane {
    enum class Step : uint8_t { kFree, kReading, kHolding, kReadingAgain, kUnmapping };
    Trimmer* trimmer = nullptr;
    Step step = Step::kFree;
    uint64_t round = 0;
    uint64_t offset_bytes = 0;
    uint32_t length_bytes = 0;
    Blocks blocks;    // that take up space; after the first read, those that hold zeros
    uint32_t at = 0;  // blocks before are done
    uint32_t begin = 0;
    uint32_t end = 0;  // of those that are held
    bool held = false;
    uint32_t outstanding = 0;  // requests
    BufferPool::Chunk* chunk = nullptr;
    OwnRequest read;
    OwnRequest hold;
    std::array<OwnRequest, kUnmaps> unmaps;
    std::array<bool, kUnmaps> busy = {};
  };

  uint64_t Passed() const;
  bool finished() const { return state_ == State::kStarted && !running(); }
  void StartLook();
  void OnLook(Errand* errand);
  void EndLook();
  static Status TakeExtents(Errand* errand, std::span<const std::byte> payload);

  Lane* FreeLane();
  void Begin(Lane* lane);
  // Goes on with the lane's step: submits what is not submitted yet. What finds no slot, or no
  // buffer, waits for the next Pump.
  void Go(Lane* lane);
  void Read(Lane* lane);
  void OnRead(Lane* lane);
  void Hold(Lane* lane);
  void Unmap(Lane* lane);
  void OnUnmap(OwnRequest* request);
  void NextBatch(Lane* lane);
  void Release(Lane* lane);
  void Free(Lane* lane);
  bool Cancelled(const Lane& lane) const { return lane.round != round_; }

  ResyncHost& host_;
  State state_ = State::kNone;
  std::string id_;
  uint64_t next_bytes_ = 0;  // all before is done, or in a lane
  uint64_t end_bytes_ = 0;
  uint64_t round_ = 0;  // grows with each Start and Stop
  TrimProgress found_;  // but for bytes_done
  uint64_t unmapped_bytes_ = 0;
  uint64_t told_ns_ = 0;
  bool told_end_ = true;
  bool pumping_ = false;
  Pace pace_;
  Look look_;
  std::array<Lane, kLanes> lanes_;
  io::Timer timer_;
};

}  // namespace ankole::engine

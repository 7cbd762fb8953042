#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "engine/copier.h"
#include "engine/lack_set.h"
#include "engine/pace.h"

namespace ankole::engine {

// Goes through regions of the volume in the background, some chunks of kDataBytesMax at a time, at
// a bounded rate.
class Walker {
 public:
  struct Region {
    uint32_t number = 0;
    uint64_t parts = LackSet::kWhole;  // which of it, as LackSet::Take tells
    bool virgin = false;               // as in Copy
    Link* joiner = nullptr;            // likewise
    const ViewIds* views = nullptr;    // likewise
    uint64_t round = 0;                // the client's
  };
  struct Totals {
    uint64_t copied_bytes = 0;
    uint64_t repaired_blocks = 0;
    uint64_t corrupt_blocks = 0;
    uint64_t differing_blocks = 0;
  };
  class Client {
   public:
    // False: no chunk is begun now (Pump asks again).
    virtual bool MayCopy() { return true; }
    // A chunk of a region ended; `copied_bytes` of it were written.
    virtual void ChunkDone(uint64_t copied_bytes) { static_cast<void>(copied_bytes); }
    // The next region to go through; false: none now (Pump asks again).
    virtual bool NextRegion(Region* region) = 0;
    // All chunks of the region ended; `status` is the first that was not kOk.
    virtual void RegionDone(const Region& region, ErrorCode status, const Totals& totals) = 0;

   protected:
    ~Client() = default;
  };

  // Regions that it is at at a time. More than one, so that the next one's first chunks go on
  // beside the last ones of the one before; as many as chunks, as there may be one of each.
  static constexpr size_t kJobs = 4;

  Walker(ResyncHost& host, Copier& copier, Client& client, CopyKind kind);

  // Starts what may be started.
  void Pump();
  // 0: as fast as it goes. Of bytes that are written (kScrub: compared).
  void SetRate(uint64_t bytes_per_second);
  bool idle() const;
  // The regions that it is at end, as soon as their copies do, with kCancelled. Those are cancelled
  // at the copier. Until the next Pump nothing is begun.
  void Cancel();

 private:
  struct Job {
    Walker* walker = nullptr;
    bool used = false;
    Region region;
    uint64_t next_bytes = 0;  // of the volume: where a part of it begins, or its end
    uint64_t end_bytes = 0;
    uint32_t copies = 0;  // in flight
    ErrorCode status = ErrorCode::kOk;
    Totals totals;
  };

  Job* NextJob();
  static void Skip(Job* job);
  static uint32_t ChunkBytes(const Job& job);
  size_t CopiesMax() const;
  bool MayStart();
  void OnCopy(Copy* copy);

  ResyncHost& host_;
  Copier& copier_;
  Client& client_;
  const CopyKind kind_;
  std::array<Job, kJobs> jobs_;
  size_t copies_ = 0;
  bool pumping_ = false;
  Pace pace_;
  io::Timer timer_;
};

}  // namespace ankole::engine

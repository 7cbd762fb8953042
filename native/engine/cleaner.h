#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/block_device.h"
#include "engine/region_table.h"
#include "engine/resync_host.h"

namespace ankole::engine {

// Takes regions out of the members' dirty maps, in batches and late: when they were not written for
// a while, when the volume is idle, when too many are open, and when a joiner has received them
// (rule 5). Flushes where no client did.
class Cleaner {
 public:
  Cleaner(ResyncHost& host, RegionTable& table);

  // What a joiner receives is cleaned sooner than what clients write, and counts as written at this
  // time: a region of theirs would be dirty again at once, which costs them a sync of the map.
  static uint64_t CopiedAt(uint64_t now_ns);

  // Looks what there is to do. `pressed`: a write waits for a region to be cleaned. `idle`: clients
  // have done nothing for some seconds. `copied`: a joiner received regions that can be cleaned.
  void Look(bool pressed, bool idle, bool copied);
  // A flush of all members, and of the joiner; `done` runs with its outcome. False: one is under
  // way already, or no slot is free.
  bool Flush(void (*done)(void* owner, bool ok), void* owner);
  bool idle() const { return !flushing_ && cleaning_ == 0; }

 private:
  static constexpr size_t kCleans = 4;
  struct Clean {
    OwnRequest request;
    Cleaner* cleaner = nullptr;
    bool used = false;
    uint64_t ticket = 0;  // RegionTable::CleanBegins
  };

  void SendCleans();
  void OnFlushed();
  void OnCleaned(Clean* clean);

  ResyncHost& host_;
  RegionTable& table_;
  OwnRequest flush_;
  bool flushing_ = false;
  void (*flushed_)(void* owner, bool ok) = nullptr;
  void* flushed_owner_ = nullptr;
  uint64_t flushed_ns_ = 0;  // when the last flush of the cleaner's began
  uint64_t before_ns_ = 0;   // what was last written before this is cleaned
  std::array<Clean, kCleans> cleans_;
  size_t cleaning_ = 0;
  // Until then regions are asked for one by one: at some member their checksums must be computed
  // first, and what is asked for is locked meanwhile.
  uint64_t narrow_until_ns_ = 0;
  // Regions to be cleaned; from next_ on they are not asked for yet.
  std::array<uint32_t, kDirtyRegionsMax / 8> list_;
  size_t listed_ = 0;
  size_t next_ = 0;
};

}  // namespace ankole::engine

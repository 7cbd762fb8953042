#pragma once

#include <algorithm>
#include <cstdint>

#include "engine/membership.h"
#include "sim/cluster.h"

namespace ankole::sim {

// The times of section 4 and of docs/concepts/failures.md for an engine with these options, from
// when no fault has effect any more: all machines are up, all processes run and reach each other,
// and the store.
struct Promises {
  uint64_t start_ns = 0;   // an engine that runs serves
  uint64_t answer_ns = 0;  // one that serves answers each request
  // It has all replicas as members, from when none is held off for coming and going...
  uint64_t redundant_ns = 0;
  uint64_t held_off_ns = 0;  // ... which lasts so long at the most
  uint64_t stop_ns = 0;      // it has stopped

  static Promises Of(const Cluster::Options& options) {
    // A connection that was begun to somebody who is not there any more is given up after 5 s, and
    // the next one is made half a second later (native/engine/link.cc).
    constexpr uint64_t kConnectedNs = 5500 * kNsPerMs;
    // A question to the store that was lost is asked again (native/engine/engine_membership.cc).
    constexpr uint64_t kStoreNs = 5 * kNsPerSecond;
    // Packets that are lost and sent again, ticks, steps on the disks.
    constexpr uint64_t kSlackNs = kNsPerSecond;
    // A joiner is asked, filled, flushed and recorded.
    constexpr uint64_t kJoinNs = 5 * kNsPerSecond;
    Promises promises;
    promises.start_ns = kConnectedNs + kStoreNs + engine::kLeaseWaitNs + kSlackNs;
    // A drop that needs the store comes after 2.5 times what makes a minority late.
    promises.answer_ns = std::max(kConnectedNs, options.late_ns * 5 / 2) + kStoreNs + kSlackNs;
    promises.redundant_ns = promises.answer_ns + (options.replicas - 1) * kJoinNs;
    promises.held_off_ns = 60 * kNsPerSecond;
    promises.stop_ns = 3 * kNsPerSecond + kSlackNs / 2;
    return promises;
  }
};

}  // namespace ankole::sim

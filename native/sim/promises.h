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
  uint64_t snapshot_ns = 0;  // a request about snapshots is answered, by success or not
  uint64_t expanded_ns = 0;  // an order to become larger is carried out, or given up
  uint64_t merged_ns = 0;    // deleted snapshots have gone, of so many as `layers`

  static Promises Of(const Cluster::Options& options, size_t layers) {
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
    // Three times it waits for 5 s until it can begin, and for 1 s until nothing is under way
    // (native/engine/snapshotter.cc); another request may be served before. What members are given
    // for them to have the same is tried again after 5 s (snapshot_matcher.cc). Each member may
    // have to be dropped meanwhile, and each replica may join.
    constexpr uint64_t kRoundNs = 6 * kNsPerSecond;
    promises.snapshot_ns = 2 * 3 * kRoundNs + 5 * kNsPerSecond +
                           options.replicas * (promises.answer_ns + kJoinNs) + kSlackNs;
    // It waits for 5 s for a snapshot, and a member that does not answer leaves
    // (native/engine/engine_expand.cc). One that failed is given again for an engine that is new.
    if (options.first_bytes < options.size_bytes) {
      promises.expanded_ns = promises.start_ns + promises.answer_ns + kRoundNs;
      promises.snapshot_ns += promises.expanded_ns;
    }
    // After 1 s, a step each 125 ms; one that failed is tried again after 60 s
    // (native/replica/served_replica.cc). A step copies 8 MiB.
    constexpr uint64_t kStepNs = 125 * kNsPerMs + 50 * kNsPerMs;
    const uint64_t steps = 6 + DivideUp(options.size_bytes, 8 * kMiB);
    promises.merged_ns = 61 * kNsPerSecond + layers * steps * kStepNs + kSlackNs;
    // A snapshot is given to a joiner when what it had of that name is gone.
    if (layers > 0) promises.redundant_ns += promises.merged_ns;
    return promises;
  }
};

}  // namespace ankole::sim

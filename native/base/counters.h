#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "base/block_device.h"
#include "base/json.h"

namespace ankole {

// A latency histogram with bounds at powers of two from 1 µs to 2^25 µs (33.5 s), and what is
// above. Written by one thread.
class LatencyHistogram {
 public:
  static constexpr size_t kBounds = 26;
  void Add(uint64_t ns) {
    const uint64_t us = (ns + 999) / 1000;
    const size_t index = us <= 1 ? 0 : static_cast<size_t>(std::bit_width(us - 1));
    ++buckets_[index < kBounds ? index : kBounds];
    sum_ns_ += ns;
  }
  Json ToJson() const;
  static Json BoundsSeconds();

 private:
  std::array<uint64_t, kBounds + 1> buckets_ = {};
  uint64_t sum_ns_ = 0;
};

struct OperationCounters {
  uint64_t count = 0;
  uint64_t bytes = 0;
  uint64_t errors = 0;
  LatencyHistogram latency;
  Json ToJson() const;
};

// One for each BlockOperation.
struct DeviceCounters {
  std::array<OperationCounters, kBlockOperations> operations;
  void Add(BlockOperation operation, uint64_t bytes, bool failed, uint64_t ns) {
    OperationCounters& counters = operations[static_cast<size_t>(operation)];
    ++counters.count;
    counters.bytes += bytes;
    counters.errors += failed ? 1 : 0;
    counters.latency.Add(ns);
  }
  Json ToJson() const;  // {"read": {...}, …}
};

}  // namespace ankole

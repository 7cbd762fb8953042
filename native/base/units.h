#pragma once

#include <cstdint>

namespace ankole {

inline constexpr uint64_t kKiB = 1024;
inline constexpr uint64_t kMiB = 1024 * kKiB;
inline constexpr uint64_t kGiB = 1024 * kMiB;
inline constexpr uint64_t kTiB = 1024 * kGiB;

// The unit of checksums, of the block map and of atomic I/O.
inline constexpr uint32_t kBlockBytes = 4096;
// The smallest addressable unit of a volume (logical block of SCSI, minimum of NBD).
inline constexpr uint32_t kSectorBytes = 512;
// The unit of dirty tracking.
inline constexpr uint64_t kRegionBytes = 4 * kMiB;

inline constexpr uint64_t kNsPerUs = 1000;
inline constexpr uint64_t kNsPerMs = 1000 * kNsPerUs;
inline constexpr uint64_t kNsPerSecond = 1000 * kNsPerMs;

// How long ago; 0 for what happened since `now_ns` was taken.
constexpr uint64_t ElapsedNs(uint64_t then_ns, uint64_t now_ns) {
  return now_ns > then_ns ? now_ns - then_ns : 0;
}

constexpr uint64_t RoundDown(uint64_t value, uint64_t unit) { return value / unit * unit; }
constexpr uint64_t RoundUp(uint64_t value, uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}
constexpr uint64_t DivideUp(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit; }

// How many 4 KiB blocks [offset, offset + length) touches.
constexpr uint32_t BlocksTouched(uint64_t offset, uint32_t length) {
  return length == 0 ? 0
                     : static_cast<uint32_t>((offset + length - 1) / kBlockBytes -
                                             offset / kBlockBytes + 1);
}

}  // namespace ankole

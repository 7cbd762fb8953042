#pragma once

#include <algorithm>
#include <cstdint>

#include "base/units.h"
#include "scsi/limits.h"

// The space that a thin logical unit lives on, as initiators are told it (SBC-4, 4.7.3.7).
namespace ankole::scsi {

// Of the fullest file system that a member lies on; all zero: not known.
struct Resources {
  uint64_t total_bytes = 0;
  uint64_t free_bytes = 0;
  uint64_t soft_bytes = 0;  // what is free where the soft threshold lies
  bool low = false;         // it was crossed; with hysteresis, which is the manager's matter

  bool known() const { return total_bytes > 0; }
  bool operator==(const Resources&) const = default;
};

// Thresholds and resources are counted in sets of 2^11 logical blocks: 1 MiB.
inline constexpr uint8_t kThresholdExponent = 11;
inline constexpr uint64_t kThresholdSetBytes = kLogicalBlockBytes << kThresholdExponent;

inline uint32_t ThresholdSets(uint64_t bytes) {
  return static_cast<uint32_t>(std::min<uint64_t>(bytes / kThresholdSetBytes, UINT32_MAX));
}

}  // namespace ankole::scsi

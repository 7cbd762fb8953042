#pragma once

#include <cstdint>

// Sense data (SPC-4, 4.5).
namespace ankole::scsi {

enum class SenseKey : uint8_t {
  kNoSense = 0x0,
  kNotReady = 0x2,
  kMediumError = 0x3,
  kHardwareError = 0x4,
  kIllegalRequest = 0x5,
  kUnitAttention = 0x6,
  kDataProtect = 0x7,
  kAbortedCommand = 0xb,
  kMiscompare = 0xe,
};

struct Sense {
  SenseKey key = SenseKey::kNoSense;
  uint16_t code = 0;  // additional sense code and its qualifier
};

}  // namespace ankole::scsi

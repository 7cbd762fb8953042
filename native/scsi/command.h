#pragma once

#include <cstdint>

// What a CDB says, decoded and within its bounds.
namespace ankole::scsi {

struct Command {
  uint8_t operation = 0;
};

}  // namespace ankole::scsi

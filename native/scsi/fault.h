#pragma once

#include "base/result.h"
#include "scsi/task.h"

namespace ankole::scsi {

struct Outcome {
  ScsiStatus status = ScsiStatus::kGood;
  Sense sense;
};

// What an initiator is told of a request that the device could not carry out. What passes by itself
// (no member is there, another engine has taken over) is BUSY, which initiators repeat and which
// says that nothing is wrong with the medium.
Outcome OutcomeOf(ErrorCode fault, bool of_write);

}  // namespace ankole::scsi

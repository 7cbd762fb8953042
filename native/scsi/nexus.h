#pragma once

#include <array>
#include <string>

#include "scsi/copy_results.h"
#include "scsi/logical_unit.h"
#include "scsi/reservations.h"
#include "scsi/sense.h"

namespace ankole::scsi {

// Unit attentions of one nexus, oldest first (SAM-5, 5.14). Each code at most once; so the queue is
// bounded by the codes that there are.
class UnitAttentions {
 public:
  void Raise(SenseCode code) {
    // A reset says all that was to be said before.
    if (code == SenseCode::kPowerOn || code == SenseCode::kBusDeviceReset) count_ = 0;
    for (size_t i = 0; i < count_; ++i) {
      if (codes_[i] == code) return;
    }
    CHECK(count_ < codes_.size());
    codes_[count_++] = code;
  }
  bool empty() const { return count_ == 0; }
  // The oldest one, which is thereby told.
  Sense Take() {
    CHECK(count_ > 0);
    const SenseCode code = codes_[0];
    std::copy(codes_.begin() + 1, codes_.begin() + count_, codes_.begin());
    --count_;
    return {SenseKey::kUnitAttention, code, {}, {}, {}};
  }

 private:
  // As many as there are codes of unit attentions in SenseCode.
  std::array<SenseCode, 9> codes_ = {};
  size_t count_ = 0;
};

class Nexus {
 public:
  Nexus(LogicalUnit::Body& to, std::string port) : body(to), initiator_port(std::move(port)) {}

  LogicalUnit::Body& body;
  const std::string initiator_port;
  UnitAttentions attentions;
  CopyResults copies;
  // To the persistent reservation; kept here so that no command looks it up.
  Relation relation = Relation::kStranger;
};

}  // namespace ankole::scsi

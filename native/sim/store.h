#pragma once

#include <cstdint>
#include <string>

#include "base/mutant.h"
#include "base/result.h"
#include "wire/record.h"

namespace ankole::sim {

// As wire::Newer, which may be broken on purpose: whoever judges or keeps records is not.
inline bool NewerRecord(const wire::Record& a, const wire::Record& b) {
  return a.epoch != b.epoch ? a.epoch > b.epoch : a.generation > b.generation;
}

// What the manager's store keeps of a volume (src/store/records.ts), as one step each: it gives
// attachments with the record, and refuses records of lower ones from then on (rule 3).
class Store {
 public:
  struct Attachment {
    uint64_t number = 0;
    wire::Record record;
    bool clients_anew = false;  // another machine, or one that booted since
  };
  Attachment Attach(const std::string& machine, const std::string& boot_id) {
    const bool anew = machine != machine_ || boot_id != boot_id_;
    machine_ = machine;
    boot_id_ = boot_id;
    return {++attachment_, record_, anew};
  }
  Status Probe(uint64_t attachment) const {
    if (attachment == attachment_ || Mutant("store-not-fenced")) return Status::Ok();
    return {ErrorCode::kFenced, "the volume is at attachment " + std::to_string(attachment_)};
  }
  Status Put(const wire::Record& record) {
    if (record.epoch.attachment != attachment_ && !Mutant("store-not-fenced")) {
      return {ErrorCode::kFenced, "the volume is at attachment " + std::to_string(attachment_)};
    }
    if (NewerRecord(record_, record) && !Mutant("store-not-fenced")) {
      return {ErrorCode::kUnavailable, "the store has a newer record"};
    }
    record_ = record;
    return Status::Ok();
  }
  uint64_t attachment() const { return attachment_; }
  const wire::Record& record() const { return record_; }

 private:
  uint64_t attachment_ = 0;
  std::string machine_;
  std::string boot_id_;
  wire::Record record_;
};

}  // namespace ankole::sim

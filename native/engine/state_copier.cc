#include "engine/state_copier.h"

#include <cstring>

#include "base/crc32c.h"

namespace ankole::engine {

StateCopier::StateCopier(ResyncHost& host) : host_(host) {
  errand_.owner = this;
  errand_.length_bytes = kTargetStateBytes;
  errand_.done = [](Errand* errand) { static_cast<StateCopier*>(errand->owner)->OnAnswer(); };
}

void StateCopier::Start(Link* source, std::vector<Link*> targets, Done done, void* owner) {
  CHECK(!busy_);
  busy_ = true;
  done_ = done;
  owner_ = owner;
  targets_ = std::move(targets);
  compared_ = false;
  state_.resize(kTargetStateBytes);
  other_.resize(kTargetStateBytes);
  Load(source, state_.data());
}

void StateCopier::Load(Link* from, std::byte* to) {
  if (!from->up()) {
    End(ErrorCode::kConnectionLost);
    return;
  }
  errand_.link = from;
  errand_.opcode = wire::Opcode::kLoadState;
  errand_.payload = nullptr;
  errand_.payload_bytes = 0;
  errand_.data = to;
  host_.SendErrand(&errand_);
}

void StateCopier::OnAnswer() {
  if (errand_.status != ErrorCode::kOk) {
    End(errand_.status);
    return;
  }
  if (errand_.opcode == wire::Opcode::kStoreState) {
    compared_ = false;
    targets_.pop_back();
  } else if (errand_.data == other_.data()) {
    compared_ = true;
  }
  Next();
}

// A store is synced: what a replica has already is not stored again.
void StateCopier::Next() {
  while (compared_ && std::memcmp(state_.data(), other_.data(), state_.size()) == 0) {
    compared_ = false;
    targets_.pop_back();
  }
  if (targets_.empty()) {
    End(ErrorCode::kOk);
    return;
  }
  Link* target = targets_.back();
  if (!compared_) {
    Load(target, other_.data());
    return;
  }
  if (!target->up()) {
    End(ErrorCode::kConnectionLost);
    return;
  }
  Crc32cBlocks(state_.data(), 0, kTargetStateBytes, table_.data());
  errand_.link = target;
  errand_.opcode = wire::Opcode::kStoreState;
  errand_.payload = reinterpret_cast<const std::byte*>(table_.data());
  errand_.payload_bytes = sizeof(table_);
  errand_.data = state_.data();
  host_.SendErrand(&errand_);
}

void StateCopier::End(ErrorCode status) {
  busy_ = false;
  done_(owner_, status);
}

}  // namespace ankole::engine

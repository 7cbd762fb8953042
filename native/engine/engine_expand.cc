#include <algorithm>
#include <utility>

#include "engine/engine.h"

// A volume that becomes larger: its replicas first (Expander), then at once all that counts regions
// here, then the front ends. There is nothing that I/O would wait for.
namespace ankole::engine {
namespace {

// A start waits for so long that the volume is as large as it is wanted before clients see it.
constexpr uint64_t kBeforeReadyNs = 5 * kNsPerSecond;
// And an order for a snapshot that is being taken.
constexpr uint64_t kForSnapshotNs = 5 * kNsPerSecond;
constexpr const char* kSnapshotText = "a snapshot is being taken";

}  // namespace

Status Engine::Expand(const std::string& id, uint64_t size_bytes) {
  if (mode_ != Mode::kServing && mode_ != Mode::kChanging) {
    return {ErrorCode::kUnavailable, "the engine does not serve"};
  }
  if (size_bytes % kBlockBytes != 0 || size_bytes > kVolumeBytesMax) {
    return {ErrorCode::kInvalidArgument,
            "the size must be a multiple of 4096 and at most 64 TiB, it is " +
                std::to_string(size_bytes)};
  }
  if (size_bytes < size_bytes_) {
    return {ErrorCode::kInvalidArgument, "the volume has " + std::to_string(size_bytes_) +
                                             " bytes and cannot become smaller, of " +
                                             std::to_string(size_bytes)};
  }
  const bool under_way = expanding();
  if (under_way && expansion_.to_bytes != size_bytes) {
    return {ErrorCode::kBusy,
            "it is becoming of " + std::to_string(expansion_.to_bytes) + " bytes"};
  }
  expansion_ = {id, size_bytes, ExpansionState::kRunning, Status::Ok()};
  if (under_way) return Status::Ok();
  expand_due_ns_ = std::max<uint64_t>(reactor_.NowNs(), 1);
  if (snapshotter_.taking()) expansion_.status = {ErrorCode::kBusy, kSnapshotText};
  observer_.OnSize(size_bytes_, expansion_);
  ArmTick(true);
  BeginExpansion();
  return Status::Ok();
}

// Not beside a snapshot, as members switch heads of one size.
void Engine::BeginExpansion() {
  if (expand_due_ns_ == 0) return;
  if (snapshotter_.taking()) {
    if (ElapsedNs(expand_due_ns_, reactor_.NowNs()) < kForSnapshotNs) return;
    expand_due_ns_ = 0;
    OnExpanded({ErrorCode::kBusy, kSnapshotText});
    return;
  }
  expand_due_ns_ = 0;
  const auto done = [](void* owner, const Status& status) {
    static_cast<Engine*>(owner)->OnExpanded(status);
  };
  expander_.Start(expansion_.to_bytes, done, this);
}

void Engine::OnExpanded(const Status& status) {
  expansion_.state = status.ok() ? ExpansionState::kDone : ExpansionState::kFailed;
  expansion_.status = status;
  if (status.ok()) {
    Grow(expansion_.to_bytes);
  } else {
    log_.Log(LogLevel::kWarn, "the volume stays of " + std::to_string(size_bytes_) +
                                  " bytes, it cannot have " + std::to_string(expansion_.to_bytes) +
                                  ": " + status.message());
  }
  observer_.OnSize(size_bytes_, expansion_);
  BecomeReady();
}

// The new part is the same everywhere: zeros.
void Engine::Grow(uint64_t size_bytes) {
  CHECK(size_bytes >= size_bytes_);
  if (size_bytes == size_bytes_) return;
  log_.Log(LogLevel::kInfo, "the volume has " + std::to_string(size_bytes) + " bytes instead of " +
                                std::to_string(size_bytes_));
  size_bytes_ = size_bytes;
  regions_.Grow(size_bytes);
  equalizer_.Grow();
  joiner_.Grow();
}

// What a start serves. Where all that it starts on are as large as was last wanted, clients may
// have seen the volume so: the engine before this one may have ended before it could say that. One
// that is smaller than the volume is grown before anything else: it holds the newest record, and
// yet never took part in what the volume became; there its owner chose it (salvage).
bool Engine::GrowBeforeStart() {
  uint64_t least = UINT64_MAX;
  for (const wire::ReplicaId id : decision_.members.all()) {
    least = std::min(least, StateOf(*LinkOf(id)).size_bytes);
  }
  Grow(std::max(size_bytes_, std::min(options_.expand_to_bytes, RoundDown(least, kBlockBytes))));
  if (least >= size_bytes_) return false;
  unequal_from_bytes_ = least;
  SetMode(Mode::kFencing, "making replicas as large as the volume");
  expander_.Start(
      size_bytes_,
      [](void* owner, const Status& status) {
        auto* self = static_cast<Engine*>(owner);
        if (self->mode_ != Mode::kFencing) return;
        if (status.ok()) {
          self->GoOnStarting();
        } else {
          self->AskAgain(status.message() + "; asking again");
        }
      },
      this);
  return true;
}

// Clients come when the volume is as large as it is wanted, or cannot be.
void Engine::ServeFromNowOn() {
  ready_due_ = true;
  ready_limit_ns_ = reactor_.NowNs() + kBeforeReadyNs;
  if (options_.expand_to_bytes > size_bytes_) {
    const Status begun = Expand(options_.expansion_id, options_.expand_to_bytes);
    if (begun.ok()) return;
    log_.Log(LogLevel::kWarn, "the volume cannot become larger: " + begun.message());
  } else if (!options_.expansion_id.empty()) {
    expansion_ = {options_.expansion_id, size_bytes_, ExpansionState::kDone, Status::Ok()};
  }
  observer_.OnSize(size_bytes_, expansion_);
  BecomeReady();
}

void Engine::BecomeReady() {
  if (std::exchange(ready_due_, false)) observer_.OnReady();
}

void Engine::LookAtExpansion(uint64_t now_ns) {
  BeginExpansion();
  expander_.Look();
  if (expander_.running()) {
    // News for who looks; a member that does not answer leaves, or is back.
    const std::string waits_for = expander_.WaitsFor();
    const Status told(ErrorCode::kBusy, waits_for.empty() ? "waiting for a change of members"
                                                          : "waiting for " + waits_for);
    if (expansion_.state == ExpansionState::kRunning &&
        expansion_.status.message() != told.message()) {
      expansion_.status = told;
      observer_.OnSize(size_bytes_, expansion_);
    }
  }
  if (ready_due_ && now_ns >= ready_limit_ns_) BecomeReady();
}

bool Engine::IsToGrow(size_t index) const {
  return IsTarget(index) || (index == joiner_.index() && joiner_.phase() >= Joiner::Phase::kLayers);
}

void Engine::NoteSize(const Link& link, uint64_t size_bytes) {
  uint64_t& known = heard_[link.index()].state.size_bytes;
  known = std::max(known, size_bytes);
}

}  // namespace ankole::engine

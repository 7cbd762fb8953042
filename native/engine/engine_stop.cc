#include <algorithm>

#include "engine/engine.h"

// Stopping: what is in flight ends, then the replicas are closed.
namespace ankole::engine {
namespace {

constexpr uint64_t kStopNs = 3 * kNsPerSecond;
// Of which a member whose connection broke has this much to come back.
constexpr uint64_t kStopGraceNs = 2 * kNsPerSecond;

}  // namespace

void Engine::Stop() {
  if (mode_ == Mode::kStopping || mode_ == Mode::kStopped) return;
  const bool worked = mode_ == Mode::kServing || mode_ == Mode::kChanging;
  SetMode(Mode::kStopping, "closing the replicas");
  stop_deadline_ns_ = reactor_.NowNs() + kStopNs;
  tick_fast_ = false;
  ArmTick(true);
  StopResync();
  if (worked) {
    CloseWhenIdle();
  } else {
    Closed(false);
  }
}

// A replica is closed clean only when it is equal to the others: with nothing in flight, the record
// complete, and not after an unclean start, as nothing has made them equal since.
void Engine::CloseWhenIdle() {
  if (mode_ != Mode::kStopping || closing_ || proposal_.outstanding || pool_.used() > 0) return;
  if (!ResyncIdle()) return;
  if (leaving_.count > 0) return;  // not equal to the others
  const uint64_t began_ns = stop_deadline_ns_ - kStopNs;
  const bool grace = reactor_.NowNs() < began_ns + std::min(options_.late_ns, kStopGraceNs);
  for (const wire::ReplicaId id : targets().all()) {
    if (grace && !LinkOf(id)->up()) return;
  }
  closing_ = true;
  if (!equalizer_.unequal().empty()) {
    log_.Log(LogLevel::kWarn, "the replicas stay marked unclean, as they may differ");
    Closed(false);
    return;
  }
  for (const wire::ReplicaId id : targets().all()) {
    const Link& link = *LinkOf(id);
    if (link.up() && !link.control_outstanding()) closes_due_.Add(id);
  }
  closes_clean_ = closes_due_ == targets();
  for (const wire::ReplicaId id : closes_due_.all()) LinkOf(id)->SendClose();
  if (closes_due_.count == 0) Closed(true);
}

// The answer to CLOSE, or the end of the connection without one.
void Engine::CloseOf(Link& link, bool clean) {
  if (mode_ != Mode::kStopping || !closes_due_.Contains(link.replica())) return;
  closes_clean_ &= clean;
  closes_due_.Remove(link.replica());
  if (closes_due_.count == 0) Closed(true);
}

void Engine::Closed(bool in_time) {
  if (mode_ == Mode::kStopped) return;
  const bool clean = in_time && closing_ && closes_clean_;
  SetMode(Mode::kStopped, clean ? "closed clean" : "not closed clean");
  if (shared_ != nullptr) reactor_.Close(&doorbell_close_);
  reactor_.Cancel(&tick_);
  proposal_.outstanding = false;
  GiveUpBuffers();
  StopResync();
  for (const auto& link : links_) {
    if (link->gone()) continue;
    link->Leave("stopped");
    if (link->gone()) MemberGone(*link);
  }
  FailWaiting(ErrorCode::kUnavailable);
  observer_.OnStopped(clean);
}

bool Engine::Ended() const {
  if (mode_ != Mode::kStopped || pool_.used() > 0) return false;
  if (answer_task_.scheduled || tick_task_.scheduled) return false;
  if (!ResyncIdle()) return false;
  for (const auto& link : links_) {
    if (!link->gone()) return false;
  }
  return !doorbell_.in_flight && !doorbell_close_.in_flight;
}

}  // namespace ankole::engine

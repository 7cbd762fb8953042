#include "engine/engine.h"

// Rule 4: a read is answered only while the majorities of rule 2 have answered this engine within
// the last 2 s. Another engine takes at least half of one of those sets before it starts, and then
// waits as long, unless it knows that this one is dead or has taken every replica: so nothing that
// it acknowledges can be missing from what was read here.
namespace ankole::engine {

bool Engine::RenewLease(uint64_t now_ns) {
  if (ballot_.single()) {
    // Who answered is all there is: it was this engine's when it read.
    lease_until_ns_ = UINT64_MAX;
    return true;
  }
  const uint64_t proved_ns = ballot_.ReachedBy([this](wire::ReplicaId id) -> uint64_t {
    const Link* link = LinkOf(id);
    return link == nullptr ? 0 : link->proved_ns();
  });
  lease_until_ns_ = proved_ns == 0 ? 0 : proved_ns + kLeaseNs;
  return now_ns <= lease_until_ns_;
}

void Engine::AskForLease() {
  for (const auto& link : links_) {
    if (IsTarget(link->index())) link->Ping();
  }
}

void Engine::AnswerHeldReads() {
  // Answering one may bring about others, which go to the end.
  while (!unproved_.empty() && HasLease(reactor_.NowNs())) Acknowledge(unproved_.PopFront());
  if (unproved_.empty() && waits_for_ == WaitsFor::kMajority) GoesOn();
}

// Keeps the lease of a volume that is at work, asks again for reads that wait for it, and says so.
void Engine::CheckLease(uint64_t now_ns) {
  if (mode_ != Mode::kServing && mode_ != Mode::kChanging) return;
  if (!unproved_.empty()) {
    AnswerHeldReads();
    if (unproved_.empty()) return;
    AskForLease();
    if (now_ns - unproved_since_ns_ >= kNsPerSecond && waits_for_ == WaitsFor::kNothing) {
      SetMessage("I/O waits: reads wait until more than half of the members answer",
                 WaitsFor::kMajority);
    }
    return;
  }
  if (!active_ || ballot_.single()) return;
  for (const auto& link : links_) {
    if (IsTarget(link->index()) && link->proved_ns() + kLeaseNs / 2 < now_ns) link->Ping();
  }
}

}  // namespace ankole::engine

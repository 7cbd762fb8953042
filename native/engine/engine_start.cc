#include <algorithm>

#include "engine/engine.h"

// Starting (rule 6): asking, taking over, the first record.
namespace ankole::engine {
namespace {

constexpr uint64_t kPatienceNs = kNsPerSecond;
constexpr uint64_t kHearNs = 250 * kNsPerMs;

}  // namespace

void Engine::Start() {
  start_deadline_ns_ = reactor_.NowNs() + options_.start_wait_ns;
  if (shared_ != nullptr) OnDoorbell();
  SetMode(Mode::kStarting, "asking the replicas");
  ArmTick(true);
  for (const auto& link : links_) link->Start();
}

StartDecision Engine::Decide(const std::vector<Heard>& heard) const {
  StartBasis basis;
  basis.record = options_.record;
  basis.store_restored = options_.store_restored;
  basis.clients_anew = options_.clients_anew;
  basis.attachment = options_.epoch.attachment;
  return DecideStart(basis, heard);
}

// Decides by what was heard so far. Waits for more as long as that can add a member: for those of
// the newest record that have not answered, as they may be starting, too. One that holds an older
// record, or is suspect, stays so until it was taken. When all have answered, no newer record is
// complete: one of them would hold it.
void Engine::Evaluate() {
  if (mode_ != Mode::kStarting) return;
  const StartDecision decision = Decide(heard_);
  const bool in_time = reactor_.NowNs() < start_deadline_ns_;
  if (decision.may_start && (!in_time || (decision.complete && EveryoneHad(kHearNs)))) {
    Fence(decision);
    return;
  }
  // What is there answers within a moment; only then is it news what does not.
  const bool patient = reactor_.NowNs() + options_.start_wait_ns < start_deadline_ns_ + kPatienceNs;
  if (patient || decision.lacking.empty()) return;
  SetMessage("cannot start yet: " + decision.lacking);
  if (decision.lacking != lacking_) observer_.OnCannotStart(decision, heard_);
  lacking_ = decision.lacking;
}

// Who need not be heard gets a moment all the same: an engine that has taken every replica need not
// wait for the lease of one before it (rule 4).
bool Engine::EveryoneHad(uint64_t time_ns) const {
  if (options_.alone || reactor_.NowNs() + options_.start_wait_ns >= start_deadline_ns_ + time_ns) {
    return true;
  }
  return std::all_of(heard_.begin(), heard_.end(), [](const Heard& one) { return one.answered; });
}

// Takes everyone that answered, also whom it does not start on: an engine before this one must find
// no majority any more (rule 4).
void Engine::Fence(const StartDecision& decision) {
  decision_ = decision;
  lacking_.clear();
  proposal_.record.members = decision.members;
  proposal_.record.generation = decision.newest.generation;
  SetMode(Mode::kFencing, "taking the replicas over");
  for (const auto& link : links_) {
    if (heard_[link->index()].answered) link->Fence();
  }
}

// Nothing counts that was heard before. Whoever is there gets a moment to answer, however long this
// start has taken.
void Engine::AskAgain(const std::string& why) {
  SetMode(Mode::kStarting, why);
  expander_.Cancel();
  start_deadline_ns_ = std::max(start_deadline_ns_, reactor_.NowNs() + kPatienceNs);
  for (Heard& heard : heard_) {
    if (heard.answered) heard.why_not = "asked again";
    heard.answered = false;
  }
  for (const auto& link : links_) {
    if (link->up() || link->mode() == LinkMode::kWelcoming) {
      link->Break({ErrorCode::kCancelled, "asking again"});
    } else {
      link->Ask();  // one that came while the others were taken
    }
  }
}

// One was welcomed, or lost. When all are, the answers must still be those that were decided on.
void Engine::FencedMember() {
  if (expander_.running()) {
    // All were welcomed; one that is lost now is asked again with the others.
    for (const wire::ReplicaId id : decision_.members.all()) {
      if (LinkOf(id)->up()) continue;
      AskAgain("a replica was lost while starting; asking again");
      return;
    }
    return;
  }
  for (const auto& link : links_) {
    if (link->mode() == LinkMode::kWelcoming) return;
    if (!link->up() && decision_.members.Contains(link->replica())) {
      AskAgain("a replica was lost while starting; asking again");
      return;
    }
  }
  // Only who was taken counts: an engine before this one may still get a record written by others.
  std::vector<Heard> taken = heard_;
  for (const auto& link : links_) taken[link->index()].answered &= link->up();
  const StartDecision now = Decide(taken);
  if (!now.may_start || !(now.members == decision_.members) || now.newest != decision_.newest) {
    // Another engine wrote a record between the question and the fence; now it cannot any more.
    AskAgain("the replicas changed while starting; asking again");
    return;
  }
  decision_ = now;
  unequal_from_bytes_ = UINT64_MAX;
  if (!GrowBeforeStart()) GoOnStarting();
}

void Engine::GoOnStarting() {
  if (decision_.unclean || (unequal_from_bytes_ < size_bytes_ && decision_.members.count > 1)) {
    LearnMaps();
  } else {
    FirstRecord();
  }
}

void Engine::FirstRecord() {
  const StartDecision& now = decision_;
  bool all = true;
  for (const auto& link : links_) all &= link->up();
  complete_ = now.last_complete;
  std::vector<wire::Members> proposals;
  for (const wire::Record& record : options_.proposals) proposals.push_back(record.members);
  proposals.push_back(now.newest.members);
  ballot_.Begin(options_.kept ? options_.record.members : now.newest.members, proposals);
  // What they have switched to. Salvage's record is held by nobody.
  proposal_.record.newest_snapshot = now.newest.newest_snapshot;
  for (const Heard& heard : heard_) {
    if (!now.members.Contains(heard.replica)) continue;
    const wire::Record& holds = heard.state.records.current;
    proposal_.record.newest_snapshot = holds.newest_snapshot;
    if (holds == now.newest) break;
  }
  serve_from_ns_ = options_.alone || all ? 0 : reactor_.NowNs() + kLeaseWaitNs;
  SetMode(Mode::kRecording, "writing the first record of this attachment");
  for (const auto& link : links_) {
    if (now.members.Contains(link->replica())) continue;
    const Heard& heard = heard_[link->index()];
    Fault fault = Fault::kNotHeard;
    std::string reason = heard.why_not;
    if (heard.answered) {
      const bool older = heard.state.records.current != now.newest;
      fault = older ? Fault::kOlderRecord : Fault::kSuspect;
      reason = older ? "it holds an older record" : "it may have lost what it had acknowledged";
    }
    observer_.OnReplica(link->replica(), "left", fault, reason);
  }
  MustLeave(now.leaving, Fault::kSuspect, "it may have lost what it had acknowledged");
  Propose(now.members);
}

}  // namespace ankole::engine

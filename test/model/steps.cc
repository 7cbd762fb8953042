#include "steps.h"

#include <algorithm>

namespace model {
namespace {

// Rule 4 of section 4: records are ordered by epoch, then by generation.
int OrderOf(Record record, const Rules& rules) {
  if (rules[Clause::kEpochFirst]) return record.epoch << 4 | record.generation;
  return record.generation << 4 | record.epoch;
}
bool Newer(Record a, Record b, const Rules& rules) { return OrderOf(a, rules) > OrderOf(b, rules); }

// --- rule 6: what a start may take

struct StartDecision {
  bool may_start = false;
  Record newest;
  Set members = 0;  // to start on
  Set fenced = 0;   // to welcome it before: these, and others that count
};

// `counted`: whose answers count for the half.
StartDecision DecideStart(const Engine& engine, Set counted, const Rules& rules) {
  StartDecision decision;
  Record newest = rules[Clause::kAsksStore] ? engine.base : Record{};
  Set heard = 0;
  for (int r = 0; r < kReplicas; ++r) {
    if (!engine.heard[r].exists()) continue;
    heard |= Just(r);
    if (rules[Clause::kAsksReplicas] && Newer(engine.heard[r], newest, rules)) {
      newest = engine.heard[r];
    }
  }
  if (!newest.exists()) return decision;

  // It is known to be complete when the store holds it, or a member was told so.
  Set holders = 0;
  bool complete = engine.base.Is(newest);
  for (int r = 0; r < kReplicas; ++r) {
    if (!engine.heard[r].Is(newest)) continue;
    holders |= Just(r);
    complete |= engine.heard[r].last == newest.members;
  }
  // Or when all its members hold it, and they are a majority of the one before (rule 2). The code
  // also wants that its run proposed it right after that one.
  complete |= !engine.restored && holders == newest.members &&
              2 * Count(newest.members & newest.last) > Count(newest.last);
  if (complete) newest.last = newest.members;
  decision.newest = newest;

  const Set members_of_it = heard & newest.members;
  decision.members = members_of_it & holders;
  // A member that lacks it shows that it is not complete. So nothing was acknowledged since the
  // complete record before, of which this one is a member too.
  if (rules[Clause::kSharesLast] && !complete) decision.members |= members_of_it & newest.last;
  decision.fenced = decision.members;
  if (rules[Clause::kCountedAreFenced]) {
    decision.fenced |= heard & newest.members;
    heard &= counted;
  }
  const int members_heard = Count(heard & newest.members);
  bool enough = (decision.members & holders) != 0;
  if (rules[Clause::kHalf]) enough &= 2 * members_heard >= Count(newest.members);
  if (engine.restored && rules[Clause::kRestoredHearsAll]) {
    enough &= (newest.members & ~heard) == 0;
    if (rules[Clause::kRestoredHearsLast]) enough &= (newest.last & ~heard) == 0;
  }
  if (rules[Clause::kSharesLast]) enough &= (decision.members & newest.last) != 0;
  decision.may_start = enough;
  return decision;
}

// --- rule 2: when a record counts

bool Majority(Set holders, Set of, const Rules& rules) {
  const int held = 2 * Count(holders & of);
  return rules[Clause::kStrictMajority] ? held > Count(of) : held >= Count(of);
}

bool MayComplete(const Engine& engine, const Rules& rules) {
  const Record proposal = engine.proposal;
  if (!proposal.exists() || engine.written != proposal.members) return false;
  if (engine.stored) return true;
  if (engine.first && rules[Clause::kFirstRecordInStore]) return false;
  if (!Majority(proposal.members, engine.base.members, rules)) return false;
  if (!rules[Clause::kEveryProposalCounts]) return true;
  for (Set earlier = 1; earlier <= kAll; ++earlier) {
    if (Has(engine.since, earlier) && !Majority(proposal.members, earlier, rules)) return false;
  }
  return true;
}

// Rule 1: and what rule 2 holds back.
bool MayAcknowledge(const Engine& engine, const Rules& rules) {
  if (engine.mode != Mode::kServing || engine.write == 0) return false;
  if (engine.proposal.exists() && rules[Clause::kHeldWhileProposed]) return false;
  const Set wanted = rules[Clause::kHeldWhileProposed] ? engine.base.members : engine.targets();
  if (!rules[Clause::kAllMembersAnswer]) return Majority(engine.write_done, wanted, Rules());
  return (wanted & ~engine.write_done) == 0;
}

// --- the steps

class Steps {
 public:
  Steps(const State& now, const Rules& rules, const Scope& scope, StepSink& sink)
      : now_(now), rules_(rules), scope_(scope), sink_(sink) {}

  void Run() {
    for (int i = 0; i < scope_.attachments; ++i) {
      switch (now_.engines[i].mode) {
        case Mode::kAbsent:
          if (i == 0 || now_.engines[i - 1].mode != Mode::kAbsent) Attach(i);
          break;
        case Mode::kRead:
          Attach(i);
          break;
        case Mode::kStarting:
        case Mode::kFencing:
          Start(i);
          break;
        case Mode::kResuming:
          Resume(i);
          break;
        case Mode::kRecording:
        case Mode::kServing:
          Work(i);
          break;
      }
    }
    for (int r = 0; r < kReplicas; ++r) Execute(r);
    if (now_.restores < scope_.restores) {
      State next = now_;
      ++next.restores;
      next.store.record = next.store.backup;
      next.store.attachment = next.store.backup_attachment;
      next.store.id ^= 1;
      next.store.confirmed = 0;
      Emit({Act::kRestore}, next);
    }
  }

 private:
  // Rule 3: the store gives the attachment and its record in one step.
  void Attach(int i) {
    const Engine& engine = now_.engines[i];
    State next = now_;
    Engine& to = next.engines[i];
    if (engine.mode == Mode::kAbsent) {
      to.base = now_.store.record;
      if (to.base.exists()) to.base.last = to.base.members;
      to.restored = !now_.store.confirmed;
    }
    if (engine.mode == Mode::kAbsent && !rules_[Clause::kAttachInOneStep]) {
      to.mode = Mode::kRead;
      Emit({Act::kRead, i}, next);
      return;
    }
    // A number that no attachment had before, also where the store was restored.
    to.epoch = static_cast<Epoch>(2 * (i + 1));
    next.store.attachment = static_cast<uint8_t>(i + 1);
    to.store_id = now_.store.id;
    to.mode = Mode::kStarting;
    Emit({Act::kAttach, i}, next);
  }

  // Rule 6: asks, fences when the answers let it start, and starts when they still do.
  void Start(int i) {
    const Engine& engine = now_.engines[i];
    for (int r = 0; r < kReplicas; ++r) {
      const Replica& replica = now_.replicas[r];
      if (replica.welcomed > engine.epoch) continue;
      // An answer that came twice is as good as one that came later.
      if (engine.mode == Mode::kStarting && !engine.heard[r].exists()) {
        State next = now_;
        next.engines[i].heard[r] = replica.record;
        Emit({Act::kAsk, i, r}, next);
      }
    }
    if (engine.mode == Mode::kStarting) {
      const StartDecision decision = DecideStart(engine, kAll, rules_);
      if (!decision.may_start) return;
      for (int r = 0; r < kReplicas; ++r) {
        if (Has(decision.fenced, r)) WelcomeOne(i, r, decision.fenced);
      }
      return;
    }
    for (int r = 0; r < kReplicas; ++r) {
      if (Has(engine.chosen & ~engine.welcomed, r)) WelcomeOne(i, r, engine.chosen);
    }
    if (engine.welcomed != engine.chosen) return;
    const StartDecision decision = DecideStart(engine, engine.welcomed, rules_);
    State next = now_;
    Engine& to = next.engines[i];
    if (!decision.may_start || (decision.fenced & ~engine.welcomed) != 0) {
      to.mode = Mode::kStarting;
      to.heard = {};
      to.chosen = to.welcomed = 0;
      Emit({Act::kAskAgain, i}, next);
      return;
    }
    // It leaves out any that may have lost their caches, as long as it shares one with the last.
    for (Set on = 1; on <= kAll; ++on) {
      if ((on & ~decision.members) != 0 || (on & decision.newest.last) == 0) continue;
      State started = now_;
      Engine& of = started.engines[i];
      of.mode = Mode::kRecording;
      of.base = decision.newest;
      of.heard = {};
      of.chosen = of.welcomed = 0;
      of.restored = 0;
      Propose(started, i, on);
      of.first = 1;
      Emit({Act::kStart, i, on}, started);
    }
  }

  void WelcomeOne(int i, int r, Set chosen) {
    State next = now_;
    if (!Welcome(next, i, r)) return;
    Engine& to = next.engines[i];
    to.mode = Mode::kFencing;
    to.chosen = chosen;
    to.welcomed |= Just(r);
    // «Welcome» says what the replica holds now.
    if (rules_[Clause::kCheckedAgain]) to.heard[r] = next.replicas[r].record;
    Emit({Act::kWelcome, i, r}, next);
  }

  // Rule 3: serves the highest epoch it has welcomed. What it had begun was executed before this
  // step, what it had not begun is thrown away.
  bool Welcome(State& next, int i, int r) const {
    Replica& replica = next.replicas[r];
    const Engine& engine = next.engines[i];
    if (replica.welcomed > engine.epoch) return false;
    const bool same = replica.welcomed == engine.epoch;
    replica.welcomed = engine.epoch;
    if (same ? !rules_[Clause::kSameEpochClosed] : !rules_[Clause::kDrain]) {
      if (replica.write_coming != 0) replica.write_late = replica.write_coming;
    } else {
      replica.record_coming = {};
    }
    replica.write_coming = 0;
    return true;
  }

  // Where the supervisor saw the engine end: goes on from what it was told.
  void Resume(int i) {
    const Engine& engine = now_.engines[i];
    Set candidates = engine.base.members;
    if (rules_[Clause::kKeptOnAll]) {
      for (Set set = 1; set <= kAll; ++set) {
        if (Has(engine.since, set)) candidates &= set;
      }
    }
    for (int r = 0; r < kReplicas; ++r) {
      if (!Has(candidates & ~engine.welcomed, r)) continue;
      State next = now_;
      if (!Welcome(next, i, r)) continue;
      next.engines[i].welcomed |= Just(r);
      Emit({Act::kResumeWelcome, i, r}, next);
    }
    if (engine.welcomed == 0 || !MayPropose(engine, engine.welcomed)) return;
    State next = now_;
    Engine& to = next.engines[i];
    to.mode = Mode::kRecording;
    to.welcomed = 0;
    Propose(next, i, engine.welcomed);
    Emit({Act::kResume, i, engine.welcomed}, next);
  }

  // Rule 2.
  void Work(int i) {
    const Engine& engine = now_.engines[i];
    if (engine.proposals < scope_.proposals) {
      for (Set set = 1; set <= kAll; ++set) {
        const Set targets = engine.targets();
        if ((set & ~targets) != 0 || set == targets || !MayPropose(engine, set)) continue;
        if (!Reaches(engine, set)) continue;
        State next = now_;
        ++next.engines[i].proposals;
        Propose(next, i, set);
        Emit({Act::kPropose, i, set}, next);
      }
      if (engine.mode == Mode::kServing && now_.joins < scope_.joins) Join(i);
    }
    if (engine.mode == Mode::kServing && engine.proposal.exists() &&
        !rules_[Clause::kNeverTakenBack]) {
      State next = now_;
      Engine& to = next.engines[i];
      to.spent = engine.proposal.generation;
      Forget(to);
      Emit({Act::kTakeBack, i}, next);
    }
    AskStore(i);
    if (MayComplete(engine, rules_)) {
      State next = now_;
      Engine& to = next.engines[i];
      to.base = engine.proposal;
      to.base.last = to.base.members;
      Forget(to);
      to.mode = Mode::kServing;
      next.served = std::max(next.served, engine.epoch);
      // That a start is complete the supervisor must know too, before any I/O.
      if (engine.first != 0 || !rules_[Clause::kToldBefore]) Tell(to);
      Emit({Act::kComplete, i}, next);
    }
    Writes(i);
    if (engine.mode == Mode::kServing && now_.restarts < scope_.restarts && engine.epoch % 2 == 0) {
      State next = now_;
      ++next.restarts;
      Engine& to = next.engines[i];
      to = {};
      to.mode = Mode::kResuming;
      to.epoch = engine.epoch + 1;
      to.store_id = engine.store_id;
      to.base = engine.told_base;
      to.since = engine.told;
      Emit({Act::kRestart, i}, next);
    }
  }

  bool MayPropose(const Engine& engine, Set set) const {
    return !rules_[Clause::kSharesLast] || (set & engine.base.last) != 0;
  }

  bool Reaches(const Engine& engine, Set set) const {
    for (int r = 0; r < kReplicas; ++r) {
      if (Has(set, r) && Connected(engine, r)) return true;
    }
    return false;
  }

  bool Connected(const Engine& engine, int r) const {
    return now_.replicas[r].welcomed == engine.epoch || !rules_[Clause::kFence];
  }

  void Propose(State& next, int i, Set members) const {
    Engine& engine = next.engines[i];
    Record record;
    record.epoch = engine.epoch;
    record.generation =
        std::max<int>({engine.base.generation, engine.proposal.generation, engine.spent}) + 1;
    record.members = members;
    record.last = engine.base.last;
    engine.proposal = record;
    engine.since |= Just(members);
    engine.written = 0;
    engine.stored = 0;
    if (rules_[Clause::kToldBefore]) Tell(engine);
    for (int r = 0; r < kReplicas; ++r) {
      if (!Has(members, r)) continue;
      Replica& replica = next.replicas[r];
      if (replica.welcomed == engine.epoch) {
        replica.record_coming = record;
      } else if (!rules_[Clause::kFence]) {
        replica.record = record;
        engine.written |= Just(r);
      }
    }
  }

  void Tell(Engine& engine) const {
    if (scope_.restarts == 0) return;
    engine.told_base = engine.base;
    engine.told = engine.since;
  }

  static void Forget(Engine& engine) {
    engine.proposal = {};
    engine.written = 0;
    engine.stored = 0;
    engine.first = 0;
    engine.since = 0;
  }

  // A replica that is no member was made equal, and is proposed.
  void Join(int i) {
    const Engine& engine = now_.engines[i];
    for (int r = 0; r < kReplicas; ++r) {
      if (Has(engine.targets(), r)) continue;
      for (int source = 0; source < kReplicas; ++source) {
        if (!Has(engine.targets(), source) || !Connected(engine, source)) continue;
        State next = now_;
        if (!Welcome(next, i, r)) continue;
        Engine& to = next.engines[i];
        Replica& joiner = next.replicas[r];
        if (rules_[Clause::kJoinerEqual]) joiner.value = now_.replicas[source].value;
        if (engine.write != 0) {
          if (rules_[Clause::kWritesWaitForJoiner]) {
            to.write_done &= ~Just(r);
            joiner.write_coming = engine.write;
          } else {
            to.write_done |= Just(r);
          }
        }
        ++next.joins;
        ++to.proposals;
        Propose(next, i, engine.targets() | Just(r));
        Emit({Act::kJoin, i, r, source}, next);
      }
    }
  }

  void AskStore(int i) {
    const Engine& engine = now_.engines[i];
    const Store& store = now_.store;
    const bool fenced = store.attachment != engine.epoch / 2 && rules_[Clause::kStoreFences];
    const bool stranger = store.id != engine.store_id && rules_[Clause::kStoreId];
    if (fenced || stranger) return;
    const bool held =
        engine.written == engine.proposal.members || !rules_[Clause::kStoreAfterMembers];
    if (engine.proposal.exists() && !engine.stored && held && Takes(engine.proposal)) {
      State next = now_;
      Keep(next.store, engine.proposal);
      next.engines[i].stored = 1;
      Emit({Act::kStoreRecords, i}, next);
    }
    // A hint: nothing waits for it.
    if (engine.mode == Mode::kServing && !engine.base.Is(store.record) && Takes(engine.base)) {
      State next = now_;
      Keep(next.store, engine.base);
      Emit({Act::kReport, i}, next);
    }
  }

  bool Takes(Record record) const {
    return !Newer(now_.store.record, record, rules_) || !rules_[Clause::kStoreRefusesOlder];
  }
  static void Keep(Store& store, Record record) {
    record.last = record.members;
    store.record = record;
    store.confirmed = 1;
  }

  void Writes(int i) {
    const Engine& engine = now_.engines[i];
    if (engine.mode != Mode::kServing) return;
    if (engine.write == 0 && engine.writes < scope_.writes && Reaches(engine, engine.targets())) {
      State next = now_;
      Engine& to = next.engines[i];
      to.write = static_cast<Write>(2 * engine.epoch + engine.writes);
      to.write_outdated = now_.served > engine.epoch;
      ++to.writes;
      for (int r = 0; r < kReplicas; ++r) {
        if (!Has(engine.targets(), r)) continue;
        Replica& replica = next.replicas[r];
        if (replica.welcomed == engine.epoch) {
          replica.write_coming = to.write;
        } else if (!rules_[Clause::kFence]) {
          replica.value = to.write;
          to.write_done |= Just(r);
        }
      }
      Emit({Act::kIssue, i}, next);
    }
    if (MayAcknowledge(engine, rules_)) {
      State next = now_;
      next.acknowledged = std::max(next.acknowledged, engine.write);
      next.engines[i].write = 0;
      next.engines[i].write_done = 0;
      next.engines[i].write_outdated = false;
      Emit({Act::kAcknowledge, i}, next,
           engine.write_outdated
               ? "two writers: acknowledged what it took after a newer engine had begun to serve"
               : nullptr);
    }
  }

  // What a replica executes, and answers at once: an answer that is not heard is one that nothing
  // follows from.
  void Execute(int r) {
    const Replica& replica = now_.replicas[r];
    if (replica.record_coming.exists()) {
      State next = now_;
      Replica& to = next.replicas[r];
      to.record = replica.record_coming;
      to.record_coming = {};
      for (Engine& engine : next.engines) {
        if (engine.epoch == replica.welcomed && engine.proposal.Is(to.record)) {
          engine.written |= Just(r);
        }
      }
      Emit({Act::kRecordWritten, 0, r}, next);
    }
    if (replica.write_coming != 0) {
      State next = now_;
      next.replicas[r].value = replica.write_coming;
      next.replicas[r].write_coming = 0;
      for (Engine& engine : next.engines) {
        if (engine.write == replica.write_coming) engine.write_done |= Just(r);
      }
      Emit({Act::kExecute, 0, r}, next);
      if (!rules_[Clause::kSameEpochClosed] && replica.write_late == 0) {
        // The connection breaks; a new one brings it again.
        next = now_;
        next.replicas[r].write_late = replica.write_coming;
        Emit({Act::kReconnect, 0, r}, next);
      }
    }
    if (replica.write_late != 0) {
      State next = now_;
      next.replicas[r].value = replica.write_late;
      next.replicas[r].write_late = 0;
      Emit({Act::kExecuteLate, 0, r}, next);
    }
  }

  // --- what must never be

  void Emit(const Step& step, State& next, const char* finding = nullptr) {
    if (finding == nullptr) finding = Check(next);
    Tidy(next);
    sink_.Take(step, next, finding);
  }

  const char* Check(const State& state) const {
    for (const Engine& engine : state.engines) {
      if (engine.mode != Mode::kServing || engine.epoch != state.served) continue;
      Set read = engine.base.members;
      if (!rules_[Clause::kHeldWhileProposed]) read &= engine.targets();
      for (int r = 0; r < kReplicas; ++r) {
        if (Has(read, r) && state.replicas[r].value < state.acknowledged) {
          return "a loss: the serving engine has a member without the acknowledged write";
        }
      }
    }
    if (!scope_.dead_ends) return nullptr;
    // With the store and all replicas at hand the next attachment can start.
    Engine next;
    next.base = state.store.record;
    next.restored = !state.store.confirmed;
    for (int r = 0; r < kReplicas; ++r) next.heard[r] = state.replicas[r].record;
    if (DecideStart(next, kAll, rules_).may_start) return nullptr;
    return "a dead end: with the store and all replicas at hand no engine can ever start";
  }

  // Forgets what can have no effect any more, so that states that differ in nothing else are one.
  void Tidy(State& state) const {
    for (Engine& engine : state.engines) {
      if (engine.mode == Mode::kAbsent || engine.mode == Mode::kRead) continue;
      bool reaches = !rules_[Clause::kFence];
      for (const Replica& replica : state.replicas) reaches |= replica.welcomed <= engine.epoch;
      if (reaches) continue;
      // Fenced off everywhere: it may complete and acknowledge what was executed before, no more.
      if (MayAcknowledge(engine, rules_)) continue;
      if (engine.proposal.exists() && engine.written == engine.proposal.members) continue;
      const Epoch epoch = engine.epoch;
      const Record base = engine.base;
      const bool newest = engine.mode == Mode::kServing && epoch == state.served;
      engine = {};
      engine.mode = newest ? Mode::kServing : Mode::kStarting;
      engine.epoch = epoch;
      if (newest) engine.base = base;
    }
    // With no write in flight it only matters of a replica whether it is behind.
    bool in_flight = false;
    for (const Engine& engine : state.engines) in_flight |= engine.write != 0;
    for (Replica& replica : state.replicas) {
      if (replica.value < state.acknowledged) replica.value = 0;
      if (replica.value > state.acknowledged && !in_flight) replica.value = state.acknowledged;
    }
  }

  const State& now_;
  const Rules& rules_;
  const Scope& scope_;
  StepSink& sink_;
};

}  // namespace

void ForEachStep(const State& state, const Rules& rules, const Scope& scope, StepSink& sink) {
  Steps(state, rules, scope, sink).Run();
}

}  // namespace model

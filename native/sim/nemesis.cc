#include "sim/nemesis.h"

#include <algorithm>

#include "sim/rot.h"

namespace ankole::sim {
namespace {

constexpr uint64_t kCareNs = 300 * kNsPerMs;
// The longest of «late» (a drop that needs the store, 2.5 s), with time for a tick and the store.
constexpr uint64_t kSettleNs = 5 * kNsPerSecond;
// Within which a machine is cut off little by little.
constexpr uint64_t kSlowlyNs = 2 * kNsPerSecond;
// Within which a disk host may be killed that has marked that a sync failed.
constexpr uint64_t kMarkNs = kNsPerMs;

}  // namespace

const char* Nemesis::Name(Kind kind) {
  static constexpr const char* kNames[kKinds] = {"kill-disk-host",
                                                 "kill-engine",
                                                 "freeze-disk-host",
                                                 "freeze-engine",
                                                 "break-connection",
                                                 "cut-one-way",
                                                 "cut",
                                                 "isolate",
                                                 "cut-store",
                                                 "power-one",
                                                 "power-all",
                                                 "move",
                                                 "slow-disk",
                                                 "read-error",
                                                 "write-error",
                                                 "sync-error",
                                                 "full-disk",
                                                 "replace-disk",
                                                 "flip-bits",
                                                 "at-record",
                                                 "fork"};
  return kNames[kind];
}

Nemesis::Nemesis(Cluster& cluster)
    : cluster_(cluster), world_(cluster.world), random_(cluster.world.random.Next()) {
  // One in four has very few, for what follows from one of them not to end in the next.
  const uint64_t one_in = random_.Chance(1, 4) ? 8 : 3;
  for (uint8_t kind = 0; kind < kKinds; ++kind) {
    if (random_.Chance(1, one_in)) kinds_.push_back(static_cast<Kind>(kind));
  }
  // No fault of its own.
  at_record_ = std::erase(kinds_, kAtRecord) > 0;
  std::erase(kinds_, kFork);
  if (cluster_.options.forks) {
    kinds_ = {kFork};
    at_record_ = false;
  }
  if (cluster_.options.reverts) {
    std::erase(kinds_, kFlipBits);
    if (random_.Chance(3, 4)) {
      kinds_.clear();
      at_record_ = false;
    }
  }
  pause_ns_ = (50 * kNsPerMs) << random_.Below(6);
  length_ns_ = (200 * kNsPerMs) << random_.Below(6);
  cluster_.on_record = [this] { AtRecord(); };
  cluster_.on_snapshot = [this] { AtSnapshot(); };
  CareForEngine();
}

std::string Nemesis::Describe() const {
  std::string text;
  for (const Kind kind : kinds_) text += std::string(text.empty() ? "" : ", ") + Name(kind);
  if (at_record_) text += std::string(text.empty() ? "" : ", ") + Name(kAtRecord);
  return text.empty() ? "none" : text;
}

bool Nemesis::flips() const {
  return std::find(kinds_.begin(), kinds_.end(), kFlipBits) != kinds_.end();
}

void Nemesis::Start() {
  running_ = true;
  step_ = Step::kNone;
  ++round_;
  Schedule();
}

void Nemesis::Schedule() {
  world_.After(random_.Skewed(pause_ns_ / 8, 2 * pause_ns_), [this, round = round_] {
    if (!running_ || round != round_) return;
    Strike();
    Schedule();
  });
}

void Nemesis::Strike() {
  if (kinds_.empty() || DamageSettles()) return;
  Do(kinds_[random_.Below(kinds_.size())]);
}

// Membership is where most can go wrong: what fails within the moments after a record was proposed,
// or became complete, meets it half done.
void Nemesis::AtRecord() {
  if (running_ && step_ != Step::kNone) ForkAtRecord();
  if (!running_ || !at_record_ || random_.Chance(1, 2)) return;
  world_.After(random_.Skewed(0, 200 * kNsPerMs), [this, round = round_] {
    if (!running_ || round != round_) return;
    // Of most consequence: who hears whom, and who knows of the record.
    static constexpr Kind kFirst[] = {kMove, kCutStore, kIsolate, kPowerAll, kKillEngine};
    const Kind first = kFirst[random_.Below(std::size(kFirst))];
    if (Has(first) && !DamageSettles()) {
      Do(first);
    } else {
      Strike();
    }
  });
}

// A snapshot is prepared, flushed, switched to and sealed within some round trips and syncs, and
// merged a second after it was deleted.
void Nemesis::AtSnapshot() {
  if (!running_ || random_.Chance(1, 2)) return;
  const uint64_t most_ns = random_.Chance(1, 3) ? 3 * kNsPerSecond : 100 * kNsPerMs;
  world_.After(random_.Skewed(0, most_ns), [this, round = round_] {
    if (running_ && round == round_) Strike();
  });
}

bool Nemesis::Has(Kind kind) const {
  return std::find(kinds_.begin(), kinds_.end(), kind) != kinds_.end();
}

// While a disk begins to fail nothing else does, for long enough that the engine parts with it:
// else the sound members might be dropped for being late, and the one that stays has no disk.
bool Nemesis::DamageSettles() const { return world_.now_ns() < damage_settled_ns_; }

Machine& Nemesis::AnyDisk() {
  return cluster_.replica_machine(random_.Below(cluster_.replica_count()));
}

void Nemesis::Do(Kind kind) {
  const auto trace = [&](const std::string& what) {
    if (world_.tracing()) world_.Trace("nemesis", std::string(Name(kind)) + " " + what);
  };
  const uint64_t length_ns = random_.Skewed(kNsPerMs, length_ns_);
  if (kind < kReadError || kind == kFullDisk) {
    // It may begin later, too.
    const uint64_t later_ns = kind == kIsolate ? kSlowlyNs : 0;
    const uint64_t until_ns = world_.now_ns() + 4 * length_ns + later_ns + kSettleNs;
    troubled_until_ns_ = std::max(troubled_until_ns_, until_ns);
  }
  const size_t replica = random_.Below(cluster_.replica_count());
  const Machine& disk = cluster_.replica_machine(replica);
  switch (kind) {
    case kKillDiskHost:
      if (!cluster_.rot->MayCrash(disk)) return;
      trace(disk.name());
      cluster_.KillDiskHost(replica, random_.Chance(1, 2) ? 0 : length_ns);
      return;
    case kKillEngine:
      trace("");
      cluster_.KillEngine(random_.Chance(1, 2) ? 0 : length_ns);
      return;
    case kFreezeDiskHost:
      if (cluster_.disk_host(replica) == nullptr) return;
      trace(disk.name() + " for " + std::to_string(length_ns / kNsPerMs) + " ms");
      cluster_.disk_host(replica)->reactor.FreezeUntil(world_.now_ns() + length_ns);
      return;
    case kFreezeEngine:
      if (cluster_.engine() == nullptr) return;
      trace(std::to_string(length_ns / kNsPerMs) + " ms");
      cluster_.engine()->reactor.FreezeUntil(world_.now_ns() + length_ns);
      return;
    case kBreakConnection:
      if (cluster_.engine_machine() == nullptr) return;
      trace(disk.name());
      cluster_.network.Break(cluster_.engine_machine()->name(), disk.name());
      return;
    case kCutOneWay:
    case kCutBothWays: {
      if (cluster_.engine_machine() == nullptr) return;
      const std::string& engine = cluster_.engine_machine()->name();
      trace(disk.name() + " for " + std::to_string(length_ns / kNsPerMs) + " ms");
      const bool both = kind == kCutBothWays;
      const bool there = random_.Chance(1, 2);
      if (both || there) Cut(engine, disk.name(), length_ns);
      if (both || !there) Cut(disk.name(), engine, length_ns);
      return;
    }
    case kIsolate:
      Isolate(length_ns);
      return;
    case kCutStore: {
      trace("");
      for (const auto& machine : cluster_.machines()) {
        if (random_.Chance(1, 2)) cluster_.CutStore(*machine);
      }
      world_.After(4 * length_ns, [this] { cluster_.HealStore(); });
      return;
    }
    case kPowerOne: {
      const auto& machines = cluster_.machines();
      Machine& machine = *machines[random_.Below(machines.size())];
      if (!cluster_.rot->MayCrash(machine)) return;
      cluster_.LosePower(machine, random_.Skewed(kNsPerMs, 4 * length_ns));
      return;
    }
    case kPowerAll:
      // Not all at the very same moment, and perhaps not all.
      for (const auto& machine : cluster_.machines()) {
        if (random_.Chance(1, 8)) continue;
        world_.After(random_.Skewed(0, 50 * kNsPerMs), [this, &machine = *machine, length_ns] {
          if (!cluster_.rot->MayCrash(machine)) return;
          cluster_.LosePower(machine, random_.Skewed(kNsPerMs, 4 * length_ns));
        });
      }
      return;
    case kMove:
      Move();
      return;
    case kSlowDisk:
      trace(disk.name() + " for " + std::to_string(2 * length_ns / kNsPerMs) + " ms");
      cluster_.replica_machine(replica).faults.slow_until_ns = world_.now_ns() + 2 * length_ns;
      cluster_.replica_machine(replica).faults.uneven = random_.Chance(1, 2);
      return;
    case kReadError:
    case kWriteError:
    case kSyncError:
      Damage(kind);
      return;
    case kFullDisk: {
      trace("");
      const bool all = random_.Chance(1, 3);
      for (size_t i = 0; i < cluster_.replica_count(); ++i) {
        if (!all && i != replica) continue;
        Machine& machine = cluster_.replica_machine(i);
        if (!cluster_.rot->MayDamage(machine)) continue;
        machine.was_full = true;
        Disk& full = machine.disk;
        full.capacity_pages = full.used_pages() + random_.Below(8);
        world_.After(length_ns, [this, &machine] {
          machine.disk.capacity_pages = Disk::kCapacityPages;
          machine.full_tick = world_.Tick();
        });
      }
      return;
    }
    case kReplaceDisk:
      // All that it has, the members have: it was away, or is about to come back.
      for (size_t i = 0; i < cluster_.replica_count(); ++i) {
        const wire::ReplicaId id = cluster_.replica_id(i);
        if (!cluster_.IsAway(id)) continue;
        trace(cluster_.replica_machine(i).name());
        cluster_.ReplaceDisk(i, random_.Below(length_ns));
        return;
      }
      return;
    case kFlipBits:
      cluster_.rot->Strike(random_.Between(1, 8), random_.Chance(1, 16));
      return;
    case kFork:
      Fork();
      return;
    case kAtRecord:
    case kKinds:
      return;
  }
}

// Two engines go on from the same record without knowing of each other, as the shortest losses of
// the membership model have it (test/model). The first is left with one replica, the others leave
// it by one record or by more, and the store may or may not hear of the last. Then the volume goes
// to a machine that reaches the others, but not that one. At last everybody is heard again, and it
// may move once more. With more than three replicas a record of the first that nobody else holds
// may be of a higher generation than those of the second, and have members in common with them.
void Nemesis::Fork() {
  Machine* const engine = cluster_.engine_machine();
  if (step_ != Step::kNone || engine == nullptr || cluster_.EngineLost()) return;
  const size_t count = cluster_.replica_count();
  if (cluster_.engine() == nullptr || !cluster_.engine()->ready() || count < 3 ||
      cluster_.targets().count < count) {
    return;
  }
  forked_ = engine;
  kept_ = random_.Below(count);
  for (size_t i = 0; i < count; ++i) {
    if (&cluster_.replica_machine(i) == engine) kept_ = i;
  }
  slowly_ = random_.Chance(count < 4 ? 2 : 3, 4);
  early_ = false;
  step_ = slowly_ ? Step::kFirstRecord : Step::kAlone;
  if (world_.tracing()) world_.Trace("nemesis", "fork at " + engine->name());
  if (!slowly_) {
    CutAllBut(kept_);
    return;
  }
  // One is late first. All others are cut off when it leaves. Where there are more than two, the
  // disk host of one of them ends before: it is late next, and the others are not yet.
  CutPair(*engine, cluster_.replica_machine((kept_ + count - 1) % count));
  if (count < 4) return;
  world_.After(random_.Below(cluster_.options.late_ns), [this, count, round = round_] {
    if (!running_ || round != round_ || step_ == Step::kNone) return;
    cluster_.KillDiskHost((kept_ + count - 2) % count, 2 * cluster_.options.late_ns);
  });
}

void Nemesis::CutAllBut(size_t kept) {
  for (size_t i = 0; i < cluster_.replica_count(); ++i) {
    if (i != kept) CutPair(*forked_, cluster_.replica_machine(i));
  }
}

// A record is proposed, and nobody has it yet; or it is complete.
void Nemesis::ForkAtRecord() {
  if (step_ == Step::kFirstRecord) {
    CutAllBut(kept_);
    early_ = random_.Chance(2, 3);
    step_ = Step::kAlone;
    return;
  }
  const wire::Members& targets = cluster_.targets();
  const bool alone = targets.count == 1 && targets.Contains(cluster_.replica_id(kept_));
  if (step_ != Step::kAlone || (!alone && !early_)) return;
  step_ = Step::kMoving;
  if (slowly_ || random_.Chance(1, 4)) cluster_.CutStore(*forked_);
  world_.After(random_.Between(50, 600) * kNsPerMs, [this, round = round_] {
    if (running_ && round == round_) ForkMoves();
  });
}

void Nemesis::ForkMoves() {
  const Machine& kept = cluster_.replica_machine(kept_);
  EngineProcess* const before = cluster_.engine();
  for (const auto& machine : cluster_.machines()) {
    if (machine.get() == forked_ || machine.get() == &kept || !machine->up()) continue;
    CutPair(*machine, kept);
    cluster_.Attach(*machine);
    break;
  }
  // What its clients wait for they ask for elsewhere only when it is gone.
  if (random_.Chance(2, 3)) EndOldEngine(before, random_.Below(4 * kNsPerSecond));
  // The start waits for a second, and for a lease of two.
  world_.After(random_.Between(3500, 8000) * kNsPerMs, [this, round = round_] {
    if (!running_ || round != round_) return;
    for (const auto& from : cluster_.machines()) {
      for (const auto& to : cluster_.machines()) cluster_.network.Heal(from->name(), to->name());
    }
    cluster_.HealStore();
    step_ = Step::kNone;
    if (random_.Chance(3, 4)) Move();
  });
}

void Nemesis::CutPair(const Machine& one, const Machine& other) {
  cluster_.network.Cut(one.name(), other.name());
  cluster_.network.Cut(other.name(), one.name());
}

// All of it at once, or one way after the other, so that members leave by more than one record.
// When the engine is there, the manager may give the volume to another machine.
void Nemesis::Isolate(uint64_t for_ns) {
  const auto& machines = cluster_.machines();
  const Machine* alone = machines[random_.Below(machines.size())].get();
  if (cluster_.engine_machine() != nullptr && random_.Chance(1, 2)) {
    alone = cluster_.engine_machine();
  }
  if (world_.tracing()) {
    world_.Trace("nemesis",
                 "isolate " + alone->name() + " for " + std::to_string(for_ns / kNsPerMs) + " ms");
  }
  const bool slowly = random_.Chance(1, 3);
  for (const auto& other : machines) {
    if (other.get() == alone) continue;
    const uint64_t delay_ns = slowly ? random_.Below(kSlowlyNs) : 0;
    world_.After(delay_ns, [this, alone, &other = *other, for_ns, round = round_] {
      if (round != round_ || !running_) return;
      Cut(alone->name(), other.name(), for_ns);
      Cut(other.name(), alone->name(), for_ns);
    });
  }
  if (random_.Chance(1, 2)) {
    world_.After(slowly ? random_.Below(2 * kSlowlyNs) : 0, [this, alone, round = round_] {
      if (round == round_ && running_) cluster_.CutStore(*alone);
    });
  }
  if (alone != cluster_.engine_machine() || !Has(kMove)) return;
  world_.After(random_.Skewed(0, kSlowlyNs), [this, round = round_] {
    if (round == round_ && running_) Move();
  });
}

void Nemesis::Cut(const std::string& from, const std::string& to, uint64_t for_ns) {
  cluster_.network.Cut(from, to);
  world_.After(for_ns, [this, from, to] { cluster_.network.Heal(from, to); });
}

// A disk may fail as long as another member's is sound and has lost nothing.
bool Nemesis::MayDamage(const Machine& machine) const {
  for (const wire::ReplicaId id : cluster_.complete().members.all()) {
    const Machine* member = cluster_.MachineOf(id);
    if (member != &machine && member->up() && !member->damaged && member->lost_tick == 0) {
      return true;
    }
  }
  return false;
}

void Nemesis::Damage(Kind kind) {
  Machine& machine = AnyDisk();
  if (!MayDamage(machine) || !cluster_.rot->MayDamage(machine)) return;
  if (kind != kReadError && world_.now_ns() < troubled_until_ns_) return;
  if (world_.tracing()) world_.Trace("nemesis", std::string(Name(kind)) + " " + machine.name());
  machine.damaged = true;
  if (kind == kReadError) machine.faults.read_errors += random_.Between(1, 3);
  if (kind == kWriteError) machine.faults.write_errors = 1;
  if (kind == kSyncError) machine.faults.sync_errors = 1;
  if (kind == kReadError) return;
  machine.disk_failed = true;
  damage_settled_ns_ = world_.now_ns() + kSettleNs;
  world_.At(damage_settled_ns_ - kSettleNs / 2, [&machine] {
    machine.faults.write_errors = machine.faults.sync_errors = 0;
    machine.on_sync_failed = nullptr;
  });
  if (random_.Chance(1, 4)) return;
  // The answer may be lost on its way, and be asked for again on another connection, or from
  // another process.
  for (size_t i = 0; i < cluster_.replica_count(); ++i) {
    if (&cluster_.replica_machine(i) != &machine) continue;
    const bool kill = random_.Chance(1, 4);
    const auto lose = [this, i, kill, &machine] {
      if (kill) cluster_.KillDiskHost(i, 0);
      if (!kill) cluster_.network.Break(cluster_.engine_machine()->name(), machine.name());
    };
    if (kind == kSyncError && kill) {
      machine.on_sync_failed = [this, i] { KillWhenMarked(i); };
    } else if (kind == kSyncError && random_.Chance(2, 3)) {
      machine.on_sync_failed = [this, lose] {
        world_.After(random_.Skewed(0, cluster_.network.options.delay_ns_max), lose);
      };
    } else {
      for (int times = 0; times < (kill ? 1 : 40); ++times) {
        world_.After(random_.Below(kSettleNs / 4), lose);
      }
    }
  }
}

// Not before: what it has not marked, it cannot know when it is killed.
void Nemesis::KillWhenMarked(size_t replica) {
  world_.After(random_.Skewed(kMarkNs / 10, kMarkNs), [this, replica, round = round_] {
    if (!running_ || round != round_ || !DamageSettles()) return;
    InodePtr mark;
    const std::string name = cluster_.DirectoryOf(replica) + "/failed";
    if (cluster_.replica_machine(replica).disk.Lookup(name, &mark) < 0) {
      KillWhenMarked(replica);
    } else {
      cluster_.KillDiskHost(replica, 0);
    }
  });
}

// The volume goes to another machine, or to the same again; the engine that had it may live on.
void Nemesis::Move() {
  const auto& machines = cluster_.machines();
  Machine& target = *machines[random_.Below(machines.size())];
  if (!target.up()) return;
  EngineProcess* const before = cluster_.engine();
  cluster_.Attach(target);
  EndOldEngine(before, random_.Skewed(0, 8 * kNsPerSecond));
}

void Nemesis::EndOldEngine(EngineProcess* engine, uint64_t after_ns) {
  world_.After(after_ns, [this, engine] {
    const auto& old = cluster_.old_engines();
    if (std::find(old.begin(), old.end(), engine) != old.end()) cluster_.KillOldEngine(engine);
  });
}

// What the manager does: a volume whose engine's machine is gone is attached anew.
void Nemesis::CareForEngine() {
  world_.After(kCareNs, [this] {
    Machine* const machine = cluster_.engine_machine();
    if (machine != nullptr && cluster_.EngineLost() && random_.Chance(1, 4)) {
      const auto& machines = cluster_.machines();
      Machine& target = *machines[random_.Below(machines.size())];
      if (target.up()) cluster_.Attach(target);
    }
    CareForEngine();
  });
}

void Nemesis::Heal() {
  running_ = false;
  if (world_.tracing()) world_.Trace("nemesis", "heals");
  for (const auto& from : cluster_.machines()) {
    for (const auto& to : cluster_.machines()) cluster_.network.Heal(from->name(), to->name());
    from->disk.capacity_pages = Disk::kCapacityPages;
    from->faults.slow_until_ns = 0;
    from->faults.read_errors = from->faults.write_errors = from->faults.sync_errors = 0;
    from->on_sync_failed = nullptr;
  }
  cluster_.HealStore();
}

}  // namespace ankole::sim

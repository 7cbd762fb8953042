#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sim/cluster.h"

namespace ankole::sim {

// Makes things fail, as far as the design promises to survive it: so that every finding is a bug.
// Each run has a few kinds of faults, at its own rate, as all at once hide each other.
class Nemesis {
 public:
  explicit Nemesis(Cluster& cluster);

  // Faults come from now on.
  void Start();
  // No new ones; what was broken is mended: the network, the store, full disks; machines boot.
  void Heal();
  // The kinds of this run, for the trace.
  std::string Describe() const;
  // Bits flip in this run.
  bool flips() const;

 private:
  enum Kind : uint8_t {
    kKillDiskHost,
    kKillEngine,
    kFreezeDiskHost,
    kFreezeEngine,
    kBreakConnection,
    kCutOneWay,
    kCutBothWays,
    kIsolate,
    kCutStore,
    kPowerOne,
    kPowerAll,
    kMove,
    kSlowDisk,
    kReadError,
    kWriteError,
    kSyncError,
    kFullDisk,
    kReplaceDisk,
    kFlipBits,
    kAtRecord,
    kFork,
    kKinds,
  };
  void Schedule();
  void Strike();
  void AtRecord();
  void AtSnapshot();
  void Fork();
  void ForkAtRecord();
  void ForkMoves();
  void CutAllBut(size_t kept);
  void CutPair(const Machine& one, const Machine& other);
  void Do(Kind kind);
  bool Has(Kind kind) const;
  void Isolate(uint64_t for_ns);
  void Move();
  void EndOldEngine(EngineProcess* engine, uint64_t after_ns);
  void Cut(const std::string& from, const std::string& to, uint64_t for_ns);
  void Damage(Kind kind);
  void KillWhenMarked(size_t replica);
  bool MayDamage(const Machine& machine) const;
  bool DamageSettles() const;
  Machine& AnyDisk();
  void CareForEngine();
  static const char* Name(Kind kind);

  Cluster& cluster_;
  World& world_;
  Random random_;
  std::vector<Kind> kinds_;
  uint64_t pause_ns_ = 0;   // between two faults, about
  uint64_t length_ns_ = 0;  // of one that ends by itself, at the most
  bool running_ = false;
  bool at_record_ = false;
  // Fork.
  enum class Step : uint8_t { kNone, kFirstRecord, kAlone, kMoving };
  Step step_ = Step::kNone;
  bool slowly_ = false;  // members leave by more than one record
  bool early_ = false;   // it does not wait until the engine is alone
  size_t kept_ = 0;      // the replica that stays with the engine
  Machine* forked_ = nullptr;
  // When what was done so far has no effect any more; after that, a disk may be damaged.
  uint64_t troubled_until_ns_ = 0;
  uint64_t damage_settled_ns_ = 0;
  uint64_t round_ = 0;  // faults of an earlier round do not end in this one
};

}  // namespace ankole::sim

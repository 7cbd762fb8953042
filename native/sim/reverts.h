#pragma once

#include <cstdint>
#include <string>

#include "sim/cluster.h"
#include "sim/load.h"
#include "sim/snapshots.h"

namespace ankole::sim {

// Who reverts the volume while one of its replicas does not hear of it, in one seed in twelve. What
// such a replica lacks afterwards shows only in regions that nobody wrote to since, so clients do
// nothing but read from before it goes until it is back: regions are clean by then. It either is
// away when the revert is asked for, or is the only one that hears of the record of the revert, and
// the volume goes on elsewhere without it.
class Reverts {
 public:
  // Chance of its own: the other seeds are what they were before there were any of these.
  static bool Of(uint64_t seed);
  static void Set(uint64_t seed, Cluster::Options* options);

  // After the nemesis: it looks at records, too.
  Reverts(Cluster& cluster, Load& load, Snapshots& snapshots, uint64_t seed);

  std::string Describe() const { return on_ ? ", reverts that a replica misses" : ""; }
  void Start();
  void Stop();

 private:
  enum class Step : uint8_t {
    kWriting,    // until clients have written something
    kCleaning,   // they only read, until regions are clean
    kLeaving,    // until the replica is no member
    kReverting,  // until a revert is answered
    kAlone,      // until a revert's record is proposed
    kMoving,     // the volume goes on elsewhere
    kBack,       // until all are members
  };
  void Go(Step step, uint64_t limit_ns);
  void LookLater();
  void Look();
  bool Ready() const;
  void CutOff(const Machine& machine);
  void Heal();
  void OnRecord();
  void Move();

  Cluster& cluster_;
  Load& load_;
  Snapshots& snapshots_;
  World& world_;
  Random random_;
  bool on_ = false;
  bool running_ = false;
  uint64_t turn_ = 0;
  Step step_ = Step::kWriting;
  uint64_t until_ns_ = 0;          // then the step is over, whatever became of it
  size_t replica_ = 0;             // that misses the revert, or has it alone
  bool alone_ = false;             // the latter
  uint64_t reverted_ = 0;          // when the step began
  std::string newest_;             // before the revert
  EngineProcess* left_ = nullptr;  // the engine whose revert only that one has
};

}  // namespace ankole::sim

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "sim/clone_volume.h"
#include "sim/snapshots.h"

namespace ankole::sim {

// Who makes linked clones of snapshots, uses and deletes them, in one seed in six of those that
// have snapshots; and, as most can go wrong while one is made, ends the disk host then, or takes
// its machine's power.
class Clones {
 public:
  // Chance of its own: the other seeds are what they were before there were any of these.
  static void Set(uint64_t seed, Cluster::Options* options);

  Clones(Cluster& cluster, Snapshots& snapshots, uint64_t seed);

  bool on() const { return on_; }
  std::string Describe() const;
  void Start();
  // It breaks nothing any more.
  void Calm() { breaks_ = false; }
  // No new ones. All are read and deleted; but for some that stay as they are until the next Start,
  // unless `all`. Over when idle.
  void Stop(bool all);
  bool idle() const;
  std::string Waiting() const;

 private:
  void NextLater();
  void Next();
  void StepLater(CloneVolume* clone);
  void Break(CloneVolume* clone, bool named);
  bool MayCrash(const CloneVolume& clone) const;
  void LosePower(const CloneVolume& clone);
  size_t Alive() const;

  Cluster& cluster_;
  Snapshots& snapshots_;
  World& world_;
  Random random_;
  bool on_ = false;
  bool running_ = false;
  bool breaks_ = false;
  uint64_t turn_ = 0;
  uint64_t pause_ns_ = 0;
  uint64_t life_ns_ = 0;
  size_t most_ = 0;  // at a time
  std::vector<std::unique_ptr<CloneVolume>> clones_;
};

}  // namespace ankole::sim

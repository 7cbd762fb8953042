#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "sim/disk.h"
#include "sim/network.h"
#include "sim/world.h"

namespace ankole::sim {

class SimReactor;

// What a disk is made to do wrong. Counts are of calls to come.
struct DiskFaults {
  uint32_t read_errors = 0;
  uint32_t write_errors = 0;
  uint32_t sync_errors = 0;
  uint64_t slow_until_ns = 0;  // whatever must wait for the device waits until then,
  bool uneven = false;         // or half of it does, each for another part of that time
};

// A simulated machine: a disk, a clock, a boot id, and the processes that run on it.
class Machine {
 public:
  Machine(World& world, Network& network, std::string name);
  ~Machine();

  const std::string& name() const { return name_; }
  bool up() const { return up_; }
  const std::string& boot_id() const { return boot_id_; }
  uint64_t boots() const { return boots_; }

  // CLOCK_MONOTONIC: from some number at the boot, a little faster or slower than the World's time.
  uint64_t ClockNs() const;
  // The World's time at which the clock shows no less than this.
  uint64_t WorldNs(uint64_t clock_ns) const;

  // All processes end, what was not synced vanishes, connections are half-open.
  void LosePower();
  void Boot();

  // An open file (description): numbers are not used again.
  struct OpenFile {
    InodePtr inode;
    SimReactor* owner = nullptr;
    bool write = false;
    std::string path;
  };
  int Open(OpenFile file);
  OpenFile* Find(int fd);
  void Close(int fd);
  void CloseAllOf(const SimReactor* owner);

  // How much longer the device takes for what is asked now.
  uint64_t SlowNs(Random& random) const;
  void NoteLost();
  void SyncFails(Inode* inode);

  void Add(SimReactor* process) { processes_.push_back(process); }
  void Remove(SimReactor* process) { std::erase(processes_, process); }

  World& world;
  Network& network;
  Disk disk;
  DiskFaults faults;
  // The tick at which it last lost what was not synced, by power or by a sync that failed; 0: not
  // since it was last made equal.
  uint64_t lost_tick = 0;
  // That one, when its replica was last proposed by an engine that had made it equal and flushed
  // it.
  uint64_t lost_before_join = 0;
  // Its disk was made to fail: what it answers with errors is no finding.
  bool damaged = false;
  bool disk_failed = false;  // writes or syncs, of these
  bool was_full = false;     // its disk was, once: checksums may have found no room
  uint64_t full_tick = 0;    // the tick at which it last was; 0: never
  std::function<void()> on_lost;
  std::function<void()> on_sync_failed;  // a sync was made to fail: nobody has been told yet
  uint16_t next_port = 20'000;

 private:
  const std::string name_;
  bool up_ = true;
  std::string boot_id_;
  uint64_t boots_ = 0;
  uint64_t boot_world_ns_ = 0;
  uint64_t boot_clock_ns_ = 0;
  int64_t drift_ppm_ = 0;
  std::map<int, OpenFile> open_;
  int next_fd_ = 3;
  std::vector<SimReactor*> processes_;
};

}  // namespace ankole::sim

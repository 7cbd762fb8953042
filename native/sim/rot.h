#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "sim/cluster.h"

namespace ankole::sim {

// Bits that flip on disks, and what a replica may be asked for all the same (rule 9): what was read
// is right, or an error where no copy is good; and a copy is repaired from one that is.
//
// What the rule does not cover is left alone: a block in a region that counts as dirty has no
// checksum that lasts, so there a crash makes a flip part of the data. So bits flip in clean
// regions only, and a disk host that has one in a region that became dirty since is not crashed.
class Rot {
 public:
  explicit Rot(Cluster& cluster);

  // Flips a bit in some blocks, each time in one copy or more: of all copies where `everywhere`.
  void Strike(size_t blocks, bool everywhere);
  // Whether this machine may lose power, or its disk host be killed; and its disk fail or be full.
  bool MayCrash(const Machine& machine) const;
  bool MayDamage(const Machine& machine) const;
  // Members changed, or one lost what it had not synced: copies that were good may not count any
  // more.
  void Look();
  // A client is about to change these bytes.
  void Changes(uint64_t offset_bytes, uint64_t length_bytes);
  // All of these blocks were written anew.
  void Overwritten(uint64_t offset_bytes, uint64_t length_bytes);
  // Whether an error may be the answer for a range: some block of it has no good copy, or had none
  // once, and it was marked as bad at others as well.
  bool Excuses(uint64_t offset_bytes, uint64_t length_bytes) const;
  bool IsLost(uint64_t block) const { return lost_.contains(block); }
  // Members that still hold a flipped bit where there is a good copy: for a finding, or "".
  std::string Unrepaired() const;
  // Rule 5: what is not synced is in regions that count as dirty also after a power loss; and
  // nothing of it is in a snapshot that is sealed (rule 8). A block for which that is not so, for a
  // finding, or "".
  std::string CleanUnsynced() const;
  // Whether a program that reads the block from the layer `from` on down looks at layer `at`.
  static bool IsShown(const LayersNow& layers, uint64_t block, size_t from, size_t at);
  uint64_t flips() const { return flips_; }
  // Of some copy of the block, at some time: in a snapshot it may be there for good.
  bool WasFlipped(uint64_t block) const { return flipped_.contains(block); }
  const std::set<uint64_t>& flipped() const { return flipped_; }

 private:
  struct Flip {
    size_t replica;
    uint64_t byte;    // of the volume, in whatever layer it lies
    std::byte value;  // as it is now
    // A part of its block may have been changed while it stood.
    bool touched = false;
    // All of its block was: it is gone, also where what was written has that byte by chance.
    bool overwritten = false;
  };
  // What was read of a replica's directory stands while nothing happens.
  struct Known {
    uint64_t events = UINT64_MAX;
    uint64_t lost_tick = 0;
    std::optional<LayersNow> layers;
  };
  const Flip* Find(uint64_t block, size_t replica) const;
  bool StandsStill(const Flip& flip) const;
  bool IsElsewhere(uint64_t block, size_t replica) const;
  bool IsGood(uint64_t block, size_t replica) const;
  bool IsBad(uint64_t block, const Flip& flip) const;
  uint32_t SumAtRest(size_t replica, uint64_t block) const;
  bool HasChecksum(size_t replica, uint64_t block) const;
  bool RegionDirty(size_t replica, uint64_t region) const;
  bool FlipOne(uint64_t block, size_t replica);
  const LayersNow* LayersOf(size_t replica) const;

  Cluster& cluster_;
  Random random_;
  std::multimap<uint64_t, Flip> standing_;  // by block
  std::set<uint64_t> flipped_;
  std::set<uint64_t> lost_;  // blocks without a good copy, at some time
  uint64_t flips_ = 0;
  mutable std::map<size_t, Known> known_;
};

}  // namespace ankole::sim

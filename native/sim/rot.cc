#include "sim/rot.h"

#include <algorithm>
#include <cstring>

#include "base/crc32c.h"
#include "replica/disk_directory.h"
#include "replica/region_file.h"
#include "replica/sum_file.h"

namespace ankole::sim {
namespace {

constexpr uint64_t kRegionBlocks = replica::kRegionBlocks;

}  // namespace

Rot::Rot(Cluster& cluster) : cluster_(cluster), random_(cluster.world.random.Next()) {}

Inode* Rot::HeadOf(size_t replica) const {
  InodePtr head;
  Disk& disk = cluster_.replica_machine(replica).disk;
  return disk.Lookup(cluster_.HeadPath(replica), &head) < 0 ? nullptr : head.get();
}

// By its map, as programs see it or as a power loss would leave it.
bool Rot::RegionDirty(size_t replica, uint64_t region) const {
  InodePtr map;
  Disk& disk = cluster_.replica_machine(replica).disk;
  if (disk.Lookup(cluster_.DirectoryOf(replica) + "/regions", &map) < 0) return true;
  replica::RegionSector sector;
  const uint64_t at =
      2 * replica::kRegionHeaderBytes + region / replica::kRegionSectorRegions * sizeof(sector);
  const auto page = map->pages.find(at / kBlockBytes);
  if (page == map->pages.end() || page->second.differs) return true;
  if (disk.Read(*map, at, &sector, sizeof(sector)) != sizeof(sector)) return true;
  const bool whole = sector.checksum == Crc32c(&sector, offsetof(replica::RegionSector, checksum));
  if (sector.checksum != 0 && !whole) return true;
  return (sector.regions[region % replica::kRegionSectorRegions] & replica::kDirtyBit) != 0;
}

// What its file says of a block: kSumNone also where it says nothing.
uint32_t Rot::SumAtRest(size_t replica, uint64_t block) const {
  InodePtr sums;
  Disk& disk = cluster_.replica_machine(replica).disk;
  if (disk.Lookup(cluster_.HeadPath(replica) + ".crc", &sums) < 0) return replica::kSumNone;
  const uint64_t region = block / kRegionBlocks;
  replica::SumPage page;
  const uint64_t at = replica::SumPageOffset(region);
  if (disk.Read(*sums, at, &page, sizeof(page)) != sizeof(page)) return replica::kSumNone;
  const bool whole = replica::CheckSumPage(page, region) == replica::SumPageState::kWhole;
  return whole ? page.sums[block % kRegionBlocks] : replica::kSumNone;
}

// After a crash a region that is stopped clean before it was cleaned has blocks without one:
// nothing is computed anew at a stop.
bool Rot::HasChecksum(size_t replica, uint64_t block) const {
  std::byte data[kBlockBytes];
  Disk& disk = cluster_.replica_machine(replica).disk;
  (void)disk.Read(*HeadOf(replica), block * kBlockBytes, data, sizeof(data));
  return SumAtRest(replica, block) == replica::StoredSum(Crc32c(data, sizeof(data)));
}

const Rot::Flip* Rot::Find(uint64_t block, size_t replica) const {
  const auto [first, end] = standing_.equal_range(block);
  for (auto each = first; each != end; ++each) {
    if (each->second.replica == replica && IsBad(block, each->second)) return &each->second;
  }
  return nullptr;
}

// Nobody has written over it, or so it looks.
bool Rot::StandsStill(const Flip& flip) const {
  const Inode* head = HeadOf(flip.replica);
  if (head == nullptr) return false;
  const auto page = head->pages.find(flip.byte / kBlockBytes);
  if (page == head->pages.end()) return false;
  const uint64_t at = flip.byte % kBlockBytes;
  const bool now = !flip.overwritten && page->second.kind == PageKind::kData &&
                   page->second.data[at] == flip.value;
  const bool durable = page->second.differs && page->second.durable_kind == PageKind::kData &&
                       page->second.durable_data[at] == flip.value;
  return now || durable;
}

// A replica cannot tell that the flipped bit is just what a change of a part of the block wrote
// over: the block stays bad for it until it is written as a whole, by a client or as a repair. What
// its file says of a clean region tells.
bool Rot::IsBad(uint64_t block, const Flip& flip) const {
  if (StandsStill(flip)) return true;
  if (!flip.touched || HeadOf(flip.replica) == nullptr) return false;
  if (RegionDirty(flip.replica, block / kRegionBlocks)) return true;
  return SumAtRest(flip.replica, block) != replica::kSumNone && !HasChecksum(flip.replica, block);
}

bool Rot::IsGood(uint64_t block, size_t replica) const {
  const wire::ReplicaId id = cluster_.replica_id(replica);
  const Machine& machine = cluster_.replica_machine(replica);
  return cluster_.complete().members.Contains(id) && cluster_.targets().Contains(id) &&
         !machine.damaged && machine.lost_tick == 0 && Find(block, replica) == nullptr;
}

bool Rot::FlipOne(uint64_t block, size_t replica) {
  Machine& machine = cluster_.replica_machine(replica);
  Inode* const head = HeadOf(replica);
  if (head == nullptr || machine.damaged || machine.was_full) return false;
  if (Find(block, replica) != nullptr || RegionDirty(replica, block / kRegionBlocks)) return false;
  const auto page = head->pages.find(block);
  if (page == head->pages.end() || page->second.differs) return false;
  if (!HasChecksum(replica, block)) return false;
  const uint64_t bit = random_.Below(kBlockBytes * 8);
  if (!machine.disk.FlipBit(head, block, bit)) return false;
  standing_.emplace(block,
                    Flip{replica, block * kBlockBytes + bit / 8, page->second.data[bit / 8]});
  ++flips_;
  if (cluster_.world.tracing()) {
    cluster_.world.Trace("nemesis",
                         "flips a bit of block " + std::to_string(block) + " of " + machine.name());
  }
  return true;
}

void Rot::Strike(size_t blocks, bool everywhere) {
  std::erase_if(standing_, [this](const auto& each) { return !IsBad(each.first, each.second); });
  const size_t count = cluster_.replica_count();
  for (size_t n = 0; n < blocks; ++n) {
    const Inode* head = HeadOf(random_.Below(count));
    if (head == nullptr || head->pages.empty()) continue;
    auto page = head->pages.lower_bound(random_.Below(cluster_.options.size_bytes / kBlockBytes));
    if (page == head->pages.end()) page = head->pages.begin();
    const uint64_t block = page->first;
    const size_t first = random_.Below(count);
    for (size_t i = 0; i < count; ++i) {
      const size_t replica = (first + i) % count;
      bool other = false;
      for (size_t of = 0; of < count; ++of) other |= of != replica && IsGood(block, of);
      if (other || everywhere) (void)FlipOne(block, replica);
      if (!everywhere && random_.Chance(1, 2)) break;
    }
  }
  Look();
}

bool Rot::MayDamage(const Machine& machine) const {
  for (const auto& [block, flip] : standing_) {
    if (&cluster_.replica_machine(flip.replica) == &machine && StandsStill(flip)) return false;
  }
  return true;
}

bool Rot::MayCrash(const Machine& machine) const {
  for (const auto& [block, flip] : standing_) {
    if (&cluster_.replica_machine(flip.replica) != &machine || !StandsStill(flip)) continue;
    if (RegionDirty(flip.replica, block / kRegionBlocks)) return false;
  }
  return true;
}

void Rot::Look() {
  for (auto each = standing_.begin(); each != standing_.end();
       each = standing_.upper_bound(each->first)) {
    bool good = false;
    for (size_t i = 0; i < cluster_.replica_count(); ++i) good |= IsGood(each->first, i);
    if (!good) lost_.insert(each->first);
  }
}

void Rot::Changes(uint64_t offset_bytes, uint64_t length_bytes) {
  const uint64_t end_bytes = offset_bytes + length_bytes;
  for (const uint64_t edge : {offset_bytes, end_bytes}) {
    if (edge % kBlockBytes == 0) continue;
    const auto [first, end] = standing_.equal_range(edge / kBlockBytes);
    for (auto each = first; each != end; ++each) each->second.touched |= StandsStill(each->second);
  }
}

void Rot::Overwritten(uint64_t offset_bytes, uint64_t length_bytes) {
  const uint64_t first = DivideUp(offset_bytes, kBlockBytes);
  const uint64_t end = (offset_bytes + length_bytes) / kBlockBytes;
  if (first >= end) return;
  lost_.erase(lost_.lower_bound(first), lost_.lower_bound(end));
  const auto last = standing_.lower_bound(end);
  for (auto each = standing_.lower_bound(first); each != last; ++each) {
    Flip& flip = each->second;
    if (!cluster_.complete().members.Contains(cluster_.replica_id(flip.replica))) continue;
    flip.touched = false;
    flip.overwritten = true;
  }
}

bool Rot::Excuses(uint64_t offset_bytes, uint64_t length_bytes) const {
  const auto lost = lost_.lower_bound(offset_bytes / kBlockBytes);
  return lost != lost_.end() && *lost < DivideUp(offset_bytes + length_bytes, kBlockBytes);
}

// What was written since may have that byte by chance: then it is the same as elsewhere.
bool Rot::IsElsewhere(uint64_t block, size_t replica) const {
  std::byte here[kBlockBytes];
  std::byte there[kBlockBytes];
  const Inode* own = HeadOf(replica);
  if (own == nullptr) return false;
  (void)cluster_.replica_machine(replica).disk.Read(*own, block * kBlockBytes, here, sizeof(here));
  for (size_t i = 0; i < cluster_.replica_count(); ++i) {
    const Inode* head = i == replica ? nullptr : HeadOf(i);
    if (head == nullptr || !cluster_.complete().members.Contains(cluster_.replica_id(i))) continue;
    (void)cluster_.replica_machine(i).disk.Read(*head, block * kBlockBytes, there, sizeof(there));
    if (std::memcmp(here, there, sizeof(here)) == 0) return true;
  }
  return false;
}

std::string Rot::Unrepaired() const {
  for (const auto& [block, flip] : standing_) {
    if (IsLost(block) || !StandsStill(flip)) continue;
    if (!cluster_.complete().members.Contains(cluster_.replica_id(flip.replica))) continue;
    if (IsElsewhere(block, flip.replica)) continue;
    return "block " + std::to_string(block) + " of " +
           cluster_.replica_machine(flip.replica).name();
  }
  return "";
}

std::string Rot::CleanUnsynced() const {
  for (size_t i = 0; i < cluster_.replica_count(); ++i) {
    const Machine& machine = cluster_.replica_machine(i);
    const Inode* head = machine.damaged ? nullptr : HeadOf(i);
    if (head == nullptr) continue;
    uint64_t region = UINT64_MAX;
    for (const auto& [block, page] : head->pages) {
      if (!page.differs || block / kRegionBlocks == region) continue;
      region = block / kRegionBlocks;
      if (RegionDirty(i, region)) continue;
      return "block " + std::to_string(block) + " of " + machine.name() +
             " is not synced, and its region is clean";
    }
  }
  return "";
}

}  // namespace ankole::sim

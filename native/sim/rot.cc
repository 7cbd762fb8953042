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

// Null: it has none.
const LayersNow* Rot::LayersOf(size_t replica) const {
  Known& known = known_[replica];
  const uint64_t lost_tick = cluster_.replica_machine(replica).lost_tick;
  if (known.events != cluster_.world.events() || known.lost_tick != lost_tick) {
    Result<LayersNow> layers = cluster_.LayersOf(replica, true);
    known = {cluster_.world.events(), lost_tick, {}};
    if (layers.ok()) known.layers = layers.Take();
  }
  return known.layers ? &*known.layers : nullptr;
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

// What its files say of a block: kSumNone also where they say nothing.
uint32_t Rot::SumAtRest(size_t replica, uint64_t block) const {
  const LayersNow* layers = LayersOf(replica);
  return layers == nullptr ? replica::kSumNone : layers->SumOf(block, layers->PlaceOf(block, 0));
}

// After a crash a region that is stopped clean before it was cleaned has blocks without one:
// nothing is computed anew at a stop.
bool Rot::HasChecksum(size_t replica, uint64_t block) const {
  const LayersNow* layers = LayersOf(replica);
  return layers != nullptr && SumAtRest(replica, block) ==
                                  replica::StoredSum(Crc32c(layers->DataOf(block, 0), kBlockBytes));
}

const Rot::Flip* Rot::Find(uint64_t block, size_t replica) const {
  const auto [first, end] = standing_.equal_range(block);
  for (auto each = first; each != end; ++each) {
    if (each->second.replica == replica && IsBad(block, each->second)) return &each->second;
  }
  return nullptr;
}

// Nobody has written over it, or so it looks; or a loss of power would take what was. Of masks that
// are not durable nothing is known: then it stands for longer than it does.
bool Rot::StandsStill(const Flip& flip) const {
  const LayersNow* layers = LayersOf(flip.replica);
  if (layers == nullptr) return false;
  const uint64_t block = flip.byte / kBlockBytes;
  const uint64_t at = flip.byte % kBlockBytes;
  const LayersNow::Place place = layers->PlaceOf(block, 0);
  if (!flip.overwritten && place.page != nullptr && place.page->kind == PageKind::kData &&
      place.page->data[at] == flip.value) {
    return true;
  }
  // Also in a layer below that in which it was written over.
  bool differs = false;
  for (const LayersNow::Layer& layer : layers->chain()) {
    const auto page = layer.data->pages.find(block);
    if (page == layer.data->pages.end()) continue;
    const bool here = page->second.differs;
    differs |= here;
    const PageKind kind = here ? page->second.durable_kind : page->second.kind;
    if (kind != PageKind::kData) continue;
    const auto& data = here ? page->second.durable_data : page->second.data;
    return differs && data[at] == flip.value;
  }
  return false;
}

// A replica cannot tell that the flipped bit is just what a change of a part of the block wrote
// over: the block stays bad for it until it is written as a whole, by a client or as a repair. What
// its file says of a clean region tells.
bool Rot::IsBad(uint64_t block, const Flip& flip) const {
  if (StandsStill(flip)) return true;
  if (!flip.touched || LayersOf(flip.replica) == nullptr) return false;
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
  const LayersNow* layers = LayersOf(replica);
  if (layers == nullptr || machine.damaged || machine.was_full) return false;
  if (Find(block, replica) != nullptr || RegionDirty(replica, block / kRegionBlocks)) return false;
  const LayersNow::Place place = layers->PlaceOf(block, 0);
  if (place.page == nullptr || place.page->differs) return false;
  if (!HasChecksum(replica, block)) return false;
  const uint64_t bit = random_.Below(kBlockBytes * 8);
  Inode* const file = layers->chain()[place.layer].data.get();
  if (!machine.disk.FlipBit(file, block, bit)) return false;
  const uint64_t byte = block * kBlockBytes + bit / 8;
  standing_.emplace(block, Flip{replica, byte, place.page->data[bit / 8]});
  flipped_.insert(block);
  ++flips_;
  if (cluster_.world.tracing()) {
    cluster_.world.Trace("nemesis", "flips a bit of block " + std::to_string(block) + " of " +
                                        machine.name() + ", in " +
                                        layers->chain()[place.layer].meta.name);
  }
  return true;
}

void Rot::Strike(size_t blocks, bool everywhere) {
  std::erase_if(standing_, [this](const auto& each) { return !IsBad(each.first, each.second); });
  const size_t count = cluster_.replica_count();
  for (size_t n = 0; n < blocks; ++n) {
    const LayersNow* layers = LayersOf(random_.Below(count));
    if (layers == nullptr) continue;
    // Of a layer that is not the head as well, where there are some.
    const size_t of_layer = layers->chain().size() > 1 ? random_.Below(layers->chain().size()) : 0;
    const Inode* file = layers->chain()[of_layer].data.get();
    if (file->pages.empty()) continue;
    auto page = file->pages.lower_bound(random_.Below(cluster_.options.size_bytes / kBlockBytes));
    if (page == file->pages.end()) page = file->pages.begin();
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
    if (&cluster_.replica_machine(flip.replica) != &machine) continue;
    if (!StandsStill(flip)) continue;
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
  const LayersNow* own = LayersOf(replica);
  if (own == nullptr) return false;
  for (size_t i = 0; i < cluster_.replica_count(); ++i) {
    const LayersNow* other = i == replica ? nullptr : LayersOf(i);
    if (other == nullptr || !cluster_.complete().members.Contains(cluster_.replica_id(i))) continue;
    if (std::memcmp(own->DataOf(block, 0), other->DataOf(block, 0), kBlockBytes) == 0) return true;
  }
  return false;
}

std::string Rot::Unrepaired() const {
  for (const auto& [block, flip] : standing_) {
    if (IsLost(block)) continue;
    if (!cluster_.complete().members.Contains(cluster_.replica_id(flip.replica))) continue;
    const std::string what =
        "block " + std::to_string(block) + " of " + cluster_.replica_machine(flip.replica).name();
    if (!StandsStill(flip) || IsElsewhere(block, flip.replica)) continue;
    return what;
  }
  return "";
}

std::string Rot::CleanUnsynced() const {
  for (size_t i = 0; i < cluster_.replica_count(); ++i) {
    const Machine& machine = cluster_.replica_machine(i);
    const LayersNow* layers = machine.damaged ? nullptr : LayersOf(i);
    if (layers == nullptr) continue;
    const std::vector<LayersNow::Layer>& chain = layers->chain();
    size_t live = 0;  // the snapshot that shows the layer, if one does: 0, the head, is none
    for (size_t at = 0; at < chain.size(); ++at) {
      if (chain[at].live()) live = at;
      uint64_t region = UINT64_MAX;
      for (const auto& [block, page] : chain[at].data->pages) {
        if (!page.differs) continue;
        const std::string what = "block " + std::to_string(block) + " of " + machine.name();
        // Of what a merge writes nothing shows before it is durable.
        if (live > 0 && IsShown(*layers, block, live, at)) {
          return what + " is not synced in " + chain[at].meta.name + ", and snapshot " +
                 chain[live].snapshot() + " shows it";
        }
        if (block / kRegionBlocks == region || !IsShown(*layers, block, 0, at)) continue;
        region = block / kRegionBlocks;
        if (RegionDirty(i, region)) continue;
        return what + " is not synced, and its region is clean";
      }
    }
  }
  return "";
}

bool Rot::IsShown(const LayersNow& layers, uint64_t block, size_t from, size_t at) {
  for (size_t i = from; i < at; ++i) {
    const LayersNow::Layer& layer = layers.chain()[i];
    const auto page = layer.data->pages.find(block);
    if (page != layer.data->pages.end() && page->second.kind == PageKind::kData) return false;
    if (layer.Masks(block)) return false;
  }
  return true;
}

}  // namespace ankole::sim

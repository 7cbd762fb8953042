#include "sim/checks.h"

#include <malloc.h>

#include <algorithm>

#include "io/file_system.h"
#include "replica/metadata.h"
#include "replica/record_file.h"
#include "replica/region_file.h"

namespace ankole::sim {
namespace {

constexpr uint64_t kCheckEveryNs = kNsPerSecond;
constexpr uint64_t kAllocatedNs = kNsPerSecond;
// Two clocks drift apart by no more than one part in so many.
constexpr uint64_t kDriftPart = 5000;

uint64_t Number(const Json* json) {
  const Result<int64_t> value = json == nullptr ? Status(ErrorCode::kNotFound, "no such counter")
                                                : json->AsInteger("counter", 0, INT64_MAX);
  CHECK(value.ok());
  return static_cast<uint64_t>(value.value());
}

// Who looks at files takes chances, as everybody does: the run must not be another one by that.
class Unnoticed {
 public:
  explicit Unnoticed(World& world) : world_(world), random_(world.random) {}
  ~Unnoticed() { world_.random = random_; }
  Unnoticed(const Unnoticed&) = delete;
  Unnoticed& operator=(const Unnoticed&) = delete;

 private:
  World& world_;
  const Random random_;
};

}  // namespace

Checks::Checks(Cluster& cluster, const Rot& rot)
    : cluster_(cluster), rot_(rot), layers_(cluster, rot) {
  LookEverySecond();
}

void Checks::Finding(size_t replica, const std::string& what) {
  cluster_.world.Finding(cluster_.replica_machine(replica).name() + ": " + what);
}

// --- while it works
// -------------------------------------------------------------------------------

void Checks::LookEverySecond() {
  cluster_.world.After(kCheckEveryNs, [this] {
    if (!cluster_.world.failed()) Look();
    LookEverySecond();
  });
}

bool Checks::GoesByFile(size_t replica) {
  const DiskHostProcess* const host = cluster_.disk_host(replica);
  const EngineProcess* const engine = cluster_.engine();
  return host == nullptr || engine == nullptr || host->started_ns >= engine->started_ns;
}

bool Checks::CountsDirtyOf(size_t replica) {
  const DiskHostProcess* const host = cluster_.disk_host(replica);
  EngineProcess* const engine = cluster_.engine();
  const uint64_t welcomed_ns = engine->engine().counts_dirty_since_ns(cluster_.replica_id(replica));
  if (welcomed_ns == 0) return false;
  // It may not have noticed yet that the process that welcomed it has ended.
  const uint64_t ago_ns = engine->reactor.NowNs() - welcomed_ns;
  return host->started_ns + ago_ns + ago_ns / kDriftPart < cluster_.world.now_ns();
}

std::optional<Checks::Maps> Checks::MapsOf(size_t replica) {
  DiskHostProcess* const host = cluster_.disk_host(replica);
  if (host == nullptr || !host->alive() || !host->ready()) return std::nullopt;
  const Json counters = host->Counters();
  const Json* replicas = counters.Find("replicas");
  if (replicas == nullptr) return std::nullopt;
  const Json* regions = nullptr;
  for (const Json& each : replicas->items()) {
    if (each.String("volume").Take() == kVolumeName) regions = each.Find("regions");
  }
  if (regions == nullptr) return std::nullopt;  // it is closed
  Maps maps;
  maps.dirty = Number(regions->Find("dirty"));
  for (const Json& each : regions->Find("missing")->items()) {
    maps.missing.Add(wire::ParseReplicaId(each.String("replica").Take()).Take());
  }
  return maps;
}

void Checks::Look() {
  const wire::Members& members = cluster_.complete().members;
  for (const wire::ReplicaId id : members.all()) {
    if (!ever_members_.Contains(id)) ever_members_.Add(id);
  }
  const EngineProcess* const engine = cluster_.engine();
  // Only while no record is on its way are all members at the same one.
  if (engine == nullptr || !engine->ready() || cluster_.complete().epoch != engine->epoch() ||
      !engine->engine().settled() || !(cluster_.targets() == members)) {
    return;
  }
  const uint64_t dirty = engine->engine().dirty_regions();
  bool by_file = false;
  for (size_t i = 0; i < cluster_.replica_count(); ++i) by_file |= GoesByFile(i);
  if (engine->only_clients() && rot_.flips() == 0 && !by_file &&
      dirty > cluster_.options.dirty_regions_max) {
    cluster_.world.Finding("clients have dirtied " + std::to_string(dirty) + " regions, not " +
                           std::to_string(cluster_.options.dirty_regions_max) + " at the most");
  }
  for (size_t i = 0; i < cluster_.replica_count(); ++i) {
    const wire::ReplicaId id = cluster_.replica_id(i);
    const std::optional<Maps> maps = members.Contains(id) ? MapsOf(i) : std::nullopt;
    if (!maps) continue;
    CheckMissing(i, maps->missing);
    if (maps->dirty > dirty && CountsDirtyOf(i)) {
      Finding(i, std::to_string(maps->dirty) + " regions are dirty, of which the engine knows " +
                     std::to_string(dirty));
    }
  }
}

// Rule 5: one map for each replica that is away, and for nobody else.
void Checks::CheckMissing(size_t replica, const wire::Members& missing) {
  const wire::Members& members = cluster_.complete().members;
  for (size_t i = 0; i < cluster_.replica_count(); ++i) {
    const wire::ReplicaId id = cluster_.replica_id(i);
    const bool away = !members.Contains(id) && ever_members_.Contains(id);
    if (away && !missing.Contains(id)) {
      Finding(replica, "no map of what replica " + wire::ReplicaIdText(id) + " misses");
    }
  }
  for (const wire::ReplicaId id : missing.all()) {
    if (cluster_.MachineOf(id) == nullptr) {
      Finding(replica, "a missing map of nobody: " + wire::ReplicaIdText(id));
    } else if (members.Contains(id)) {
      Finding(replica, "a missing map of replica " + wire::ReplicaIdText(id) + ", a member");
    }
  }
}

// --- at rest
// ---------------------------------------------------------------------------------------

uint64_t Checks::AllocatedWithin(uint64_t time_ns) {
  World& world = cluster_.world;
  const uint64_t end_ns = world.now_ns() + time_ns;
  uint64_t fewest = UINT64_MAX;
  while (world.now_ns() < end_ns && !world.failed()) {
    world.RunUntil(world.now_ns() + kAllocatedNs);
    fewest = std::min<uint64_t>(fewest, mallinfo2().uordblks);
  }
  return fewest;
}

std::string Checks::Unrest(bool snapshots) {
  EngineProcess* const process = cluster_.engine();
  if (process == nullptr || !process->ready()) return "no engine serves";
  engine::Engine& engine = process->engine();
  if (std::string under_way = engine.UnderWay(); !under_way.empty()) return under_way;
  if (const size_t held = engine.buffers().held_bytes(); held > 0) {
    return "the engine holds " + std::to_string(held) + " bytes of its buffers";
  }
  if (const uint64_t dirty = engine.dirty_regions(); dirty > 0) {
    return "the engine has " + std::to_string(dirty) + " dirty regions";
  }
  for (size_t i = 0; i < cluster_.replica_count(); ++i) {
    const std::string& name = cluster_.replica_machine(i).name();
    const std::optional<Maps> maps = MapsOf(i);
    if (!maps) return name + " is not open";
    if (maps->dirty > 0) return name + " has " + std::to_string(maps->dirty) + " dirty regions";
    if (maps->missing.count > 0) return name + " has missing maps";
  }
  return snapshots ? layers_.Unrest() : "";
}

// --- closed
// ----------------------------------------------------------------------------------------

std::optional<Checks::Closed> Checks::ReadClosed(size_t replica) {
  DiskHostProcess* const host = cluster_.disk_host(replica);
  if (host == nullptr || !host->alive()) return std::nullopt;
  io::FileSystem& files = host->reactor.files();
  const std::string directory = cluster_.DirectoryOf(replica);
  Closed closed;
  const Result<replica::RecordState> record =
      replica::RecordFile::Read(files, directory + "/record");
  if (!record.ok()) {
    Finding(replica, "its record cannot be read: " + record.status().message());
    return std::nullopt;
  }
  closed.clean = record.value().clean;
  closed.record = record.value().record.current;
  const Result<std::string> text =
      io::ReadWholeFile(files, directory + "/volume.meta", kMetadataBytesMax);
  const Result<replica::VolumeMeta> volume =
      text.ok() ? replica::VolumeMeta::Parse(text.value()) : text.status();
  if (!volume.ok()) {
    Finding(replica, "it cannot be read: " + volume.status().message());
    return std::nullopt;
  }
  const auto regions = static_cast<uint32_t>(DivideUp(volume.value().size_bytes, kRegionBytes));
  closed.regions.resize(regions);
  const auto take = [](void* owner, uint32_t first, const uint8_t* bytes, uint32_t count) {
    std::copy_n(bytes, count, static_cast<Closed*>(owner)->regions.begin() + first);
  };
  replica::RegionFile::Loaded loaded;
  Result<replica::RegionFile> maps =
      replica::RegionFile::Open(files, directory + "/regions", regions, take, &closed, &loaded);
  if (!maps.ok() || loaded.sectors_bad > 0) {
    Finding(replica, "its maps are not whole");
    return std::nullopt;
  }
  for (const wire::MissingSlot& slot : maps.value().slots()) {
    if (slot.id != 0) closed.missing.Add(slot.id);
  }
  maps.value().Close(files);
  return closed;
}

void Checks::ClosedClean(const wire::Record& record, bool all_sums) {
  const Unnoticed unnoticed(cluster_.world);
  layers_.Equal(record.members);
  for (size_t i = 0; i < cluster_.replica_count() && !cluster_.world.failed(); ++i) {
    const std::optional<Closed> closed = ReadClosed(i);
    if (!closed) continue;
    const bool member = record.members.Contains(cluster_.replica_id(i));
    if (member) {
      if (!closed->clean) Finding(i, "it was closed clean and is not marked so");
      if (closed->record != record) {
        Finding(i, "it was closed clean with " + wire::Describe(closed->record) + ", not " +
                       wire::Describe(record));
      }
      for (size_t region = 0; region < closed->regions.size(); ++region) {
        if ((closed->regions[region] & replica::kDirtyBit) == 0) continue;
        Finding(i, "it was closed clean and region " + std::to_string(region) + " is dirty");
      }
      CheckMissing(i, closed->missing);
      for (const char* name : {"record", "regions"}) {
        InodePtr file;
        Disk& disk = cluster_.replica_machine(i).disk;
        if (disk.Lookup(cluster_.DirectoryOf(i) + "/" + name, &file) < 0) continue;
        if (Disk::NeedsSync(*file)) Finding(i, std::string(name) + " is not synced");
      }
      if (const Result<LayersNow> layers = cluster_.LayersOf(i); layers.ok()) {
        const InodePtr& sums = layers.value().chain()[0].sums;
        if (sums != nullptr && Disk::NeedsSync(*sums)) Finding(i, "checksums are not synced");
      }
    }
    // What found no space, or could not be read, has none.
    const Machine& machine = cluster_.replica_machine(i);
    layers_.CheckSums(i, closed->regions,
                      all_sums && member && !machine.was_full && !machine.damaged);
  }
}

}  // namespace ankole::sim

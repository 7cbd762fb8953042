#include <algorithm>

#include "base/limits.h"
#include "base/mutant.h"
#include "replica/adopt.h"
#include "replica/layers.h"
#include "replica/making.h"
#include "replica/state_file.h"

// The blocking life of a replica: create, open, close, destroy, describe.
namespace ankole::replica {
namespace {

// Directories that are not replicas yet, or no more.
constexpr std::string_view kCreatingPrefix = ".creating-";
constexpr std::string_view kRemovingPrefix = ".removing-";
constexpr size_t kFailureTextBytesMax = 4096;
// Merging partial blocks, unaligned memory and the runs of a status: at most this many at a time
// each, others wait. Memory is taken by first use.
constexpr size_t kScratchSmallChunks = 32;
constexpr size_t kScratchLargeChunks = 4;

struct PathParts {
  std::string parent;
  std::string name;
};

PathParts Split(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return {".", path};
  return {slash == 0 ? "/" : path.substr(0, slash), path.substr(slash + 1)};
}

// Deletes a directory of files, each of which it can do without. kOk when there is none.
Status RemoveFlatDirectory(io::FileSystem& files, const std::string& directory) {
  Result<std::vector<std::string>> names = files.List(directory);
  if (!names.ok()) {
    return names.status().code() == ErrorCode::kNotFound ? Status::Ok() : names.status();
  }
  for (const std::string& name : names.value()) {
    RETURN_IF_ERROR(files.Remove(Join(directory, name)));
  }
  return files.RemoveDirectory(directory);
}

Result<io::File> TakeLock(io::FileSystem& files, const std::string& directory) {
  Result<io::File> lock = files.Open(Join(directory, kLockName), {.write = true, .create = true});
  if (!lock.ok()) return lock;
  const Status status = files.TryLock(lock.value());
  if (status.ok()) return lock;
  files.Close(lock.value());
  if (status.code() != ErrorCode::kBusy) return status;
  return Status(ErrorCode::kBusy, directory + ": the replica is open already");
}

template <typename T, typename Parser>
Result<T> ReadJsonFile(io::FileSystem& files, const std::string& path, Parser parse) {
  const Result<std::string> text = io::ReadWholeFile(files, path, kMetadataBytesMax);
  if (!text.ok()) return text.status();
  Result<T> parsed = parse(text.value());
  if (!parsed.ok()) return parsed.status().Within(path);
  return parsed;
}

Result<Identity> ReadIdentity(io::FileSystem& files, const std::string& directory) {
  return ReadJsonFile<Identity>(files, Join(directory, kIdentityName), Identity::Parse);
}

Result<VolumeMeta> ReadVolumeMeta(io::FileSystem& files, const std::string& directory) {
  return ReadJsonFile<VolumeMeta>(files, Join(directory, kVolumeMetaName), VolumeMeta::Parse);
}

// Whether the marker of rule 1 is there, and what it says. A marker that cannot be read counts.
bool ReadFailedMarker(io::FileSystem& files, const std::string& directory, std::string* reason) {
  const std::string path = Join(directory, kFailedName);
  const Result<std::string> text = io::ReadWholeFile(files, path, kFailureTextBytesMax);
  if (!text.ok() && text.status().code() == ErrorCode::kNotFound) return false;
  *reason = text.ok() && !text.value().empty() ? text.value() : "a sync failed in an earlier run";
  return true;
}

}  // namespace

Status FillReplica(io::FileSystem& files, const std::string& directory, const Identity& identity,
                   uint64_t size_bytes, const RecordState& record, const std::string& parent) {
  RETURN_IF_ERROR(ProbeFileSystem(files, directory));
  Result<io::File> lock = files.Open(Join(directory, kLockName), {.write = true, .create = true});
  if (!lock.ok()) return lock.status();
  files.Close(lock.value());
  RETURN_IF_ERROR(RecordFile::Create(files, Join(directory, kRecordName), record));
  RETURN_IF_ERROR(CreateStateFile(files, Join(directory, kTargetStateName)));
  RETURN_IF_ERROR(
      RegionFile::Create(files, Join(directory, kRegionsName), RegionsOf(0, size_bytes).end, 0));

  LayerMeta head;
  head.name = HeadName(0);
  head.parent = parent;
  head.created = TimeText(identity.created_seconds);
  RETURN_IF_ERROR(CreateLayerFile(files, Join(directory, head.name), size_bytes));
  if (!parent.empty()) {
    Result<MaskFile> masks = MaskFile::Create(
        files, directory, head.name + std::string(kMaskSuffix), DivideUp(size_bytes, kBlockBytes));
    if (!masks.ok()) return masks.status();
    masks.value().Close(files);
  }
  if (identity.checksums) {
    Result<SumFile> sums = SumFile::Create(files, directory, head.name + std::string(kSumSuffix),
                                           DivideUp(size_bytes, kRegionBytes));
    if (!sums.ok()) return sums.status();
    sums.value().Close(files);
  }
  RETURN_IF_ERROR(
      io::ReplaceFile(files, Join(directory, head.name + std::string(kMetaSuffix)), head.Write()));
  VolumeMeta volume;
  volume.size_bytes = size_bytes;
  volume.head = head.name;
  volume.parent = parent;
  RETURN_IF_ERROR(io::ReplaceFile(files, Join(directory, kVolumeMetaName), volume.Write()));
  RETURN_IF_ERROR(io::ReplaceFile(files, Join(directory, kIdentityName), identity.Write()));
  return files.SyncDirectory(directory);
}

Status CheckIdentity(const Identity& identity, uint64_t size_bytes) {
  RETURN_IF_ERROR(CheckVolumeName(identity.volume));
  RETURN_IF_ERROR(CheckVolumeSize(size_bytes));
  if (identity.id == 0) return {ErrorCode::kInvalidArgument, "a replica needs an id"};
  if (identity.cache == CacheMode::kDirect && size_bytes % kBlockBytes != 0) {
    return {ErrorCode::kInvalidArgument,
            "cache mode 'direct' needs a size that is a multiple of 4096 bytes"};
  }
  return Status::Ok();
}

Status MakeDirectoryWhole(io::FileSystem& files, const std::string& directory,
                          const std::function<Status(const std::string& aside)>& fill) {
  const PathParts parts = Split(directory);
  if (files.Info(directory).ok()) {
    // It may be there by an attempt whose last step failed: the name must be durable before it
    // counts.
    RETURN_IF_ERROR(files.SyncDirectory(parts.parent));
    return {ErrorCode::kAlreadyExists, directory + ": exists already"};
  }
  const std::string aside = parts.parent + "/" + std::string(kCreatingPrefix) + parts.name;
  RETURN_IF_ERROR(RemoveFlatDirectory(files, aside));
  RETURN_IF_ERROR(files.MakeDirectory(aside));
  Status status = fill(aside);
  if (status.ok()) status = files.Rename(aside, directory);
  if (!status.ok()) {
    // What stays behind is RemoveLeftovers' to delete.
    (void)RemoveFlatDirectory(files, aside).ok();
    return status;
  }
  return files.SyncDirectory(parts.parent);
}

Status Replica::Create(io::FileSystem& files, const std::string& directory,
                       const Identity& identity, uint64_t size_bytes) {
  RETURN_IF_ERROR(CheckIdentity(identity, size_bytes));
  return MakeDirectoryWhole(files, directory, [&](const std::string& aside) {
    return FillReplica(files, aside, identity, size_bytes, RecordState{}, "");
  });
}

Replica::Replica(io::FileSystem& files, io::Reactor& reactor, std::string directory)
    : files_(files), reactor_(reactor), directory_(std::move(directory)), sums_(files, reactor) {
  finish_task_.owner = flush_job_.owner = record_job_.owner = region_job_.owner = mask_job_.owner =
      status_job_.owner = state_job_.owner = expand_job_.owner = this;
  finish_task_.done = [](io::Operation* task) {
    static_cast<Replica*>(task->owner)->FinishDeferred();
  };
  flush_job_.work = FlushWork;
  flush_job_.done = FlushDone;
  record_job_.work = RecordWork;
  record_job_.done = RecordDone;
  region_job_.work = RegionWork;
  region_job_.done = RegionDone;
  mask_job_.work = MaskWork;
  mask_job_.done = MaskDone;
  status_job_.work = StatusWork;
  status_job_.done = StatusDone;
  quiet_task_.owner = this;
  quiet_task_.done = [](io::Operation* task) { static_cast<Replica*>(task->owner)->OnQuiet(); };
  state_job_.work = StateWork;
  state_job_.done = StateDone;
  expand_job_.work = ExpandWork;
  expand_job_.done = ExpandDone;
}

Replica::~Replica() {
  CHECK(in_flight_ == 0);
  chain_.Close(files_);
  record_file_.Close(files_);
  region_file_.Close(files_);
  masks_.Close(files_);
  DropPrepared();
  DropMerge();
  sums_.Close();
  // The lock outlives the I/O (rule 3).
  if (lock_.valid()) files_.Close(lock_);
}

Result<std::unique_ptr<Replica>> Replica::Open(io::FileSystem& files, io::Reactor& reactor,
                                               const std::string& directory, bool sync_failed) {
  if (const Result<io::FileInfo> info = files.Info(directory); !info.ok()) return info.status();
  std::unique_ptr<Replica> replica(new Replica(files, reactor, directory));
  Result<io::File> lock = TakeLock(files, directory);
  if (!lock.ok()) return lock.status();
  replica->lock_ = lock.value();
  replica->failed_marker_ = sync_failed;
  RETURN_IF_ERROR(replica->Load());
  return replica;
}

Status Replica::Load() {
  Result<Identity> identity = ReadIdentity(files_, directory_);
  if (!identity.ok()) return identity.status();
  identity_ = identity.Take();
  direct_ = identity_.cache == CacheMode::kDirect;
  Result<VolumeMeta> volume = ReadVolumeMeta(files_, directory_);
  if (!volume.ok()) return volume.status();
  volume_meta_ = volume.Take();
  if (!volume_meta_.backing_file.empty()) {
    return Status(ErrorCode::kUnsupported,
                  directory_ + ": has a backing file, which is not supported");
  }
  if (volume_meta_.rebuilding) {
    return Status(ErrorCode::kCorrupt, directory_ + ": was left in the middle of a rebuild");
  }
  if (direct_ && volume_meta_.size_bytes % kBlockBytes != 0) {
    return Status(ErrorCode::kUnsupported,
                  directory_ + ": cache mode 'direct' needs a size that is a multiple of 4096");
  }
  Result<RecordFile> record = RecordFile::Open(files_, Join(directory_, kRecordName));
  if (!record.ok()) return record.status();
  record_file_ = record.Take();
  record_state_ = record_file_.state();
  if (record_state_.head != 0) {
    // A directory whose head another program replaced knows it by volume.meta alone.
    const std::string head = HeadName(record_state_.head - 1);
    if (files_.Info(Join(directory_, head)).ok()) {
      RETURN_IF_ERROR(GiveNames(files_, directory_, &volume_meta_, head));
    } else {
      record_state_.head = 0;
    }
  }
  read_only_ = IsAdopted(files_, directory_);
  RETURN_IF_ERROR(FinishMerge());
  RETURN_IF_ERROR(LoadLayers());
  if (ReadFailedMarker(files_, directory_, &sync_failure_)) failed_marker_ = true;
  Result<std::string> boot_id = files_.BootId();
  if (!boot_id.ok()) return boot_id.status();
  boot_id_ = boot_id.Take().substr(0, kBootIdBytesMax);
  Result<std::string> mount_id = files_.MountId(directory_);
  if (!mount_id.ok()) return mount_id.status();
  mount_id_ = mount_id.Take().substr(0, kMountIdBytesMax);

  // volume.meta says so as well where another program (Longhorn) had it open.
  unclean_ = !record_state_.clean || volume_meta_.dirty;
  // A record of before mounts were noted has none.
  const bool mounted_anew = !record_state_.mount_id.empty() && record_state_.mount_id != mount_id_;
  rebooted_ =
      unclean_ && (record_state_.boot_id != boot_id_ || mounted_anew) && !Mutant("boot-id-ignored");
  dirty_ = record_state_.clean ? DirtyState::kClean : DirtyState::kDirty;
  RETURN_IF_ERROR(LoadRegions(record_state_.clean && volume_meta_.dirty));

  Result<std::vector<LayerMeta>> layers = ReadChain(files_, directory_, volume_meta_);
  if (!layers.ok()) return layers.status();
  Result<Chain> chain = Chain::Open(files_, directory_, volume_meta_, layers.value(), direct_);
  if (!chain.ok()) return chain.status();
  chain_ = chain.Take();
  // What an earlier process wrote and did not sync, in a layer that was frozen since, too.
  for (Layer& layer : chain_.layers()) {
    layer.unsynced = unclean_;
    // The kernel may keep as clean what it could not write: what is read from here on, above all
    // what a resync compares, must come from the disk (rule 7).
    if (!failed_marker_) continue;
    (void)files_.SyncData(layer.file).ok();
    RETURN_IF_ERROR(files_.DropCache(layer.file));
  }
  if (!chain_.head_alone()) {
    RETURN_IF_ERROR(map_.Reserve(chain_.blocks()));
    RETURN_IF_ERROR(chain_.BuildMap(files_, directory_, &map_));
    RETURN_IF_ERROR(OpenMasks());
  }
  if (identity_.checksums) {
    RETURN_IF_ERROR(sums_.Open(directory_, &chain_, &map_, failed_marker_, &notes_));
    RETURN_IF_ERROR(ForgetChecksumsOfUnsealed());
    // What was written and not made clean may be without its checksum; but not where the head has
    // nothing, as after a revert: what it stands on has its own.
    for (uint32_t region = 0; region < regions_.regions(); ++region) {
      if (!regions_.dirty(region)) continue;
      if (record_state_.unsealed || !sums_.HeadLacks(region)) sums_.SetStale(region);
    }
  }
  RETURN_IF_ERROR(SyncMetadata());
  if (direct_ || !chain_.head_alone() || sums_.on()) RETURN_IF_ERROR(MakeScratch());
  fresh_ = NeverWritten();
  return Status::Ok();
}

// What was read is answered for from now on without being written again: that a layer is removed or
// sealed, that a region is dirty. A process that was killed between a write and its sync left it in
// the page cache alone, and a loss of power would take it back.
Status Replica::SyncMetadata() {
  bool sync_failed = false;
  Status status = record_file_.Sync(files_, &sync_failed);
  if (status.ok()) status = region_file_.Sync(files_, &sync_failed);
  if (sync_failed) (void)WriteFailedMarker(status.message()).ok();
  return status.ok() ? files_.SyncDirectory(directory_) : status;
}

Status Replica::MakeScratch() {
  if (scratch_ != nullptr) return Status::Ok();
  Result<std::unique_ptr<BufferPool>> scratch =
      BufferPool::Create("ankole-scratch", kScratchSmallChunks, 0, kScratchLargeChunks);
  if (!scratch.ok()) return scratch.status();
  scratch_ = scratch.Take();
  return Status::Ok();
}

// A volume without a record that takes up no space: there is nothing in it.
bool Replica::NeverWritten() {
  if (record_state_.record.current.exists() || unclean() || suspect()) return false;
  if (!chain_.head_alone()) return false;
  const Result<io::FileInfo> head = files_.Info(chain_.head().file);
  return head.ok() && head.value().allocated_bytes == 0;
}

// `foreign`: another program wrote to the layers and to no map.
Status Replica::LoadRegions(bool foreign) {
  const uint32_t regions = RegionsOf(0, volume_meta_.size_bytes).end;
  RETURN_IF_ERROR(regions_.Reserve(regions));
  const std::string path = Join(directory_, kRegionsName);
  const auto take = [](void* owner, uint32_t first, const uint8_t* bytes, uint32_t count) {
    static_cast<RegionMap*>(owner)->Load(first, bytes, count);
  };
  RegionFile::Loaded loaded;
  Result<RegionFile> file =
      foreign ? Result<RegionFile>(Status(ErrorCode::kCorrupt, "written by another program"))
              : RegionFile::Open(files_, path, regions, take, &regions_, &loaded);
  const bool missing = !file.ok() && file.status().code() == ErrorCode::kNotFound;
  if (!file.ok() && (missing || file.status().code() == ErrorCode::kCorrupt)) {
    // Without its maps everything counts as dirty, and what others miss is not known here.
    region_damage_ = (missing ? "there is no map of its regions" : file.status().message()) +
                     "; every region counts as dirty";
    RETURN_IF_ERROR(RegionFile::Replace(files_, directory_, regions, kDirtyBit));
    file = RegionFile::Open(files_, path, regions, take, &regions_, &loaded);
  }
  if (!file.ok()) return file.status();
  region_file_ = file.Take();
  if (loaded.sectors_bad > 0) {
    region_damage_ = std::to_string(loaded.sectors_bad) + " sectors of " + path +
                     " do not match their checksum; their regions count as dirty";
  }
  regions_.SetSlots(region_file_.slots());
  return Status::Ok();
}

Status Replica::OpenMasks() {
  const std::string name = chain_.head().meta.name + std::string(kMaskSuffix);
  Result<MaskFile> masks = MaskFile::Open(files_, Join(directory_, name), chain_.blocks());
  if (!masks.ok() && masks.status().code() == ErrorCode::kNotFound) {
    masks = MaskFile::Create(files_, directory_, name, chain_.blocks());
    // The disk is full: what can be done without masks goes on.
    if (!masks.ok() && masks.status().code() == ErrorCode::kNoSpace) return Status::Ok();
  }
  if (!masks.ok()) return masks.status();
  masks_ = masks.Take();
  return Status::Ok();
}

Status Replica::Close(std::unique_ptr<Replica> replica, bool clean) {
  CHECK(replica->in_flight_ == 0 && !replica->region_busy_ && !replica->record_busy_);
  if (clean) return replica->MarkClean();
  // What the file shows too many is no harm.
  (void)replica->TidyRegions(false).ok();
  return Status::Ok();
}

// Writes what the maps' file lacks of the maps; with `all_clean` no region is dirty any more.
Status Replica::TidyRegions(bool all_clean) {
  if (region_batch_ == nullptr) region_batch_ = std::make_unique<RegionBatch>();
  RegionBatch& batch = *region_batch_;
  batch.count = 0;
  if (all_clean) regions_.Clear({0, regions_.regions()}, kDirtyBit);
  region_task_ = RegionTask::kTidy;
  task_sector_ = 0;
  bool sync_failed = false;
  Status status;
  do {
    batch.count = 0;
    AddTask();
    if (batch.count > 0) status = region_file_.Write(files_, batch, false, &sync_failed);
  } while (status.ok() && task_sector_ < regions_.sectors());
  // Bits that went before went when they liked; a replica that is clean has none.
  if (status.ok() && all_clean) status = region_file_.SyncWritten(files_, &sync_failed);
  if (sync_failed) (void)WriteFailedMarker(status.message()).ok();
  return status;
}

Status Replica::MarkClean() {
  if (sync_failed_ || failed_marker_) {
    return Status(ErrorCode::kSuspect, directory_ + ": " + sync_failure_);
  }
  if (names_due_) {
    RETURN_IF_ERROR(GiveNames(files_, directory_, &volume_meta_, chain_.head().meta.name));
  }
  for (Layer& layer : chain_.layers()) {
    if (!layer.unsynced) continue;
    if (const Status status = files_.SyncData(layer.file); !status.ok()) {
      (void)WriteFailedMarker(status.message()).ok();
      return Status(ErrorCode::kIoError, status.message());
    }
    layer.unsynced = false;
  }
  bool sums_failed = false;
  if (const Status status = sums_.Persist(&sums_failed); !status.ok()) {
    if (sums_failed) (void)WriteFailedMarker(status.message()).ok();
    return Status(ErrorCode::kIoError, status.message());
  }
  RETURN_IF_ERROR(TidyRegions(true));
  // Longhorn's mark first: the record is what counts here.
  if (volume_meta_.dirty && !read_only_) {
    volume_meta_.dirty = false;
    RETURN_IF_ERROR(
        io::ReplaceFile(files_, Join(directory_, kVolumeMetaName), volume_meta_.Write()));
  }
  if (!record_state_.clean) {
    record_next_ = record_state_;
    record_next_.clean = true;
    bool sync_failed = false;
    Status status = record_file_.Write(files_, record_next_, &sync_failed);
    if (sync_failed) (void)WriteFailedMarker(status.message()).ok();
    return status;
  }
  return Status::Ok();
}

Status Replica::WriteFailedMarker(const std::string& reason) {
  if (Mutant("flush-retried")) return Status::Ok();
  Result<io::File> opened =
      files_.Open(Join(directory_, kFailedName), {.write = true, .create = true});
  if (!opened.ok()) return opened.status();
  // The name alone is the mark; the text may find no space.
  (void)files_
      .WriteAt(opened.value(), 0, reason.data(), std::min(reason.size(), kFailureTextBytesMax))
      .ok();
  const Status synced = files_.Sync(opened.value());
  files_.Close(opened.value());
  const Status named = files_.SyncDirectory(directory_);
  return synced.ok() ? named : synced;
}

Status Replica::Destroy(io::FileSystem& files, const std::string& directory) {
  const PathParts parts = Split(directory);
  const std::string aside = parts.parent + "/" + std::string(kRemovingPrefix) + parts.name;
  if (const Result<io::FileInfo> info = files.Info(directory); !info.ok()) {
    if (info.status().code() != ErrorCode::kNotFound) return info.status();
    // What an earlier call had renamed and not deleted.
    RETURN_IF_ERROR(RemoveFlatDirectory(files, aside));
    return files.SyncDirectory(parts.parent);
  }
  Result<io::File> lock = TakeLock(files, directory);
  if (!lock.ok()) return lock.status();
  if (IsAdopted(files, directory)) {
    const Status released = ReleaseAdopted(files, directory);
    if (released.code() != ErrorCode::kUnsupported) {
      files.Close(lock.value());
      return released;
    }
  }
  Status status = RemoveFlatDirectory(files, aside);
  if (status.ok()) status = files.Rename(directory, aside);
  if (status.ok()) status = files.SyncDirectory(parts.parent);
  if (status.ok()) status = RemoveFlatDirectory(files, aside);
  files.Close(lock.value());
  return status;
}

Result<ReplicaDescription> Replica::Describe(io::FileSystem& files, const std::string& directory) {
  ReplicaDescription description;
  Result<Identity> identity = ReadIdentity(files, directory);
  if (!identity.ok()) return identity.status();
  description.identity = identity.Take();
  const Result<VolumeMeta> volume = ReadVolumeMeta(files, directory);
  if (!volume.ok()) return volume.status();
  description.size_bytes = volume.value().size_bytes;
  Result<RecordState> record = RecordFile::Read(files, Join(directory, kRecordName));
  if (!record.ok()) return record.status();
  description.record = record.value().record;
  description.welcomed = record.value().welcomed;
  description.unclean = !record.value().clean || volume.value().dirty;
  RegionFile::Loaded loaded;
  const auto count = [](void* owner, uint32_t, const uint8_t* bytes, uint32_t regions) {
    for (uint32_t i = 0; i < regions; ++i) {
      *static_cast<uint64_t*>(owner) += bytes[i] & kDirtyBit;
    }
  };
  Result<RegionFile> maps = RegionFile::Open(files, Join(directory, kRegionsName),
                                             RegionsOf(0, description.size_bytes).end, count,
                                             &description.dirty_regions, &loaded);
  // A replica of before has none; what is wrong with them is said when it is opened.
  if (maps.ok()) maps.value().Close(files);
  description.unclean |= description.dirty_regions > 0;
  description.adopted = IsAdopted(files, directory);
  std::string reason;
  description.sync_failed = ReadFailedMarker(files, directory, &reason);
  const Result<std::vector<std::string>> names = files.List(directory);
  if (!names.ok()) return names.status();
  for (const std::string& name : names.value()) {
    const Result<io::FileInfo> info = files.Info(Join(directory, name));
    // Files aside come and go while the replica is open.
    if (info.ok()) description.allocated_bytes += info.value().allocated_bytes;
  }
  return description;
}

Status Replica::RemoveLeftovers(io::FileSystem& files, const std::string& replicas_directory) {
  const Result<std::vector<std::string>> names = files.List(replicas_directory);
  if (!names.ok()) return names.status();
  bool removed = false;
  for (const std::string& name : names.value()) {
    if (!name.starts_with(kCreatingPrefix) && !name.starts_with(kRemovingPrefix)) continue;
    RETURN_IF_ERROR(RemoveFlatDirectory(files, Join(replicas_directory, name)));
    removed = true;
  }
  return removed ? files.SyncDirectory(replicas_directory) : Status::Ok();
}

}  // namespace ankole::replica

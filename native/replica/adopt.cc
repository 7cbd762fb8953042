#include "replica/adopt.h"

#include <algorithm>
#include <vector>

#include "base/limits.h"
#include "base/units.h"
#include "replica/layer.h"
#include "replica/mask_file.h"
#include "replica/record_file.h"
#include "replica/region_file.h"
#include "replica/region_map.h"
#include "replica/state_file.h"

namespace ankole::replica {
namespace {

constexpr std::string_view kChecksumSuffix = ".img.checksum";
constexpr std::string_view kBackingLayer = "volume-snap-backing-file.img";
constexpr std::string_view kAside = ".tmp";
// What Ankole adds to Longhorn's files.
constexpr std::string_view kOwnNames[] = {kIdentityName,    kRecordName, kRegionsName,
                                          kTargetStateName, kFailedName, "merge"};
constexpr std::string_view kOwnSuffixes[] = {".img.mask", ".img.crc", ".img.crc.merged"};

std::string ParentDirectory(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

bool IsOwn(const std::string& name) {
  for (const std::string_view own : kOwnNames) {
    if (name == own || name == std::string(own) + std::string(kAside)) return true;
  }
  for (const std::string_view suffix : kOwnSuffixes) {
    if (name.ends_with(suffix)) return true;
  }
  return false;
}

Status RemoveIfThere(io::FileSystem& files, const std::string& path) {
  const Status status = files.Remove(path);
  return status.code() == ErrorCode::kNotFound ? Status::Ok() : status;
}

Status RemoveOwnFiles(io::FileSystem& files, const std::string& directory) {
  const Result<std::vector<std::string>> names = files.List(directory);
  if (!names.ok()) return names.status();
  for (const std::string& name : names.value()) {
    if (IsOwn(name)) RETURN_IF_ERROR(files.Remove(Join(directory, name)));
  }
  return files.SyncDirectory(directory);
}

// --- the mark
// -------------------------------------------------------------------------------------

// What a release puts back.
Json MarkOf(const LonghornReplica& found, bool copied) {
  return Json::Object()
      .Set("formatVersion", kFormatVersion)
      .Set("from", found.directory)
      .Set("copied", copied)
      .Set("size", found.volume.size_bytes)
      .Set("dirty", found.volume.dirty)
      .Set("rebuilding", found.volume.rebuilding)
      .Set("error", found.error);
}

Result<Json> ReadMark(io::FileSystem& files, const std::string& directory) {
  const std::string path = Join(directory, kAdoptedName);
  const Result<std::string> text = io::ReadWholeFile(files, path, kMetadataBytesMax);
  if (!text.ok()) return text.status();
  Result<Json> mark = Json::Parse(text.value());
  if (mark.ok() && mark.value().is_object()) return mark;
  return Status(ErrorCode::kCorrupt, path + ": is no JSON object");
}

// Where there is one already that stands: it says how the directory was before the first attempt.
Status WriteMark(io::FileSystem& files, const LonghornReplica& found, bool copied) {
  if (found.adopting && ReadMark(files, found.directory).ok()) return Status::Ok();
  return io::ReplaceFile(files, Join(found.directory, kAdoptedName),
                         MarkOf(found, copied).Write() + "\n");
}

// --- preparing
// ------------------------------------------------------------------------------------

Status WriteLayerMeta(io::FileSystem& files, const std::string& directory, const LayerMeta& meta) {
  return io::ReplaceFile(files, Join(directory, meta.name + std::string(kMetaSuffix)),
                         meta.Write());
}

Status WriteVolumeMeta(io::FileSystem& files, const LonghornReplica& found,
                       const VolumeMeta& volume) {
  return io::ReplaceFile(files, Join(found.directory, kVolumeMetaName), volume.Write());
}

void KeepName(LayerMeta* meta, const std::string& name) {
  const Json* labels = meta->other.Find("Labels");
  Json next = labels != nullptr && labels->is_object() ? *labels : Json::Object();
  next.Set(std::string(kLonghornNameLabel), SnapshotNameOf(name));
  meta->other.Set("Labels", std::move(next));
}

// The layer gets a second name with its own description, then all that stand on it turn to that,
// then the first one goes. Each step leaves a directory that holds the same.
Status GiveName(io::FileSystem& files, LonghornReplica* found, size_t index) {
  LonghornLayer& layer = found->layers[index];
  const std::string& directory = found->directory;
  const std::string before = layer.meta.name;
  Status linked = files.Link(Join(directory, before), Join(directory, layer.mapped));
  if (linked.code() == ErrorCode::kAlreadyExists) {
    // Of an attempt that got no further, or somebody's: without a description it counts for none.
    RETURN_IF_ERROR(files.Remove(Join(directory, layer.mapped)));
    linked = files.Link(Join(directory, before), Join(directory, layer.mapped));
  }
  RETURN_IF_ERROR(linked);
  RETURN_IF_ERROR(files.SyncDirectory(directory));
  layer.meta.name = layer.mapped;
  KeepName(&layer.meta, before);
  found->leftovers.push_back(before);
  return WriteLayerMeta(files, directory, layer.meta);
}

// What stands on a layer that has its new name, in its description and in volume.meta.
Status TurnChildren(io::FileSystem& files, LonghornReplica* found) {
  for (LonghornLayer& layer : found->layers) {
    const std::string parent = MapLayerName(layer.meta.parent);
    const Result<std::string> written = layer.meta.other.String("Parent", "");
    if (written.ok() && written.value() == parent) continue;
    layer.meta.parent = parent;
    RETURN_IF_ERROR(WriteLayerMeta(files, found->directory, layer.meta));
    layer.meta.other.Set("Parent", parent);
  }
  return Status::Ok();
}

Status GiveNames(io::FileSystem& files, LonghornReplica* found) {
  for (size_t i = 0; i < found->layers.size(); ++i) {
    if (found->layers[i].mapped != found->layers[i].meta.name) {
      RETURN_IF_ERROR(GiveName(files, found, i));
    }
  }
  RETURN_IF_ERROR(TurnChildren(files, found));
  const std::string parent = found->layers.front().meta.parent;
  if (found->volume.parent != parent) {
    found->volume.parent = parent;
    RETURN_IF_ERROR(WriteVolumeMeta(files, *found, found->volume));
  }
  for (const std::string& before : found->leftovers) {
    const std::string path = Join(found->directory, before);
    for (const std::string_view suffix :
         {std::string_view(".checksum"), kMetaSuffix, std::string_view()}) {
      RETURN_IF_ERROR(RemoveIfThere(files, path + std::string(suffix)));
    }
  }
  return found->leftovers.empty() ? Status::Ok() : files.SyncDirectory(found->directory);
}

// Longhorn looks for no extents in a backing file: all that no layer has is read from it, as from a
// bottom layer here.
Status TakeBackingFile(io::FileSystem& files, LonghornReplica* found, const AdoptOptions& options,
                       const CopyProgress& progress) {
  if (found->volume.backing_file.empty()) return Status::Ok();
  const std::string& given = options.longhorn.backing_file;
  const std::string& source = given.empty() ? found->volume.backing_file : given;
  const std::string name(kBackingLayer);
  const std::string path = Join(found->directory, name);
  LonghornLayer backing;
  backing.meta.name = backing.mapped = name;
  // Nobody took it as a snapshot: it is merged when the volume may be written to.
  backing.meta.removed = true;
  if (!files.Info(path).ok()) {
    const std::string aside = path + std::string(kAside);
    RETURN_IF_ERROR(CopySparseFile(files, source, aside, progress));
    const Result<io::File> file = files.Open(aside, {.write = true});
    if (!file.ok()) return file.status();
    const Result<io::FileInfo> info = files.Info(file.value());
    Status status = info.status();
    if (info.ok()) {
      // An image may be larger than the volume that was made of it, and of any number of bytes.
      const uint64_t bytes =
          std::min(RoundUp(info.value().size_bytes, kBlockBytes), found->volume_bytes);
      status = files.Truncate(file.value(), bytes);
      if (status.ok()) status = files.Sync(file.value());
    }
    files.Close(file.value());
    RETURN_IF_ERROR(status);
    RETURN_IF_ERROR(files.Rename(aside, path));
    RETURN_IF_ERROR(files.SyncDirectory(found->directory));
  }
  const bool known = std::any_of(found->layers.begin(), found->layers.end(),
                                 [&](const auto& layer) { return layer.meta.name == name; });
  if (!known) {
    RETURN_IF_ERROR(WriteLayerMeta(files, found->directory, backing.meta));
    found->layers.push_back(backing);
  }
  for (LonghornLayer& layer : found->layers) {
    if (!layer.meta.parent.empty() || layer.meta.name == name) continue;
    layer.meta.parent = name;
    RETURN_IF_ERROR(WriteLayerMeta(files, found->directory, layer.meta));
  }
  found->volume.backing_file.clear();
  found->volume.parent = found->layers.front().meta.parent;
  return WriteVolumeMeta(files, *found, found->volume);
}

// Of whole blocks, and the head as large as the volume; durable.
Status RoundSize(io::FileSystem& files, const std::string& directory, const std::string& name,
                 uint64_t at_least) {
  const Result<io::File> file = files.Open(Join(directory, name), {.write = true});
  if (!file.ok()) return file.status();
  const Result<io::FileInfo> info = files.Info(file.value());
  Status status = info.status();
  if (info.ok()) {
    const uint64_t bytes = std::max(RoundUp(info.value().size_bytes, kBlockBytes), at_least);
    if (bytes != info.value().size_bytes) status = files.Truncate(file.value(), bytes);
  }
  if (status.ok()) status = files.Sync(file.value());
  files.Close(file.value());
  return status;
}

Status RoundSizes(io::FileSystem& files, const LonghornReplica& found) {
  for (size_t i = 0; i < found.layers.size(); ++i) {
    RETURN_IF_ERROR(RoundSize(files, found.directory, found.layers[i].meta.name,
                              i == 0 ? found.volume_bytes : 0));
  }
  return Status::Ok();
}

Result<LonghornReplica> Judge(io::FileSystem& files, const std::string& directory,
                              const AdoptOptions& options) {
  Result<LonghornReplica> found = ReadLonghorn(files, directory, options.longhorn);
  if (!found.ok()) return found;
  if (const Status wrong = found.value().Obstacle(options.accept); !wrong.ok()) return wrong;
  return found;
}

Status Prepare(io::FileSystem& files, LonghornReplica* found, const AdoptOptions& options,
               const CopyProgress& progress) {
  RETURN_IF_ERROR(WriteMark(files, *found, options.longhorn.copied));
  RETURN_IF_ERROR(GiveNames(files, found));
  RETURN_IF_ERROR(TakeBackingFile(files, found, options, progress));
  return RoundSizes(files, *found);
}

// --- adopting
// -------------------------------------------------------------------------------------

// What was allocated and never written hides what is below: a mask says so here.
Status MaskUnwritten(io::FileSystem& files, const LonghornReplica& found) {
  for (const LonghornLayer& layer : found.layers) {
    if (layer.meta.parent.empty()) continue;
    const std::string path = Join(found.directory, layer.meta.name);
    std::vector<std::pair<uint64_t, uint64_t>> runs;
    const Result<io::File> file = files.Open(path, {});
    if (!file.ok()) return file.status();
    const Status listed = ForEachUnwritten(
        files, path, file.value(), layer.size_bytes, [&](uint64_t at, uint64_t length) {
          runs.emplace_back(at / kBlockBytes,
                            DivideUp(at + length, kBlockBytes) - at / kBlockBytes);
        });
    files.Close(file.value());
    RETURN_IF_ERROR(listed);
    if (runs.empty()) continue;
    Result<MaskFile> masks =
        MaskFile::Create(files, found.directory, layer.meta.name + std::string(kMaskSuffix),
                         DivideUp(found.volume_bytes, kBlockBytes));
    if (!masks.ok()) return masks.status();
    MaskFile file_of_masks = masks.Take();
    Status status;
    for (const auto& [block, blocks] : runs) {
      if (status.ok()) status = file_of_masks.Set(files, block, blocks);
    }
    if (status.ok()) status = file_of_masks.Sync(files);
    file_of_masks.Close(files);
    RETURN_IF_ERROR(status);
  }
  return Status::Ok();
}

// All of the blocks are without checksums, and its regions dirty: computed anew as they become
// clean. The data is durable by now, so that it has lost nothing in this boot.
Status WriteOwnFiles(io::FileSystem& files, const std::string& directory, const Identity& identity,
                     uint64_t size_bytes) {
  const Result<std::string> boot_id = files.BootId();
  if (!boot_id.ok()) return boot_id.status();
  const Result<std::string> mount_id = files.MountId(directory);
  if (!mount_id.ok()) return mount_id.status();
  RecordState record;
  record.clean = false;
  record.boot_id = boot_id.value().substr(0, kBootIdBytesMax);
  record.mount_id = mount_id.value().substr(0, kMountIdBytesMax);
  RETURN_IF_ERROR(RecordFile::Create(files, Join(directory, kRecordName), record));
  RETURN_IF_ERROR(CreateStateFile(files, Join(directory, kTargetStateName)));
  RETURN_IF_ERROR(RegionFile::Replace(files, directory, RegionsOf(0, size_bytes).end, kDirtyBit));
  return io::ReplaceFile(files, Join(directory, kIdentityName), identity.Write());
}

}  // namespace

Status CopyLonghorn(io::FileSystem& files, const std::string& from, const std::string& to,
                    const AdoptOptions& options, const CopyProgress& progress) {
  const Result<LonghornReplica> found = Judge(files, from, options);
  if (!found.ok()) return found.status();
  const Status made = files.MakeDirectory(to);
  if (!made.ok() && made.code() != ErrorCode::kAlreadyExists) return made;
  const DirectoryLock lock(files, to);
  RETURN_IF_ERROR(lock.status());
  const Result<std::vector<std::string>> names = files.List(to);
  if (!names.ok()) return names.status();
  for (const std::string& name : names.value()) {
    if (name != kLockName) RETURN_IF_ERROR(files.Remove(Join(to, name)));
  }
  for (const LonghornLayer& layer : found.value().layers) {
    const std::string& name = layer.meta.name;
    RETURN_IF_ERROR(CopySparseFile(files, Join(from, name), Join(to, name), progress));
    RETURN_IF_ERROR(WriteLayerMeta(files, to, layer.meta));
  }
  if (files.Info(Join(from, kRevisionName)).ok()) {
    RETURN_IF_ERROR(
        CopySparseFile(files, Join(from, kRevisionName), Join(to, kRevisionName), progress));
  }
  const Result<std::string> volume =
      io::ReadWholeFile(files, Join(from, kVolumeMetaName), kMetadataBytesMax);
  if (!volume.ok()) return volume.status();
  return io::ReplaceFile(files, Join(to, kVolumeMetaName), volume.value());
}

Status PrepareLonghorn(io::FileSystem& files, const std::string& directory,
                       const AdoptOptions& options, const CopyProgress& progress) {
  Result<LonghornReplica> found = Judge(files, directory, options);
  if (!found.ok()) return found.status();
  const DirectoryLock lock(files, directory);
  RETURN_IF_ERROR(lock.status());
  RETURN_IF_ERROR(ProbeFileSystem(files, directory));
  return Prepare(files, &found.value(), options, progress);
}

Status AdoptReplica(io::FileSystem& files, const std::string& from, const std::string& directory,
                    const Identity& identity, uint64_t size_bytes, const AdoptOptions& options) {
  RETURN_IF_ERROR(CheckVolumeName(identity.volume));
  if (identity.id == 0) return {ErrorCode::kInvalidArgument, "a replica needs an id"};
  if (files.Info(directory).ok()) {
    // By an earlier attempt whose last step failed: the name must be durable before it counts.
    RETURN_IF_ERROR(files.SyncDirectory(ParentDirectory(directory)));
    return {ErrorCode::kAlreadyExists, directory + ": exists already"};
  }
  RETURN_IF_ERROR(PrepareLonghorn(files, from, options, [](uint64_t) { return true; }));
  // Anew: all is called as it is to be by now, and of whole blocks.
  Result<LonghornReplica> found = Judge(files, from, options);
  if (!found.ok()) return found.status();
  const DirectoryLock lock(files, from);
  RETURN_IF_ERROR(lock.status());
  VolumeMeta volume = found.value().volume;
  if (found.value().volume_bytes != size_bytes) {
    return {ErrorCode::kInvalidArgument,
            from + ": holds a volume of " + std::to_string(found.value().volume_bytes) +
                " bytes, and one of " + std::to_string(size_bytes) + " is to be made of it"};
  }
  RETURN_IF_ERROR(RemoveOwnFiles(files, from));
  RETURN_IF_ERROR(MaskUnwritten(files, found.value()));
  volume.size_bytes = size_bytes;
  volume.rebuilding = false;
  volume.other.Set("Error", "");
  RETURN_IF_ERROR(WriteVolumeMeta(files, found.value(), volume));
  RETURN_IF_ERROR(WriteOwnFiles(files, from, identity, size_bytes));
  RETURN_IF_ERROR(files.SyncDirectory(from));
  // With the slash a symbolic link is refused, which would be moved instead of what it points to.
  const Status renamed = files.Rename(from + "/", directory);
  if (!renamed.ok()) {
    return {renamed.code(), renamed.message() +
                                "; the directory has to be on the disk's own file system and no "
                                "symbolic link: copy it (--copy)"};
  }
  RETURN_IF_ERROR(files.SyncDirectory(ParentDirectory(directory)));
  return files.SyncDirectory(ParentDirectory(from));
}

bool IsAdopted(io::FileSystem& files, const std::string& directory) {
  const Result<io::FileInfo> info = files.Info(Join(directory, kAdoptedName));
  // What cannot be looked at counts: it is written to by nobody.
  return info.ok() || info.status().code() != ErrorCode::kNotFound;
}

Status ConfirmAdopted(io::FileSystem& files, const std::string& directory) {
  if (!IsAdopted(files, directory)) return Status::Ok();
  const DirectoryLock lock(files, directory);
  RETURN_IF_ERROR(lock.status());
  const Result<std::vector<std::string>> names = files.List(directory);
  if (!names.ok()) return names.status();
  // Longhorn's own, of whole layers: they would be wrong after the first merge.
  for (const std::string& name : names.value()) {
    if (name.ends_with(kChecksumSuffix)) RETURN_IF_ERROR(files.Remove(Join(directory, name)));
  }
  RETURN_IF_ERROR(RemoveIfThere(files, Join(directory, kAdoptedName)));
  return files.SyncDirectory(directory);
}

Status ReleaseAdopted(io::FileSystem& files, const std::string& directory) {
  const Result<Json> mark = ReadMark(files, directory);
  if (!mark.ok()) return mark.status();
  const Result<std::string> from = mark.value().String("from");
  const Result<bool> copied = mark.value().Bool("copied", false);
  const Result<int64_t> size = mark.value().Integer("size", 1, INT64_MAX);
  for (const Status& status : {from.status(), copied.status(), size.status()}) {
    if (!status.ok()) return Status(ErrorCode::kCorrupt, status.message()).Within(directory);
  }
  if (copied.value()) return {ErrorCode::kUnsupported, directory + ": is a copy"};
  if (files.Info(from.value()).ok()) {
    return {ErrorCode::kAlreadyExists, directory + ": is to be given back to " + from.value() +
                                           ", where something is by now; move that away"};
  }
  RETURN_IF_ERROR(RemoveOwnFiles(files, directory));
  const std::string path = Join(directory, kVolumeMetaName);
  const Result<std::string> text = io::ReadWholeFile(files, path, kMetadataBytesMax);
  if (!text.ok()) return text.status();
  Result<Json> volume = Json::Parse(text.value());
  if (!volume.ok()) return volume.status().Within(path);
  const Result<bool> dirty = mark.value().Bool("dirty", false);
  const Result<bool> rebuilding = mark.value().Bool("rebuilding", false);
  const Result<std::string> error = mark.value().String("error", "");
  volume.value().Set("Size", size.value());
  volume.value().Set("Dirty", dirty.ok() && dirty.value());
  volume.value().Set("Rebuilding", rebuilding.ok() && rebuilding.value());
  volume.value().Set("Error", error.ok() ? error.value() : std::string());
  RETURN_IF_ERROR(io::ReplaceFile(files, path, volume.value().Write() + "\n"));
  const Status renamed = files.Rename(directory, from.value());
  if (!renamed.ok()) {
    return {renamed.code(), directory + ": cannot be given back: " + renamed.message()};
  }
  RETURN_IF_ERROR(files.SyncDirectory(ParentDirectory(from.value())));
  RETURN_IF_ERROR(files.SyncDirectory(ParentDirectory(directory)));
  RETURN_IF_ERROR(RemoveIfThere(files, Join(from.value(), kAdoptedName)));
  RETURN_IF_ERROR(RemoveIfThere(files, Join(from.value(), kLockName)));
  return files.SyncDirectory(from.value());
}

}  // namespace ankole::replica

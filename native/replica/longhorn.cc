#include "replica/longhorn.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <set>

#include "base/limits.h"
#include "base/sha256.h"
#include "base/units.h"
#include "replica/adopt.h"
#include "replica/layer.h"

namespace ankole::replica {
namespace {

constexpr std::string_view kJournalName = "journal.log";
constexpr std::string_view kLonghornSnapshot = "volume-snap-";
constexpr std::string_view kLonghornHead = "volume-head-";
constexpr std::string_view kLonghornImage = ".img";
constexpr std::string_view kLockSuffix = ".lock";
constexpr size_t kRevisionBytesMax = 4096;
constexpr size_t kMappedStemBytesMax = 50;
constexpr size_t kMappedHashDigits = 8;
constexpr size_t kShownBytesMax = 200;
constexpr size_t kCopyExtents = 1024;
constexpr uint64_t kCopyBytes = 1 * kMiB;
constexpr char kQcowMagic[] = {'Q', 'F', 'I', '\xfb'};

std::string Shown(std::string_view text) {
  std::string quoted = "'";
  for (const char c : text.substr(0, kShownBytesMax)) {
    quoted += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  }
  return quoted + "'";
}

bool IsImage(std::string_view name, std::string_view prefix) {
  return name.size() > prefix.size() + kLonghornImage.size() && name.starts_with(prefix) &&
         name.ends_with(kLonghornImage);
}

bool IsLayerFile(std::string_view name) {
  return IsImage(name, kLonghornSnapshot) || IsImage(name, kLonghornHead);
}

std::string HexOfHash(std::string_view text, size_t digits) {
  Sha256 hash;
  hash.Update(text.data(), text.size());
  const Sha256Digest digest = hash.Finish();
  std::string hex;
  for (size_t i = 0; 2 * i < digits; ++i) {
    constexpr char kDigits[] = "0123456789abcdef";
    hex += kDigits[digest[i] >> 4];
    hex += kDigits[digest[i] & 15];
  }
  return hex;
}

// Reads one directory; what is wrong is collected, so that all of it is told at once.
class LonghornReader {
 public:
  LonghornReader(io::FileSystem& files, const std::string& directory,
                 const LonghornOptions& options)
      : files_(files), options_(options) {
    found_.directory = directory;
  }

  Result<LonghornReplica> Read() {
    Result<std::vector<std::string>> names = files_.List(found_.directory);
    if (!names.ok()) return names.status();
    there_.insert(names.value().begin(), names.value().end());
    found_.adopting = there_.contains(std::string(kAdoptedName));
    RETURN_IF_ERROR(ReadVolume());
    ReadStrangers();
    ReadLayers();
    OrderLayers();
    for (LonghornLayer& layer : found_.layers) LookInto(&layer);
    CheckSizes();
    CheckBackingFile();
    ReadRevision();
    NoteTraps();
    return std::move(found_);
  }

 private:
  std::string Path(std::string_view name) const { return Join(found_.directory, name); }
  void Note(std::string text) { found_.notes.push_back(std::move(text)); }
  void Refuse(std::string text) { found_.problems.push_back({"", std::move(text)}); }

  // By hand and not by VolumeMeta::Parse: Longhorn takes sizes and names that are none here.
  Status ReadVolume() {
    const std::string path = Path(kVolumeMetaName);
    const Result<std::string> text = io::ReadWholeFile(files_, path, kMetadataBytesMax);
    if (!text.ok() && text.status().code() == ErrorCode::kNotFound) {
      return {ErrorCode::kNotFound,
              found_.directory +
                  ": has no volume.meta, and is no replica directory of Longhorn; where Longhorn "
                  "lost the file, have it open and close the replica once"};
    }
    if (!text.ok()) return text.status();
    Result<Json> parsed = Json::Parse(text.value());
    if (!parsed.ok() || !parsed.value().is_object()) {
      return {ErrorCode::kCorrupt, path +
                                       ": is no JSON object; have Longhorn open and close the "
                                       "replica once, which writes the file anew"};
    }
    VolumeMeta& volume = found_.volume;
    volume.other = parsed.Take();
    const Json& json = volume.other;
    Result<int64_t> size = json.Integer("Size", 1, INT64_MAX);
    if (!size.ok()) return Status(ErrorCode::kCorrupt, size.status().message()).Within(path);
    volume.size_bytes = static_cast<uint64_t>(size.value());
    const auto text_of = [&](std::string_view key) {
      const Result<std::string> value = json.String(key, "");
      if (!value.ok()) Refuse("volume.meta: " + value.status().message());
      return value.ok() ? value.value() : std::string();
    };
    const auto flag_of = [&](std::string_view key) {
      const Result<bool> value = json.Bool(key, false);
      if (!value.ok()) Refuse("volume.meta: " + value.status().message());
      return value.ok() && value.value();
    };
    volume.head = text_of("Head");
    volume.parent = text_of("Parent");
    volume.backing_file = text_of("BackingFilePath");
    found_.error = text_of("Error");
    const Result<int64_t> sector = json.Integer("SectorSize", 0, INT64_MAX, kSectorBytes);
    volume.sector_bytes = sector.ok() ? sector.value() : 0;
    if (volume.sector_bytes != kSectorBytes && volume.sector_bytes != kBlockBytes) {
      Refuse("volume.meta: SectorSize is neither 512 nor 4096");
    }
    volume.dirty = flag_of("Dirty");
    volume.rebuilding = flag_of("Rebuilding");
    if (flag_of("Encrypted")) {
      Note(
          "the volume is encrypted by Longhorn: it is served as it lies there, LUKS header and "
          "all, and is opened with cryptsetup");
    }
    if (!IsHeadName(volume.head)) {
      Refuse("volume.meta: Head " + Shown(volume.head) + " is no name of a head");
    }
    if (volume.dirty) {
      found_.problems.push_back(
          {"dirty",
           "it was not closed (Dirty): a Longhorn replica may have it open, or ended without "
           "closing it. Detach the volume in Longhorn; what the last writes were may differ from "
           "other replicas"});
    }
    if (volume.rebuilding) {
      found_.problems.push_back(
          {"rebuilding",
           "it was being filled from another replica (Rebuilding) and is not whole: take another "
           "replica of the volume"});
    }
    if (!found_.error.empty()) {
      found_.problems.push_back({"error", "Longhorn noted an error: " + Shown(found_.error)});
    }
    return Status::Ok();
  }

  // Files that are neither Longhorn's nor what it leaves behind.
  void ReadStrangers() {
    for (const std::string& name : there_) {
      const Result<io::FileInfo> info = files_.Info(Path(name));
      if (info.ok() && info.value().directory) {
        Refuse("holds the directory " + Shown(name) +
               ", which is nothing of a Longhorn replica; move it away");
      }
      if (name.ends_with(kLockSuffix) || name == kLockName) CheckLock(name);
      const bool ours = name == kIdentityName || name.ends_with(".img.mask");
      if (ours && !found_.adopting) {
        Refuse("holds " + Shown(name) +
               ": the directory was written by Ankole, and is no Longhorn replica. Longhorn's form "
               "of it is made by «ankole replica export --longhorn»");
      }
    }
    const Result<io::FileInfo> journal = files_.Info(Path(kJournalName));
    if (journal.ok() && journal.value().size_bytes > 0) {
      Note(
          "it has a journal of Longhorn's (journal.log), which is not read here: where Longhorn "
          "was interrupted while it took or removed a snapshot, have it open and close the "
          "replica first");
    }
  }

  // Newer releases of Longhorn hold a lock as long as a replica is open.
  void CheckLock(const std::string& name) {
    const Result<io::File> lock = files_.Open(Path(name), {});
    if (!lock.ok()) return;
    if (files_.TryLock(lock.value()).code() == ErrorCode::kBusy) {
      Refuse("a process has " + Shown(name) +
             " locked: the replica is in use; detach the volume first");
    }
    files_.Close(lock.value());
  }

  // What is left of the first name of a layer that has its second one.
  bool IsLeftover(const std::string& file_name) const {
    const std::string mapped = MapLayerName(file_name);
    return mapped != file_name && there_.contains(mapped) &&
           there_.contains(mapped + std::string(kMetaSuffix));
  }

  void ReadLayers() {
    for (const std::string& name : there_) {
      const std::string layer =
          name.ends_with(kMetaSuffix) ? name.substr(0, name.size() - kMetaSuffix.size()) : name;
      if (!IsLayerFile(layer) || !IsLeftover(layer)) continue;
      if (found_.leftovers.empty() || found_.leftovers.back() != layer) {
        found_.leftovers.push_back(layer);
      }
    }
    for (const std::string& name : there_) {
      if (IsLayerFile(name) && !IsLeftover(name) &&
          !there_.contains(name + std::string(kMetaSuffix))) {
        Note(Shown(name) + " has no .meta and counts for nothing");
      }
      if (!name.ends_with(kMetaSuffix)) continue;
      const std::string file_name = name.substr(0, name.size() - kMetaSuffix.size());
      if (!IsLayerFile(file_name) || IsLeftover(file_name)) continue;
      if (!there_.contains(file_name)) {
        Note(Shown(name) + " is of a layer that is not there, and counts for nothing");
        continue;
      }
      if (IsImage(file_name, kLonghornHead) && file_name != found_.volume.head) {
        Note(Shown(file_name) +
             " is a head that Longhorn does not use any more, and counts for nothing");
        continue;
      }
      ReadLayer(file_name, name);
    }
  }

  void ReadLayer(const std::string& file_name, const std::string& meta_name) {
    LonghornLayer layer;
    layer.meta.name = file_name;
    layer.mapped = MapLayerName(file_name);
    const Result<std::string> text = io::ReadWholeFile(files_, Path(meta_name), kMetadataBytesMax);
    Result<Json> parsed = text.ok() ? Json::Parse(text.value()) : Result<Json>(text.status());
    if (parsed.ok() && !parsed.value().is_object()) {
      parsed = Status(ErrorCode::kCorrupt, "is no JSON object");
    }
    if (!parsed.ok()) {
      unreadable_[file_name] = Shown(meta_name) + ": " + parsed.status().message();
      return;
    }
    LayerMeta& meta = layer.meta;
    meta.other = parsed.Take();
    const Result<std::string> name = meta.other.String("Name", "");
    const Result<std::string> parent = meta.other.String("Parent", "");
    const Result<bool> removed = meta.other.Bool("Removed", false);
    const Result<bool> user_created = meta.other.Bool("UserCreated", false);
    const Result<std::string> created = meta.other.String("Created", "");
    for (const Status& status :
         {parent.status(), removed.status(), user_created.status(), created.status()}) {
      if (status.ok()) continue;
      unreadable_[file_name] = Shown(meta_name) + ": " + status.message();
      return;
    }
    if (name.ok() && !name.value().empty() && name.value() != file_name) {
      Note(Shown(meta_name) + " says Name " + Shown(name.value()) + ": the file's name counts");
    }
    meta.parent = parent.value();
    meta.removed = removed.value();
    meta.user_created = user_created.value();
    meta.created = created.value();
    read_.emplace(file_name, std::move(layer));
  }

  // A parent that was given its new name already goes by that.
  std::string ParentOf(const LonghornLayer& layer) const {
    const std::string& parent = layer.meta.parent;
    const bool moved = std::find(found_.leftovers.begin(), found_.leftovers.end(), parent) !=
                       found_.leftovers.end();
    return moved ? MapLayerName(parent) : parent;
  }

  // The head's chain, and behind it every other layer, each after those that stand on it.
  void OrderLayers() {
    for (auto& [name, layer] : read_) layer.meta.parent = ParentOf(layer);
    std::set<std::string> used;
    std::string name = found_.volume.head;
    while (!name.empty()) {
      if (const auto broken = unreadable_.find(name); broken != unreadable_.end()) {
        Refuse("the volume's data needs a layer that cannot be read: " + broken->second);
        break;
      }
      const auto layer = read_.find(name);
      if (layer == read_.end()) {
        Refuse("the volume's data needs the layer " + Shown(name) + ", which is not there");
        break;
      }
      if (!used.insert(name).second) {
        Refuse("the chain of parents has a loop at " + Shown(name));
        break;
      }
      found_.layers.push_back(layer->second);
      name = layer->second.meta.parent;
    }
    found_.chain = found_.layers.size();
    if (found_.chain > kLayersMax) {
      Refuse("its chain has " + std::to_string(found_.chain) + " layers, and " +
             std::to_string(kLayersMax) + " are the most");
    }
    for (const auto& [file_name, why] : unreadable_) {
      if (file_name != name) Note(why + "; the layer counts for nothing");
    }
    for (const auto& [file_name, layer] : read_) {
      if (used.contains(file_name)) continue;
      if (IsWhole(layer)) {
        found_.layers.push_back(layer);
      } else {
        Note(Shown(file_name) +
             " stands on a layer that is not there or not whole, and counts for nothing");
      }
    }
  }

  bool IsWhole(const LonghornLayer& layer) const {
    std::string name = layer.meta.parent;
    for (size_t steps = 0; !name.empty(); ++steps) {
      const auto below = read_.find(name);
      if (below == read_.end() || steps > read_.size()) return false;
      name = below->second.meta.parent;
    }
    return true;
  }

  void LookInto(LonghornLayer* layer) {
    const std::string path = Path(layer->meta.name);
    const Result<io::File> file = files_.Open(path, {});
    if (!file.ok()) return Refuse(file.status().message());
    const Result<io::FileInfo> info = files_.Info(file.value());
    if (info.ok()) {
      layer->size_bytes = info.value().size_bytes;
      layer->allocated_bytes = info.value().allocated_bytes;
      const bool renamed_half = layer->mapped != layer->meta.name || !found_.leftovers.empty();
      if (info.value().links > 1 && !options_.copied && !renamed_half) {
        Refuse(Shown(layer->meta.name) +
               " has another name (a hard link): what is written to the one would be in the other. "
               "Longhorn leaves that when it is interrupted, and has to open and close the replica "
               "once; else copy the directory (--copy)");
      }
    }
    const bool below = !layer->meta.parent.empty() || !BackingFile().empty();
    const Status status =
        info.ok() ? CountUnwritten(path, file.value(), below, layer) : info.status();
    files_.Close(file.value());
    if (!status.ok()) Refuse(status.message());
  }

  Status CountUnwritten(const std::string& path, io::File file, bool below, LonghornLayer* layer) {
    uint64_t unwritten = 0;
    RETURN_IF_ERROR(
        ForEachUnwritten(files_, path, file, layer->size_bytes,
                         [&](uint64_t, uint64_t length_bytes) { unwritten += length_bytes; }));
    if (below) layer->unwritten_bytes = unwritten;
    // Whole blocks of 4 KiB: the other extents are looked at for that.
    return ForEachExtent(files_, path, file, {0, layer->size_bytes}, [](uint64_t, uint64_t) {});
  }

  void CheckSizes() {
    const uint64_t size_bytes = found_.volume.size_bytes;
    found_.volume_bytes = RoundUp(size_bytes, kBlockBytes);
    if (size_bytes < kVolumeBytesMin || size_bytes > kVolumeBytesMax) {
      Refuse("the volume is of " + std::to_string(size_bytes) +
             " bytes; here it has 1 MiB to 64 TiB");
    } else if (size_bytes % kBlockBytes != 0) {
      Note("the volume's " + std::to_string(size_bytes) +
           " bytes are no multiple of 4096: it has " + std::to_string(found_.volume_bytes) +
           " here, and what is new reads as zeros");
    }
    for (size_t i = 0; i < found_.layers.size(); ++i) {
      const LonghornLayer& layer = found_.layers[i];
      if (i == 0 && layer.size_bytes < size_bytes) {
        Note("the head is of " + std::to_string(layer.size_bytes) +
             " bytes only; what it lacks of the volume's size reads as what is below");
      }
      if (i > 0 && layer.size_bytes > found_.volume_bytes) {
        Refuse(Shown(layer.meta.name) + " is of " + std::to_string(layer.size_bytes) +
               " bytes, more than the volume's " + std::to_string(size_bytes));
      }
      if (i > 0 && layer.size_bytes < size_bytes) shorter_ = true;
    }
  }

  const std::string& BackingFile() const {
    return options_.backing_file.empty() || found_.volume.backing_file.empty()
               ? found_.volume.backing_file
               : options_.backing_file;
  }

  void CheckBackingFile() {
    const std::string& path = BackingFile();
    if (path.empty()) {
      if (!options_.backing_file.empty()) {
        Refuse("a backing file is given, and the volume has none");
      }
      return;
    }
    const Result<io::File> file = files_.Open(path, {});
    if (!file.ok()) {
      Refuse("the volume stands on the backing file " + Shown(path) + ", which cannot be opened (" +
             file.status().message() +
             "): without it most of the volume would read as zeros. Get the file back from "
             "Longhorn's backing image, and say where it is with --backing-file");
      return;
    }
    char magic[sizeof(kQcowMagic)] = {};
    const Result<size_t> read = files_.ReadAt(file.value(), 0, magic, sizeof(magic));
    files_.Close(file.value());
    if (!read.ok()) return Refuse(read.status().message());
    if (std::equal(std::begin(magic), std::end(magic), std::begin(kQcowMagic))) {
      return Refuse("the backing file " + Shown(path) +
                    " is a qcow2 image: make a raw one of it (qemu-img convert -O raw), and say "
                    "where that is with --backing-file");
    }
    Note("the backing file " + Shown(path) + " is copied into the directory, as its lowest layer");
  }

  void ReadRevision() {
    const Result<std::string> text =
        io::ReadWholeFile(files_, Path(kRevisionName), kRevisionBytesMax);
    if (!text.ok()) {
      if (text.status().code() != ErrorCode::kNotFound) Note(text.status().message());
      return;
    }
    uint64_t revision = 0;
    const char* end = text.value().data() + text.value().size();
    const auto [stop, error] = std::from_chars(text.value().data(), end, revision);
    const bool rest = std::any_of(stop, end, [](char c) { return c != '\0' && c != '\n'; });
    if (error != std::errc() || rest) {
      Note("revision.counter holds no number; it is not needed here");
      return;
    }
    found_.revision = revision;
  }

  void NoteTraps() {
    uint64_t unwritten = 0;
    size_t removed = 0;
    size_t mapped = 0;
    for (const LonghornLayer& layer : found_.layers) {
      unwritten += layer.unwritten_bytes;
      if (layer.meta.removed) ++removed;
      if (layer.mapped != layer.meta.name) ++mapped;
    }
    if (unwritten > 0) {
      Note(std::to_string(unwritten) +
           " bytes are allocated and were never written: they read as zeros, whatever is below, as "
           "they do in Longhorn");
    }
    if (removed > 0) {
      Note(std::to_string(removed) +
           " of the layers are of snapshots that Longhorn had removed and "
           "not merged; that is done once the volume may be written to");
    }
    if (mapped > 0) {
      Note(
          std::to_string(mapped) +
          " snapshots have names that are none here, and get others; what they were called is kept "
          "as the label " +
          std::string(kLonghornNameLabel));
    }
    if (shorter_) {
      Note(
          "the volume was expanded: layers are of different sizes, and a shorter one has nothing "
          "behind its end");
    }
    if (found_.layers.size() > found_.chain) {
      Note(std::to_string(found_.layers.size() - found_.chain) +
           " layers are of other branches, which the head does not stand on");
    }
  }

  io::FileSystem& files_;
  const LonghornOptions& options_;
  LonghornReplica found_;
  std::set<std::string> there_;
  std::map<std::string, LonghornLayer> read_;
  std::map<std::string, std::string> unreadable_;  // why
  bool shorter_ = false;
};

Status CopyRange(io::FileSystem& files, io::File from, io::File to, uint64_t offset_bytes,
                 uint64_t length_bytes, std::vector<char>* buffer, const CopyProgress& progress) {
  buffer->resize(kCopyBytes);
  for (uint64_t done = 0; done < length_bytes;) {
    const size_t step = std::min<uint64_t>(kCopyBytes, length_bytes - done);
    const Result<size_t> read = files.ReadOnce(from, offset_bytes + done, buffer->data(), step);
    if (!read.ok()) return read.status();
    if (read.value() == 0) break;  // the file's end
    RETURN_IF_ERROR(files.WriteAt(to, offset_bytes + done, buffer->data(), read.value()));
    done += read.value();
    if (!progress(read.value())) return {ErrorCode::kCancelled, "it was cancelled"};
  }
  return Status::Ok();
}

Status CopySparse(io::FileSystem& files, io::File from, io::File to, const CopyProgress& progress) {
  const Result<io::FileInfo> info = files.Info(from);
  if (!info.ok()) return info.status();
  const uint64_t size_bytes = info.value().size_bytes;
  std::vector<char> buffer;
  std::vector<io::FileExtent> extents;
  for (uint64_t at = 0; at < size_bytes;) {
    RETURN_IF_ERROR(files.Extents(from, at, size_bytes - at, kCopyExtents, &extents));
    for (const io::FileExtent& extent : extents) {
      const uint64_t begin = std::max(at, extent.offset_bytes);
      const uint64_t end = std::min(size_bytes, extent.offset_bytes + extent.length_bytes);
      if (begin >= end) continue;
      RETURN_IF_ERROR(extent.unwritten
                          ? files.Allocate(to, begin, end - begin)
                          : CopyRange(files, from, to, begin, end - begin, &buffer, progress));
      at = end;
    }
    if (extents.size() < kCopyExtents) break;
  }
  RETURN_IF_ERROR(files.Truncate(to, size_bytes));
  return files.Sync(to);
}

}  // namespace

Status LonghornAccept::Add(const std::string& what) {
  if (what == "dirty") {
    dirty = true;
  } else if (what == "rebuilding") {
    rebuilding = true;
  } else if (what == "error") {
    error = true;
  } else {
    return {ErrorCode::kInvalidArgument,
            "to accept is 'dirty', 'rebuilding' or 'error', and not " + Shown(what)};
  }
  return Status::Ok();
}

Status LonghornReplica::Obstacle(const LonghornAccept& accept) const {
  std::string all;
  bool never = false;
  for (const LonghornProblem& problem : problems) {
    const bool accepted = (problem.kind == "dirty" && accept.dirty) ||
                          (problem.kind == "rebuilding" && accept.rebuilding) ||
                          (problem.kind == "error" && accept.error);
    if (accepted) continue;
    never |= problem.kind.empty();
    all += (all.empty() ? "" : "; ") + problem.message;
  }
  if (all.empty()) return Status::Ok();
  return {never ? ErrorCode::kCorrupt : ErrorCode::kUnavailable, directory + ": " + all};
}

Json LonghornReplica::ToJson() const {
  Json all = Json::Array();
  for (size_t i = 0; i < layers.size(); ++i) {
    const LonghornLayer& layer = layers[i];
    const Json* labels = layer.meta.other.Find("Labels");
    const bool some = labels != nullptr && labels->is_object();
    all.Append(Json::Object()
                   .Set("file", layer.meta.name)
                   .Set("layer", i == 0 ? std::string() : SnapshotNameOf(layer.mapped))
                   .Set("parent", layer.meta.parent)
                   .Set("sizeBytes", layer.size_bytes)
                   .Set("allocatedBytes", layer.allocated_bytes)
                   .Set("unwrittenBytes", layer.unwritten_bytes)
                   .Set("removed", layer.meta.removed)
                   .Set("userCreated", layer.meta.user_created)
                   .Set("created", layer.meta.created)
                   .Set("labels", some ? *labels : Json::Object()));
  }
  Json noted = Json::Array();
  for (const std::string& note : notes) noted.Append(note);
  Json wrong = Json::Array();
  for (const LonghornProblem& problem : problems) {
    wrong.Append(Json::Object().Set("kind", problem.kind).Set("message", problem.message));
  }
  return Json::Object()
      .Set("directory", directory)
      .Set("sizeBytes", volume.size_bytes)
      .Set("volumeBytes", volume_bytes)
      .Set("chain", static_cast<uint64_t>(chain))
      .Set("revision", revision ? Json(*revision) : Json())
      .Set("backingFile", volume.backing_file)
      .Set("layers", std::move(all))
      .Set("notes", std::move(noted))
      .Set("problems", std::move(wrong));
}

Result<LonghornReplica> ReadLonghorn(io::FileSystem& files, const std::string& directory,
                                     const LonghornOptions& options) {
  return LonghornReader(files, directory, options).Read();
}

std::string MapLayerName(const std::string& file_name) {
  if (IsHeadName(file_name) || IsSnapshotName(file_name) ||
      !IsImage(file_name, kLonghornSnapshot)) {
    return file_name;
  }
  const std::string name =
      file_name.substr(kLonghornSnapshot.size(),
                       file_name.size() - kLonghornSnapshot.size() - kLonghornImage.size());
  std::string stem;
  for (const char c : name.substr(0, kMappedStemBytesMax)) {
    const bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      c == '-' || c == '_';
    stem += good ? c : '-';
  }
  return SnapshotFileName(stem + "-" + HexOfHash(name, kMappedHashDigits));
}

Status CopySparseFile(io::FileSystem& files, const std::string& from, const std::string& to,
                      const CopyProgress& progress) {
  const Result<io::File> source = files.Open(from, {});
  if (!source.ok()) return source.status();
  const Result<io::File> target = files.Open(to, {.write = true, .create = true, .truncate = true});
  Status status = target.status();
  if (target.ok()) {
    status = CopySparse(files, source.value(), target.value(), progress);
    files.Close(target.value());
  }
  files.Close(source.value());
  return status.Within(to);
}

}  // namespace ankole::replica

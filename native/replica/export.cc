#include "replica/export.h"

#include <algorithm>
#include <memory>
#include <set>
#include <vector>

#include "base/crc32c.h"
#include "base/limits.h"
#include "base/units.h"
#include "replica/adopt.h"
#include "replica/chain.h"
#include "replica/layer.h"
#include "replica/mask_file.h"
#include "replica/replica.h"
#include "replica/sum_file.h"

namespace ankole::replica {
namespace {

constexpr std::string_view kExporting = ".exporting";
constexpr uint64_t kExportStepBytes = 1 * kMiB;

struct Run {
  uint64_t begin_bytes = 0;
  uint64_t end_bytes = 0;
};

std::string DirectoryAbove(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

Status RemoveAside(io::FileSystem& files, const std::string& directory) {
  const Result<std::vector<std::string>> names = files.List(directory);
  if (!names.ok()) {
    return names.status().code() == ErrorCode::kNotFound ? Status::Ok() : names.status();
  }
  for (const std::string& name : names.value()) {
    RETURN_IF_ERROR(files.Remove(Join(directory, name)));
  }
  return files.RemoveDirectory(directory);
}

// What the runs of `all` have that those of `without` do not; both in order.
std::vector<Run> Subtract(const std::vector<Run>& all, const std::vector<Run>& without) {
  std::vector<Run> left;
  size_t next = 0;
  for (const Run& run : all) {
    uint64_t at = run.begin_bytes;
    while (next < without.size() && without[next].end_bytes <= at) ++next;
    for (size_t i = next; i < without.size() && without[i].begin_bytes < run.end_bytes; ++i) {
      if (without[i].begin_bytes > at) left.push_back({at, without[i].begin_bytes});
      at = std::max(at, without[i].end_bytes);
    }
    if (at < run.end_bytes) left.push_back({at, run.end_bytes});
  }
  return left;
}

class Exporter {
 public:
  Exporter(io::FileSystem& files, const std::string& directory, const ExportOptions& options,
           const CopyProgress& progress)
      : files_(files), directory_(directory), options_(options), progress_(progress) {}

  Status ReadLayers() {
    const Result<std::string> text =
        io::ReadWholeFile(files_, Join(directory_, kVolumeMetaName), kMetadataBytesMax);
    if (!text.ok()) return text.status();
    Result<VolumeMeta> volume = VolumeMeta::Parse(text.value());
    if (!volume.ok()) return volume.status().Within(directory_);
    volume_ = volume.Take();
    if (!options_.snapshot.empty()) return ReadSnapshot();
    Result<std::vector<LayerMeta>> chain = ReadChain(files_, directory_, volume_);
    if (!chain.ok()) return chain.status();
    layers_ = chain.Take();
    chain_ = layers_.size();
    return ReadBranches();
  }

  // Longhorn opens no longer one. Where it is cut is what has to go.
  Status CheckLength() {
    if (chain_ <= kLonghornLayersMax) return Status::Ok();
    const std::string where = "its chain has " + std::to_string(chain_) +
                              " layers, and Longhorn opens " + std::to_string(kLonghornLayersMax) +
                              ": from " + SnapshotNameOf(layers_[kLonghornLayersMax].name) +
                              " down it is too long. Delete " +
                              std::to_string(chain_ - kLonghornLayersMax) +
                              " snapshots, attach the volume and let it merge them";
    if (!options_.any_length) return {ErrorCode::kUnsupported, directory_ + ": " + where};
    notes_.push_back(where);
    return Status::Ok();
  }

  Status WriteTo(const std::string& target) {
    target_ = target;
    for (size_t i = 0; i < layers_.size(); ++i) RETURN_IF_ERROR(WriteLayer(i));
    const LayerMeta& head = layers_.front();
    VolumeMeta volume;
    volume.size_bytes = RoundUp(volume_.size_bytes, kBlockBytes);
    volume.head = HeadName(0);
    volume.parent = NameThere(head.parent);
    if (volume.size_bytes != volume_.size_bytes) {
      notes_.push_back("the volume's size is rounded up to whole blocks of 4096 bytes");
    }
    size_bytes_ = volume.size_bytes;
    return io::ReplaceFile(files_, Join(target_, kVolumeMetaName), volume.Write());
  }

  Json Outcome(const std::string& target) const {
    Json notes = Json::Array();
    for (const std::string& note : notes_) notes.Append(note);
    return Json::Object()
        .Set("directory", target)
        .Set("sizeBytes", size_bytes_)
        .Set("chain", static_cast<uint64_t>(chain_))
        .Set("layers", static_cast<uint64_t>(layers_.size()))
        .Set("copiedBytes", copied_bytes_)
        .Set("maskedBytes", masked_bytes_)
        .Set("notes", std::move(notes));
  }

 private:
  // An empty head on the snapshot, and nothing that does not lie under it.
  Status ReadSnapshot() {
    LayerMeta head;
    head.name = std::string();
    head.parent = SnapshotFileName(options_.snapshot);
    layers_.push_back(head);
    for (std::string name = head.parent; !name.empty();) {
      Result<LayerMeta> layer = ReadMeta(name);
      if (!layer.ok()) return layer.status();
      if (layers_.size() > kLayersMax) return {ErrorCode::kCorrupt, directory_ + ": has a loop"};
      if (layers_.size() == 1 && layer.value().removed) {
        return {ErrorCode::kNotFound,
                directory_ + ": has no snapshot " + options_.snapshot + " any more"};
      }
      name = layer.value().parent;
      layers_.push_back(layer.Take());
    }
    layers_.front().created = layers_[1].created;
    const Result<io::FileInfo> info = files_.Info(Join(directory_, layers_[1].name));
    if (!info.ok()) return info.status();
    volume_.size_bytes = std::min(info.value().size_bytes, volume_.size_bytes);
    chain_ = layers_.size();
    return Status::Ok();
  }

  Result<LayerMeta> ReadMeta(const std::string& name) {
    const std::string file_name = name + std::string(kMetaSuffix);
    const Result<std::string> text =
        io::ReadWholeFile(files_, Join(directory_, file_name), kMetadataBytesMax);
    if (!text.ok()) return text.status();
    Result<LayerMeta> layer = LayerMeta::Parse(file_name, text.value());
    return layer.ok() ? layer : Result<LayerMeta>(layer.status().Within(directory_));
  }

  // Layers that the head does not stand on. One that cannot be read counts for nothing here either.
  Status ReadBranches() {
    const Result<std::vector<std::string>> names = files_.List(directory_);
    if (!names.ok()) return names.status();
    std::map<std::string, LayerMeta> others;
    std::set<std::string> known;
    for (const LayerMeta& layer : layers_) known.insert(layer.name);
    for (const std::string& name : names.value()) {
      if (!IsSnapshotName(name) || known.contains(name)) continue;
      Result<LayerMeta> layer = ReadMeta(name);
      if (layer.ok()) others[name] = layer.Take();
    }
    for (bool more = true; more;) {
      more = false;
      for (auto at = others.begin(); at != others.end();) {
        const bool whole = at->second.parent.empty() || known.contains(at->second.parent);
        if (whole) {
          known.insert(at->first);
          layers_.push_back(at->second);
          at = others.erase(at);
          more = true;
        } else {
          ++at;
        }
      }
    }
    for (const auto& [name, layer] : others) {
      notes_.push_back("the layer " + name + " stands on one that is not there: left out");
    }
    return Status::Ok();
  }

  std::string NameThere(const std::string& name) const {
    if (name.empty()) return name;
    const auto given = options_.names.find(SnapshotNameOf(name));
    if (given == options_.names.end()) return name;
    const std::string there = SnapshotFileName(given->second);
    const bool taken = std::any_of(layers_.begin(), layers_.end(),
                                   [&](const LayerMeta& layer) { return layer.name == there; });
    return IsSnapshotName(there) && !taken ? there : name;
  }

  Status WriteLayer(size_t index) {
    const LayerMeta& layer = layers_[index];
    const std::string name = index == 0 ? HeadName(0) : NameThere(layer.name);
    const std::string to = Join(target_, name);
    RETURN_IF_ERROR(CreateLayerFile(files_, to, 0));
    const Result<io::File> target = files_.Open(to, {.write = true});
    if (!target.ok()) return target.status();
    Status status = layer.name.empty()
                        ? files_.Truncate(target.value(), RoundUp(volume_.size_bytes, kBlockBytes))
                        : CopyLayer(layer, index == 0, target.value());
    if (status.ok()) status = files_.Sync(target.value());
    files_.Close(target.value());
    RETURN_IF_ERROR(status);
    LayerMeta meta = layer;
    meta.name = name;
    meta.parent = NameThere(layer.parent);
    return io::ReplaceFile(files_, to + std::string(kMetaSuffix), meta.Write());
  }

  Status CopyLayer(const LayerMeta& layer, bool head, io::File target) {
    const std::string path = Join(directory_, layer.name);
    const Result<io::File> source = files_.Open(path, {});
    if (!source.ok()) return source.status();
    SumFile sums;
    Status status = CopyLayerFrom(layer, head, source.value(), target, &sums);
    if (sums.open()) sums.Close(files_);
    files_.Close(source.value());
    return status;
  }

  Status CopyLayerFrom(const LayerMeta& layer, bool head, io::File source, io::File target,
                       SumFile* sums) {
    const std::string path = Join(directory_, layer.name);
    const Result<io::FileInfo> info = files_.Info(source);
    if (!info.ok()) return info.status();
    // The head of a volume that was about to grow may be longer than the volume.
    const uint64_t size_bytes = std::min(info.value().size_bytes, volume_.size_bytes);
    Result<SumFile> opened =
        SumFile::Open(files_, path + std::string(kSumSuffix), DivideUp(size_bytes, kRegionBytes));
    // Without, there is nothing to verify by.
    if (opened.ok()) *sums = opened.Take();
    if (head) RETURN_IF_ERROR(CheckNoneBad(*sums));
    std::vector<Run> data;
    RETURN_IF_ERROR(
        ForEachExtent(files_, path, source, {0, size_bytes}, [&](uint64_t at, uint64_t length) {
          data.push_back({at, at + length});
        }));
    for (const Run& run : data) RETURN_IF_ERROR(CopyRun(layer, run, source, target, *sums));
    if (!layer.parent.empty()) RETURN_IF_ERROR(WriteMasks(path, size_bytes, data, target));
    return files_.Truncate(target, RoundUp(size_bytes, kBlockBytes));
  }

  // Those of the layers below are marked in the head's file as well.
  Status CheckNoneBad(const SumFile& sums) {
    if (!sums.open()) return Status::Ok();
    auto page = std::make_unique<SumPage>();
    for (const uint64_t region : sums.bad_regions()) {
      SumPageState state = SumPageState::kEmpty;
      RETURN_IF_ERROR(sums.ReadPage(files_, region, page.get(), &state));
      if (state == SumPageState::kDamaged) return Damaged(region * kRegionBlocks);
      if (state == SumPageState::kEmpty) continue;
      for (size_t block = 0; block < kRegionBlocks; ++block) {
        if (page->sums[block] == kSumBad) return Damaged(region * kRegionBlocks + block);
      }
    }
    return Status::Ok();
  }

  Status Damaged(uint64_t block) const {
    return {ErrorCode::kCorrupt,
            directory_ + ": the block at " + std::to_string(block * kBlockBytes) +
                " does not match its checksum: export another replica of the volume, or attach "
                "and scrub it"};
  }

  Status CopyRun(const LayerMeta& layer, const Run& run, io::File source, io::File target,
                 const SumFile& sums) {
    buffer_.resize(kExportStepBytes);
    for (uint64_t at = run.begin_bytes; at < run.end_bytes;) {
      // One region's page at a time.
      const uint64_t end =
          std::min({run.end_bytes, at + kExportStepBytes, (at / kRegionBytes + 1) * kRegionBytes});
      const Result<size_t> read = files_.ReadOnce(source, at, buffer_.data(), end - at);
      if (!read.ok()) return read.status();
      if (read.value() != end - at) {
        return {ErrorCode::kIoError, Join(directory_, layer.name) + ": became shorter"};
      }
      if (sums.open()) RETURN_IF_ERROR(Verify(at, end, sums));
      RETURN_IF_ERROR(files_.WriteAt(target, at, buffer_.data(), end - at));
      copied_bytes_ += end - at;
      if (!progress_(end - at)) return {ErrorCode::kCancelled, "the export was cancelled"};
      at = end;
    }
    return Status::Ok();
  }

  Status Verify(uint64_t begin_bytes, uint64_t end_bytes, const SumFile& sums) {
    const uint64_t region = begin_bytes / kRegionBytes;
    if (region >= sums.regions()) return Status::Ok();
    SumPageState state = SumPageState::kEmpty;
    RETURN_IF_ERROR(sums.ReadPage(files_, region, page_.get(), &state));
    // What is not known is not verified, as reads are not.
    if (state != SumPageState::kWhole) return Status::Ok();
    for (uint64_t at = begin_bytes; at < end_bytes; at += kBlockBytes) {
      const uint32_t stored = page_->sums[at / kBlockBytes % kRegionBlocks];
      if (stored == kSumNone) continue;
      const uint64_t bytes = std::min<uint64_t>(kBlockBytes, end_bytes - at);
      const uint32_t is = StoredSum(Crc32c(buffer_.data() + (at - begin_bytes), bytes));
      if (stored == kSumBad || is != stored) return Damaged(at / kBlockBytes);
    }
    return Status::Ok();
  }

  // Longhorn reads no masks: what hides the layers below is written there.
  Status WriteMasks(const std::string& path, uint64_t size_bytes, const std::vector<Run>& data,
                    io::File target) {
    Result<MaskFile> masks = MaskFile::Open(files_, path + std::string(kMaskSuffix),
                                            DivideUp(volume_.size_bytes, kBlockBytes));
    if (!masks.ok()) {
      return masks.status().code() == ErrorCode::kNotFound ? Status::Ok() : masks.status();
    }
    std::vector<Run> masked;
    masks.value().ForEachRun([&](uint64_t block, uint64_t blocks) {
      const uint64_t end =
          std::min(RoundUp(size_bytes, kBlockBytes), (block + blocks) * kBlockBytes);
      if (block * kBlockBytes < end) masked.push_back({block * kBlockBytes, end});
    });
    masks.value().Close(files_);
    const std::vector<char> zeros(kExportStepBytes, '\0');
    for (const Run& run : Subtract(masked, data)) {
      for (uint64_t at = run.begin_bytes; at < run.end_bytes;) {
        const uint64_t step = std::min<uint64_t>(zeros.size(), run.end_bytes - at);
        RETURN_IF_ERROR(files_.WriteAt(target, at, zeros.data(), step));
        masked_bytes_ += step;
        at += step;
        if (!progress_(0)) return {ErrorCode::kCancelled, "the export was cancelled"};
      }
    }
    return Status::Ok();
  }

  io::FileSystem& files_;
  const std::string directory_;
  const ExportOptions& options_;
  const CopyProgress& progress_;
  std::string target_;
  VolumeMeta volume_;
  std::vector<LayerMeta> layers_;  // from the head down, then other branches
  size_t chain_ = 0;
  uint64_t size_bytes_ = 0;
  uint64_t copied_bytes_ = 0;
  uint64_t masked_bytes_ = 0;
  std::vector<char> buffer_;
  std::unique_ptr<SumPage> page_ = std::make_unique<SumPage>();
  std::vector<std::string> notes_;
};

// Opening it finishes what a crash left: names that were not given, a merge.
Status Settle(io::Reactor& reactor, const std::string& directory) {
  Result<std::unique_ptr<Replica>> opened =
      Replica::Open(reactor.files(), reactor, directory, false);
  if (!opened.ok()) return opened.status();
  // Of one that is not confirmed no layer ever changed.
  const bool adopted = IsAdopted(reactor.files(), directory);
  const bool unclean = opened.value()->unclean() && !adopted;
  const bool suspect = opened.value()->suspect();
  const Status closed = Replica::Close(opened.Take(), false);
  if (unclean || suspect) {
    return {ErrorCode::kUnavailable,
            directory +
                ": was not stopped clean, or a sync of it failed: attach the volume and "
                "detach it, and export it then"};
  }
  return closed;
}

}  // namespace

Result<Json> ExportLonghorn(io::Reactor& reactor, const std::string& directory,
                            const std::string& target, const ExportOptions& options,
                            const CopyProgress& progress) {
  io::FileSystem& files = reactor.files();
  if (files.Info(target).ok()) {
    return Status(ErrorCode::kAlreadyExists, target + ": exists; name a directory to be made");
  }
  RETURN_IF_ERROR(Settle(reactor, directory));
  // An attachment meanwhile waits for the end of this.
  const DirectoryLock lock(files, directory);
  RETURN_IF_ERROR(lock.status());
  Exporter exporter(files, directory, options, progress);
  RETURN_IF_ERROR(exporter.ReadLayers());
  RETURN_IF_ERROR(exporter.CheckLength());
  const std::string aside = target + std::string(kExporting);
  RETURN_IF_ERROR(RemoveAside(files, aside));
  RETURN_IF_ERROR(files.MakeDirectory(aside));
  Status status = exporter.WriteTo(aside);
  if (status.ok()) status = files.SyncDirectory(aside);
  if (status.ok()) status = files.Rename(aside, target);
  if (!status.ok()) {
    // What stays behind the next export to there deletes.
    (void)RemoveAside(files, aside).ok();
    return status;
  }
  RETURN_IF_ERROR(files.SyncDirectory(DirectoryAbove(target)));
  return exporter.Outcome(target);
}

}  // namespace ankole::replica

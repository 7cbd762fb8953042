#include "sim/layers_now.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "base/crc32c.h"
#include "replica/mask_file.h"
#include "replica/record_file.h"
#include "replica/sum_file.h"
#include "sim/still_files.h"

namespace ankole::sim {
namespace {

constexpr char kMergeJournal[] = "merge";
constexpr char kMergedSuffix[] = ".merged";

// Two layers of which the upper one's files are being named: the lower one goes.
struct Merged {
  std::string lower;
  std::string upper;
  std::string parent;  // of the lower one
};

Status ReadMasks(io::FileSystem& files, const std::string& path, uint64_t blocks,
                 std::vector<bool>* masked) {
  Result<replica::MaskFile> masks = replica::MaskFile::Open(files, path, blocks);
  if (!masks.ok()) {
    return masks.status().code() == ErrorCode::kNotFound ? Status::Ok() : masks.status();
  }
  masks.value().ForEachRun([&](uint64_t block, uint64_t count) {
    masked->resize(blocks);
    std::fill_n(masked->begin() + static_cast<ptrdiff_t>(block), count, true);
  });
  masks.value().Close(files);
  return Status::Ok();
}

}  // namespace

Result<LayersNow> LayersNow::Read(Disk& disk, const std::string& directory, bool while_named) {
  StillFiles files(disk);
  const Result<std::vector<std::string>> listed = files.List(directory);
  if (!listed.ok()) return listed.status();
  const std::set<std::string> there(listed.value().begin(), listed.value().end());
  LayersNow layers;
  layers.disk_ = &disk;
  const auto inode = [&](const std::string& name) {
    InodePtr found;
    return disk.Lookup(directory + "/" + name, &found) < 0 ? nullptr : found;
  };
  // With nothing but a head no file needs to be read.
  const auto snapshot = there.lower_bound("volume-snap-");
  if (snapshot == there.end() || !snapshot->starts_with("volume-snap-")) {
    const auto head = there.lower_bound("volume-head-");
    if (head == there.end() || !replica::IsHeadName(*head)) {
      return Status(ErrorCode::kNotFound, directory + ": there is no head");
    }
    Layer layer;
    layer.meta.name = *head;
    layer.data = inode(*head);
    if (layer.data == nullptr) {
      return Status(ErrorCode::kNotFound, directory + ": there is no head");
    }
    layer.sums = inode(*head + std::string(replica::kSumSuffix));
    layers.size_bytes_ = layer.size_bytes = layer.data->size_bytes;
    layers.chain_.push_back(std::move(layer));
    return layers;
  }
  const auto read = [&](const std::string& name) {
    return io::ReadWholeFile(files, directory + "/" + name, kMetadataBytesMax);
  };
  Merged merged;
  if (there.contains(kMergeJournal)) {
    const Result<std::string> text = read(kMergeJournal);
    const Result<Json> journal = text.ok() ? Json::Parse(text.value()) : text.status();
    if (!journal.ok()) return journal.status();
    const Result<bool> names = journal.value().Bool("names", false);
    if (!names.ok()) return names.status();
    if (names.value() && !while_named) {
      return Status(ErrorCode::kBusy, directory + ": a merge gives names");
    }
    if (names.value()) {
      merged = {journal.value().String("lower").value(), journal.value().String("upper").value(),
                journal.value().String("parent").value()};
    }
  }
  const Result<std::string> text = read(std::string(replica::kVolumeMetaName));
  if (!text.ok()) return text.status();
  const Result<replica::VolumeMeta> volume = replica::VolumeMeta::Parse(text.value());
  if (!volume.ok()) return volume.status();
  const Result<replica::RecordState> record =
      replica::RecordFile::Read(files, directory + "/" + std::string(replica::kRecordName));
  if (!record.ok()) return record.status();
  // From a switch until its files have their names the record is ahead of volume.meta.
  std::string name = volume.value().head;
  if (record.value().head != 0) name = replica::HeadName(record.value().head - 1);
  if (!there.contains(name)) name = volume.value().head;
  const std::string& before = volume.value().head;
  layers.named_ = name == before;
  // kNotFound: it has no description, or no data.
  const auto read_layer = [&](const std::string& file_name, bool renamed) -> Result<Layer> {
    const std::string meta_name = file_name + std::string(replica::kMetaSuffix);
    const Result<std::string> meta_text = read(meta_name);
    if (!meta_text.ok()) return meta_text.status();
    Result<replica::LayerMeta> meta = replica::LayerMeta::Parse(meta_name, meta_text.value());
    if (!meta.ok()) return meta.status();
    Layer layer;
    layer.meta = meta.Take();
    const auto path = [&](std::string_view suffix) {
      const std::string own = file_name + std::string(suffix);
      // Or is merged with the one below, whose files get its name.
      if (file_name == merged.upper) {
        const bool sums = suffix == replica::kSumSuffix;
        const std::string from = sums ? own + kMergedSuffix : merged.lower + std::string(suffix);
        if (there.contains(from)) return from;
      }
      return renamed && !there.contains(own) ? before + std::string(suffix) : own;
    };
    layer.data = inode(path(""));
    layer.sums = inode(path(replica::kSumSuffix));
    if (layer.data == nullptr) {
      return Status(ErrorCode::kNotFound, directory + ": layer " + file_name + " has no data");
    }
    // What a file has behind the end of the volume it has of an expansion that was cut short.
    layer.size_bytes = std::min(layer.data->size_bytes, volume.value().size_bytes);
    const Status masks = ReadMasks(files, directory + "/" + path(replica::kMaskSuffix),
                                   DivideUp(layer.size_bytes, kBlockBytes), &layer.masked);
    if (!masks.ok()) return masks;
    if (file_name == merged.upper) layer.meta.parent = merged.parent;
    return layer;
  };
  std::set<std::string> seen;
  bool discards = false;
  while (!name.empty()) {
    // The layer that was the head may be called so still, or some of its files; but for one that a
    // revert left.
    const bool renamed = layers.chain_.size() == 1 && !layers.named_ && !discards;
    Result<Layer> layer = read_layer(name, renamed);
    if (!layer.ok()) return layer.status();
    if (layers.chain_.empty()) discards = replica::DiscardedBy(layer.value().meta) == before;
    layer.value().sealed =
        !layers.chain_.empty() && !(layers.chain_.size() == 1 && record.value().unsealed);
    seen.insert(name);
    name = layer.value().meta.parent;
    layers.chain_.push_back(layer.Take());
    if (layers.chain_.size() > there.size()) {
      return Status(ErrorCode::kCorrupt, directory + ": its layers go round in circles");
    }
  }
  layers.size_bytes_ = layers.chain_.front().size_bytes;
  for (const std::string& file : there) {
    if (!file.ends_with(replica::kMetaSuffix)) continue;
    const std::string other = file.substr(0, file.size() - replica::kMetaSuffix.size());
    if (!replica::IsSnapshotName(other) || seen.contains(other) || other == merged.lower) continue;
    Result<Layer> layer = read_layer(other, false);
    // Its data goes first, and comes last.
    if (layer.status().code() == ErrorCode::kNotFound) continue;
    if (!layer.ok()) return layer.status();
    layer.value().sealed = true;
    layers.branches_.push_back(layer.Take());
  }
  return layers;
}

Result<LayersNow> LayersNow::Branch(const Layer& layer) const {
  LayersNow branch;
  branch.disk_ = disk_;
  branch.size_bytes_ = size_bytes_;
  branch.named_ = named_;
  branch.chain_.push_back(layer);
  while (!branch.chain_.back().meta.parent.empty()) {
    const std::string& parent = branch.chain_.back().meta.parent;
    const auto is_it = [&](const Layer& other) { return other.meta.name == parent; };
    auto found = std::find_if(chain_.begin(), chain_.end(), is_it);
    if (found == chain_.end()) {
      found = std::find_if(branches_.begin(), branches_.end(), is_it);
      if (found == branches_.end()) {
        return Status(ErrorCode::kNotFound, "layer " + parent + " is missing");
      }
    }
    branch.chain_.push_back(*found);
  }
  return branch;
}

size_t LayersNow::Children(const Layer& layer) const {
  const auto stands = [&](const Layer& other) { return other.meta.parent == layer.meta.name; };
  return static_cast<size_t>(std::count_if(chain_.begin(), chain_.end(), stands) +
                             std::count_if(branches_.begin(), branches_.end(), stands));
}

std::optional<size_t> LayersNow::Find(const std::string& snapshot) const {
  for (size_t i = 1; i < chain_.size(); ++i) {
    if (chain_[i].snapshot() == snapshot) return i;
  }
  return std::nullopt;
}

LayersNow::Place LayersNow::PlaceOf(uint64_t block, size_t from) const {
  for (size_t i = from; i < chain_.size(); ++i) {
    const Layer& layer = chain_[i];
    const auto page = layer.data->pages.find(block);
    if (page != layer.data->pages.end() && page->second.kind == PageKind::kData) {
      return {i, &page->second};
    }
    // The bottom has nothing to hide.
    if (i + 1 < chain_.size() && layer.Masks(block)) return {i, nullptr};
  }
  return {chain_.size() - 1, nullptr};
}

const std::byte* LayersNow::DataOf(uint64_t block, size_t from) const {
  static constexpr std::byte kZeros[kBlockBytes] = {};
  const Place place = PlaceOf(block, from);
  const bool data = place.page != nullptr && place.page->kind == PageKind::kData;
  return data ? place.page->data.get() : kZeros;
}

uint32_t LayersNow::SumOf(uint64_t block, const Place& place) const {
  // A block is marked as bad in the layer that was the head then.
  for (size_t i = 0; i <= place.layer; ++i) {
    const uint32_t sum = SumOfLayer(i, block);
    if (i == place.layer || sum == replica::kSumBad) return sum;
  }
  return replica::kSumNone;
}

uint32_t LayersNow::SumOfLayer(size_t at, uint64_t block) const {
  const Inode* const file = chain_[at].sums.get();
  const uint64_t region = block / replica::kRegionBlocks;
  replica::SumPage page = {};
  if (file == nullptr || block * kBlockBytes >= chain_[at].size_bytes) return replica::kSumNone;
  (void)disk_->Read(*file, replica::SumPageOffset(region), &page, sizeof(page));
  const bool whole = replica::CheckSumPage(page, region) == replica::SumPageState::kWhole;
  return whole ? page.sums[block % replica::kRegionBlocks] : replica::kSumNone;
}

std::vector<uint64_t> LayersNow::Blocks(size_t from) const {
  std::vector<uint64_t> blocks;
  for (size_t i = from; i < chain_.size(); ++i) {
    for (const auto& [block, page] : chain_[i].data->pages) {
      if (page.kind == PageKind::kData) blocks.push_back(block);
    }
  }
  std::sort(blocks.begin(), blocks.end());
  blocks.erase(std::unique(blocks.begin(), blocks.end()), blocks.end());
  return blocks;
}

std::string LayersNow::Describe(uint64_t block) const {
  static constexpr const char* kKinds[] = {"hole", "unwritten", "data"};
  std::string text;
  for (size_t i = 0; i < chain_.size(); ++i) {
    const Layer& layer = chain_[i];
    const auto page = layer.data->pages.find(block);
    std::string has;
    if (page != layer.data->pages.end()) {
      has = std::string(" ") + kKinds[static_cast<size_t>(page->second.kind)];
      if (page->second.kind == PageKind::kData) {
        has += " of CRC " + std::to_string(Crc32c(page->second.data.get(), kBlockBytes));
      }
      if (page->second.differs) has += ", not synced";
    }
    if (layer.Masks(block)) has += " masked";
    const uint32_t sum = SumOfLayer(i, block);
    if (sum > replica::kSumBad) has += " to be of CRC " + std::to_string(sum);
    if (sum == replica::kSumBad) has += " marked bad";
    if (has.empty() && i > 0) continue;
    text += (text.empty() ? "" : ", ") + layer.meta.name + (layer.meta.removed ? " (removed)" : "");
    text += (i > 0 && !layer.sealed ? " (not sealed):" : ":") + has;
  }
  return text;
}

std::vector<replica::LayerMeta> LayersNow::Metas(size_t from) const {
  std::vector<replica::LayerMeta> metas;
  for (size_t i = from; i < chain_.size(); ++i) metas.push_back(chain_[i].meta);
  return metas;
}

}  // namespace ankole::sim

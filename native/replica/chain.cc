#include "replica/chain.h"

#include <algorithm>

#include "base/units.h"
#include "replica/mask_file.h"

namespace ankole::replica {

Result<std::vector<LayerMeta>> ReadChain(io::FileSystem& files, const std::string& directory,
                                         const VolumeMeta& volume) {
  std::vector<LayerMeta> layers;
  std::set<std::string> seen;
  std::string name = volume.head;
  // Loops and lengths are ResolveChain's to refuse; here they must only end.
  while (!name.empty() && layers.size() <= kLayersMax && seen.insert(name).second) {
    const std::string file_name = name + std::string(kMetaSuffix);
    const std::string path = directory + "/" + file_name;
    Result<std::string> text = io::ReadWholeFile(files, path, kMetadataBytesMax);
    if (!text.ok()) {
      if (text.status().code() != ErrorCode::kNotFound) return text.status();
      break;
    }
    Result<LayerMeta> layer = LayerMeta::Parse(file_name, text.value());
    if (!layer.ok()) return layer.status().Within(path);
    name = layer.value().parent;
    layers.push_back(layer.Take());
  }
  Result<std::vector<LayerMeta>> chain = ResolveChain(volume, layers);
  if (!chain.ok()) return chain.status().Within(directory);
  return chain;
}

Chain::Chain(Chain&& other) noexcept { *this = std::move(other); }

Chain& Chain::operator=(Chain&& other) noexcept {
  layers_ = std::move(other.layers_);
  size_bytes_ = other.size_bytes();
  return *this;
}

void Chain::Grow(uint64_t size_bytes) {
  CHECK(size_bytes >= this->size_bytes());
  size_bytes_ = head().size_bytes = size_bytes;
}

Result<Chain> Chain::Open(io::FileSystem& files, const std::string& directory,
                          const VolumeMeta& volume, const std::vector<LayerMeta>& layers,
                          bool direct) {
  CHECK(!layers.empty());
  Chain chain;
  chain.size_bytes_ = volume.size_bytes;
  Status status = Status::Ok();
  for (auto meta = layers.rbegin(); meta != layers.rend() && status.ok(); ++meta) {
    const bool head = std::next(meta) == layers.rend();
    const std::string path = directory + "/" + meta->name;
    Result<io::File> opened = files.Open(path, {.write = head, .direct = direct, .random = true});
    if (!opened.ok()) {
      status = opened.status();
      break;
    }
    chain.layers_.push_back({.meta = *meta, .file = opened.value()});
    const Result<io::FileInfo> info = files.Info(opened.value());
    if (!info.ok()) {
      status = info.status();
    } else if (head ? info.value().size_bytes < volume.size_bytes
                    : info.value().size_bytes > volume.size_bytes) {
      status = Status(ErrorCode::kCorrupt,
                      path + ": is of " + std::to_string(info.value().size_bytes) +
                          " bytes, the volume of " + std::to_string(volume.size_bytes));
    } else {
      // The head of a volume that was about to grow may be longer: by a hole.
      chain.layers_.back().size_bytes = std::min(info.value().size_bytes, volume.size_bytes);
    }
  }
  if (!status.ok()) {
    chain.Close(files);
    return status;
  }
  return chain;
}

void Chain::Close(io::FileSystem& files) {
  for (Layer& layer : layers_) {
    if (layer.file.valid() && !layer.alias) files.Close(layer.file);
    layer.file = {};
  }
}

Status Chain::BuildMap(io::FileSystem& files, const std::string& directory, BlockMap* map) {
  const uint64_t blocks = this->blocks();
  for (size_t index = 1; index < layers_.size(); ++index) {
    const Layer& layer = layers_[index];
    const std::string path = directory + "/" + layer.meta.name;
    // A layer's data stands above its own mask.
    Result<MaskFile> masks = MaskFile::Open(files, path + std::string(kMaskSuffix), blocks);
    if (masks.ok()) {
      masks.value().ForEachRun(
          [map](uint64_t block, uint64_t count) { map->Set(block, count, BlockMap::kZero); });
      masks.value().Close(files);
    } else if (masks.status().code() != ErrorCode::kNotFound) {
      return masks.status();
    }
    RETURN_IF_ERROR(ForEachExtent(files, path, layer.file, {0, layer.size_bytes},
                                  [map, index](uint64_t offset, uint64_t length) {
                                    map->Set(offset / kBlockBytes, DivideUp(length, kBlockBytes),
                                             static_cast<uint16_t>(index));
                                  }));
  }
  map->Compact();
  return Status::Ok();
}

}  // namespace ankole::replica

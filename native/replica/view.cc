#include "replica/view.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/crc32c.h"
#include "base/limits.h"
#include "base/units.h"
#include "replica/layer.h"
#include "replica/mask_file.h"

namespace ankole::replica {

class View::Pages {
 public:
  explicit Pages(const View& view) : view_(view), pages_(view.layers_.size()) {}

  // What is kept of the block, which lies in that layer: its checksum, kSumNone or kSumBad.
  uint32_t SumOf(uint64_t block, uint16_t layer) {
    const uint64_t region = block / kRegionBlocks;
    if (region != region_) {
      std::fill(pages_.begin(), pages_.end(), nullptr);
      region_ = region;
    }
    const size_t at = block % kRegionBlocks;
    // A block is marked as bad in the layer that was the head then, whatever layer it lies in, and
    // if it lies in none.
    for (size_t above = layer == kNowhere ? 0 : layer + size_t{1}; above < pages_.size(); ++above) {
      const SumFile* file = view_.layers_[above].sums.get();
      if (file == nullptr || !file->MayHoldBad(region)) continue;
      if (Page(above).sums[at] == kSumBad) return kSumBad;
    }
    return layer >= pages_.size() ? kSumNone : Page(layer).sums[at];
  }

 private:
  const SumPage& Page(size_t layer) {
    std::unique_ptr<SumPage>& page = pages_[layer];
    if (page != nullptr) return *page;
    page = std::make_unique<SumPage>();
    const SumFile* file = view_.layers_[layer].sums.get();
    SumPageState state = SumPageState::kEmpty;
    if (file != nullptr && !file->ReadPage(view_.files_, region_, page.get(), &state).ok()) {
      state = SumPageState::kDamaged;
    }
    if (state != SumPageState::kWhole) {
      const bool bad =
          state == SumPageState::kDamaged && file != nullptr && file->MayHoldBad(region_);
      std::fill_n(page->sums, kRegionBlocks, bad ? kSumBad : kSumNone);
    }
    return *page;
  }

  const View& view_;
  uint64_t region_ = UINT64_MAX;
  std::vector<std::unique_ptr<SumPage>> pages_;
};

Result<std::unique_ptr<View>> View::Open(io::FileSystem& files, const std::string& directory,
                                         const std::vector<LayerMeta>& layers, uint64_t size_bytes,
                                         bool checksums, bool difference) {
  std::unique_ptr<View> view(new View(files));
  view->size_bytes_ = size_bytes;
  view->difference_ = difference;
  const uint64_t blocks = DivideUp(size_bytes, kBlockBytes);
  RETURN_IF_ERROR(view->map_.Reserve(blocks));
  view->map_.Set(0, blocks, kNowhere);
  for (auto meta = layers.rbegin(); meta != layers.rend(); ++meta) {
    RETURN_IF_ERROR(view->OpenLayer(directory, *meta, checksums));
  }
  view->map_.Compact();
  return view;
}

View::~View() {
  for (Layer& layer : layers_) {
    if (layer.file.valid()) files_.Close(layer.file);
    if (layer.sums != nullptr) layer.sums->Close(files_);
  }
}

Status View::OpenLayer(const std::string& directory, const LayerMeta& meta, bool checksums) {
  const std::string path = directory + "/" + meta.name;
  const auto index = static_cast<uint16_t>(layers_.size());
  Result<io::File> file = files_.Open(path, {.random = true});
  if (!file.ok()) return file.status();
  layers_.push_back({file.value(), nullptr});
  const Result<io::FileInfo> info = files_.Info(file.value());
  if (!info.ok()) return info.status();
  // A layer's data stands above its own mask.
  Result<MaskFile> masks =
      MaskFile::Open(files_, path + std::string(kMaskSuffix), DivideUp(size_bytes_, kBlockBytes));
  if (masks.ok()) {
    masks.value().ForEachRun(
        [this](uint64_t block, uint64_t count) { map_.Set(block, count, kMasked); });
    masks.value().Close(files_);
  } else if (masks.status().code() != ErrorCode::kNotFound) {
    return masks.status();
  }
  RETURN_IF_ERROR(
      ForEachExtent(files_, path, file.value(), {0, std::min(size_bytes_, info.value().size_bytes)},
                    [this, index](uint64_t offset, uint64_t length) {
                      map_.Set(offset / kBlockBytes, DivideUp(length, kBlockBytes), index);
                    }));
  if (!checksums) return Status::Ok();
  Result<SumFile> sums =
      SumFile::Open(files_, path + std::string(kSumSuffix),
                    DivideUp(std::min(size_bytes_, info.value().size_bytes), kRegionBytes));
  if (sums.ok()) {
    layers_.back().sums = std::make_unique<SumFile>(sums.Take());
    return Status::Ok();
  }
  const ErrorCode code = sums.status().code();
  return code == ErrorCode::kNotFound || code == ErrorCode::kCorrupt ? Status::Ok() : sums.status();
}

bool View::MayHoldBad(uint64_t region) const {
  return std::any_of(layers_.begin(), layers_.end(), [&](const Layer& layer) {
    return layer.sums != nullptr && layer.sums->MayHoldBad(region);
  });
}

BlockMap::Run View::Find(uint64_t block, uint64_t blocks_max) const {
  const uint64_t blocks = DivideUp(size_bytes_, kBlockBytes);
  if (block >= blocks) return {kNowhere, blocks_max};
  return map_.Find(block, std::min(blocks_max, blocks - block));
}

uint64_t View::BlockBytes(uint64_t block) const {
  const uint64_t begin = block * kBlockBytes;
  return begin < size_bytes_ ? std::min<uint64_t>(kBlockBytes, size_bytes_ - begin) : kBlockBytes;
}

Status View::ReadRun(uint16_t layer, uint64_t offset_bytes, std::byte* to, uint64_t length_bytes,
                     bool once) const {
  size_t got = 0;
  if (layer < layers_.size()) {
    const io::File file = layers_[layer].file;
    Result<size_t> read = once ? files_.ReadOnce(file, offset_bytes, to, length_bytes)
                               : files_.ReadAt(file, offset_bytes, to, length_bytes);
    if (!read.ok()) return read.status();
    got = read.value();
  }
  std::memset(to + got, 0, length_bytes - got);
  return Status::Ok();
}

Status View::Read(ReplicaOperation* operation) const {
  const uint64_t begin = operation->offset_bytes;
  const uint64_t end = begin + operation->length_bytes;
  const uint64_t first = begin / kBlockBytes;
  const uint64_t last = DivideUp(end, kBlockBytes);
  for (uint64_t block = first; block < last;) {
    const BlockMap::Run run = Find(block, last - block);
    const uint64_t from = std::max(begin, block * kBlockBytes);
    const uint64_t to = std::min(end, (block + run.blocks) * kBlockBytes);
    RETURN_IF_ERROR(
        ReadRun(run.layer, from, operation->data + (from - begin), to - from, operation->once));
    block += run.blocks;
  }
  Pages pages(*this);
  for (uint64_t block = first; block < last; ++block) {
    const uint64_t block_begin = block * kBlockBytes;
    const uint64_t block_end = block_begin + BlockBytes(block);
    const uint64_t from = std::max(begin, block_begin);
    const uint64_t to = std::min(end, block_begin + kBlockBytes);
    const uint16_t layer = Find(block, 1).layer;
    const uint32_t kept = pages.SumOf(block, layer);
    const bool whole = from == block_begin && to == block_end;
    const std::byte* data = operation->data + (from - begin);
    const uint32_t crc32c =
        kept != kSumNone || operation->checksums != nullptr ? Crc32c(data, to - from) : 0;
    if (operation->checksums != nullptr) operation->checksums[block - first] = crc32c;
    if (kept == kSumNone) continue;
    uint32_t of_whole = crc32c;
    if (!whole) {
      std::array<std::byte, kBlockBytes> bytes;
      RETURN_IF_ERROR(
          ReadRun(layer, block_begin, bytes.data(), BlockBytes(block), operation->once));
      of_whole = Crc32c(bytes.data(), BlockBytes(block));
    }
    if (kept == kSumBad || kept != StoredSum(of_whole)) {
      return Status(ErrorCode::kCorrupt, "block " + std::to_string(block) +
                                             " of a snapshot does not match its checksum");
    }
  }
  operation->checksums_filled = operation->checksums != nullptr;
  return Status::Ok();
}

Status View::Sum(ReplicaOperation* operation) const {
  const auto blocks = static_cast<uint32_t>(DivideUp(operation->length_bytes, kBlockBytes));
  const uint64_t first = operation->offset_bytes / kBlockBytes;
  const uint64_t end = operation->offset_bytes + operation->length_bytes;
  wire::SumsEncoder sums(operation->sums, blocks);
  Pages pages(*this);
  for (uint64_t block = first; block < first + blocks;) {
    const BlockMap::Run run = Find(block, first + blocks - block);
    const uint64_t from = block * kBlockBytes;
    const uint64_t to = std::min(end, (block + run.blocks) * kBlockBytes);
    std::byte* data = operation->data + (from - operation->offset_bytes);
    RETURN_IF_ERROR(ReadRun(run.layer, from, data, to - from, operation->once));
    for (const uint64_t run_end = block + run.blocks; block < run_end; ++block) {
      const uint64_t bytes = std::min<uint64_t>(kBlockBytes, end - block * kBlockBytes);
      const uint32_t crc32c =
          Crc32c(operation->data + (block * kBlockBytes - operation->offset_bytes), bytes);
      const uint32_t kept = bytes == BlockBytes(block) ? pages.SumOf(block, run.layer) : kSumNone;
      sums.Set(static_cast<uint32_t>(block - first), crc32c, run.layer >= layers_.size(),
               kept != kSumNone && kept != StoredSum(crc32c));
    }
  }
  return Status::Ok();
}

void View::Extents(ReplicaOperation* operation) const {
  const uint64_t end = operation->offset_bytes + operation->length_bytes;
  uint64_t at = operation->offset_bytes;
  while (at < end) {
    const uint64_t block = at / kBlockBytes;
    // Block by region, as one that is bad does not read as zeros wherever it lies.
    const uint64_t region_end = (block / kRegionBlocks + 1) * kRegionBlocks;
    const uint64_t blocks_max = std::min(DivideUp(end, kBlockBytes), region_end) - block;
    const BlockMap::Run run = Find(block, blocks_max);
    const uint64_t run_end = std::min(end, (block + run.blocks) * kBlockBytes);
    const bool hole = run.layer >= layers_.size() && !MayHoldBad(block / kRegionBlocks);
    const bool zero = hole && (!difference_ || run.layer == kMasked);
    BlockExtent* last =
        operation->extents_count > 0 ? &operation->extents[operation->extents_count - 1] : nullptr;
    if (last != nullptr && last->hole == hole && last->zero == zero) {
      last->length_bytes += run_end - at;
    } else {
      if (operation->extents_count == operation->extents_max) return;
      operation->extents[operation->extents_count++] = {run_end - at, hole, zero};
    }
    at = run_end;
  }
}

}  // namespace ankole::replica

#include "replica/mask_file.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/crc32c.h"

namespace ankole::replica {
namespace {

// A sector as docs/internals/replica-format.md has it. One of zeros has no bit set.
struct MaskSector {
  uint8_t bits[kMaskBitsBytes];
  uint64_t first_block;
  uint32_t reserved;
  uint32_t checksum;  // CRC32C of what is before it
};
static_assert(offsetof(MaskSector, bits) == 0);
static_assert(offsetof(MaskSector, first_block) == 496);
static_assert(offsetof(MaskSector, reserved) == 504);
static_assert(offsetof(MaskSector, checksum) == 508);
static_assert(sizeof(MaskSector) == kMaskSectorBytes);

constexpr size_t kMaskExtentsAtATime = 256;
// Sectors that one write covers at most.
constexpr uint64_t kMaskSectorsAtATime = 2048;

uint64_t FileBytes(uint64_t volume_blocks) {
  return RoundUp(DivideUp(volume_blocks, kMaskSectorBlocks) * kMaskSectorBytes, kBlockBytes);
}

bool IsZero(const uint8_t* bytes, size_t count) {
  return bytes[0] == 0 && std::memcmp(bytes, bytes + 1, count - 1) == 0;
}

}  // namespace

MaskFile::~MaskFile() { CHECK(!file_.valid()); }

MaskFile::MaskFile(MaskFile&& other) noexcept { *this = std::move(other); }

MaskFile& MaskFile::operator=(MaskFile&& other) noexcept {
  if (this == &other) return *this;
  CHECK(!file_.valid());
  memory_ = std::move(other.memory_);
  file_ = std::exchange(other.file_, {});
  image_ = std::exchange(other.image_, nullptr);
  bytes_ = std::exchange(other.bytes_, 0);
  blocks_ = other.blocks_;
  unsynced_ = other.unsynced_;
  failed_ = other.failed_;
  return *this;
}

Status MaskFile::Reserve(uint64_t volume_blocks) {
  const uint64_t bytes = FileBytes(volume_blocks);
  RETURN_IF_ERROR(memory_.Grow(bytes, "the masks"));
  image_ = memory_.as<uint8_t>();
  blocks_ = volume_blocks;
  bytes_ = bytes;
  return Status::Ok();
}

// With its space taken, as when it is made.
Status MaskFile::Extend(io::FileSystem& files, const std::string& path, uint64_t blocks_before,
                        uint64_t blocks, bool* sync_failed) {
  const Status status = io::ExtendFile(files, path, FileBytes(blocks_before), FileBytes(blocks),
                                       io::NewPart::kAllocated, sync_failed);
  return status.code() == ErrorCode::kNotFound ? Status::Ok() : status;
}

Status MaskFile::Grow(io::FileSystem& files, uint64_t volume_blocks) {
  CHECK(file_.valid() && volume_blocks >= blocks_);
  // It may have been made while the volume grew, for the size before.
  const Result<io::FileInfo> info = files.Info(file_);
  if (!info.ok()) return info.status();
  const uint64_t bytes = FileBytes(volume_blocks);
  if (info.value().size_bytes < bytes) {
    RETURN_IF_ERROR(files.Allocate(file_, bytes_, bytes - bytes_).Within("masks"));
    unsynced_ = true;
  }
  return Reserve(volume_blocks);
}

Result<MaskFile> MaskFile::Open(io::FileSystem& files, const std::string& path,
                                uint64_t volume_blocks) {
  Result<io::File> opened = files.Open(path, {.write = true});
  if (!opened.ok()) return opened.status();
  MaskFile masks;
  Status status = masks.Reserve(volume_blocks);
  masks.file_ = opened.value();
  if (status.ok()) status = masks.Load(files);
  if (!status.ok()) {
    masks.Close(files);
    return status.Within(path);
  }
  return masks;
}

Result<MaskFile> MaskFile::Create(io::FileSystem& files, const std::string& directory,
                                  const std::string& name, uint64_t volume_blocks) {
  // Under another name until its space is taken: a file with this name can be written.
  const std::string path = directory + "/" + name;
  const std::string aside = path + ".tmp";
  Result<io::File> opened = files.Open(aside, {.write = true, .create = true, .truncate = true});
  if (!opened.ok()) return opened.status();
  MaskFile masks;
  Status status = masks.Reserve(volume_blocks);
  masks.file_ = opened.value();
  if (status.ok()) status = files.Allocate(masks.file_, 0, masks.bytes_);
  if (status.ok()) status = files.Sync(masks.file_);
  if (status.ok()) status = files.Rename(aside, path);
  if (status.ok()) status = files.SyncDirectory(directory);
  if (!status.ok()) {
    masks.Close(files);
    (void)files.Remove(aside);
    return status.Within(path);
  }
  return masks;
}

void MaskFile::Close(io::FileSystem& files) {
  if (file_.valid()) files.Close(file_);
  file_ = {};
}

// Reads what was ever written: the rest of the file is allocated but unwritten, and stays out of
// memory.
Status MaskFile::Load(io::FileSystem& files) {
  CHECK(image_ != nullptr);
  std::vector<io::FileExtent> extents;
  uint64_t at = 0;
  while (at < bytes_) {
    RETURN_IF_ERROR(files.Extents(file_, at, bytes_ - at, kMaskExtentsAtATime, &extents));
    for (const io::FileExtent& extent : extents) {
      const uint64_t begin = RoundDown(std::max(at, extent.offset_bytes), kMaskSectorBytes);
      const uint64_t end = std::min<uint64_t>(bytes_, extent.offset_bytes + extent.length_bytes);
      if (begin >= end) continue;
      at = end;
      if (extent.unwritten) continue;
      const Result<size_t> got = files.ReadAt(file_, begin, image_ + begin, end - begin);
      if (!got.ok()) return got.status();
    }
    if (extents.size() < kMaskExtentsAtATime) break;
  }
  for (uint64_t sector = 0; sector < bytes_ / kMaskSectorBytes; ++sector) {
    uint8_t* bytes = image_ + sector * kMaskSectorBytes;
    if (IsZero(bytes, kMaskSectorBytes)) continue;
    if (LoadLittle<uint32_t>(bytes + offsetof(MaskSector, checksum)) !=
            Crc32c(bytes, offsetof(MaskSector, checksum)) ||
        LoadLittle<uint64_t>(bytes + offsetof(MaskSector, first_block)) !=
            sector * kMaskSectorBlocks) {
      return Status(ErrorCode::kCorrupt,
                    "checksum of sector " + std::to_string(sector) + " does not match");
    }
  }
  return Status::Ok();
}

bool MaskFile::Get(uint64_t block) const {
  const uint8_t* bits = image_ + block / kMaskSectorBlocks * kMaskSectorBytes;
  const uint64_t bit = block % kMaskSectorBlocks;
  return (bits[bit / 8] >> (bit % 8) & 1) != 0;
}

void MaskFile::ForEachRun(const std::function<void(uint64_t, uint64_t)>& each) const {
  uint64_t run_start = 0;
  uint64_t run_blocks = 0;
  const auto add = [&](uint64_t block, uint64_t blocks) {
    if (run_blocks > 0 && run_start + run_blocks != block) {
      each(run_start, run_blocks);
      run_blocks = 0;
    }
    if (run_blocks == 0) run_start = block;
    run_blocks += blocks;
  };
  for (uint64_t base = 0; base < blocks_; base += kMaskSectorBlocks) {
    const uint8_t* bits = image_ + base / kMaskSectorBlocks * kMaskSectorBytes;
    for (size_t i = 0; i < kMaskBitsBytes; ++i) {
      if (bits[i] == 0) continue;
      for (uint64_t bit = 0; bit < 8; ++bit) {
        const uint64_t block = base + i * 8 + bit;
        if ((bits[i] >> bit & 1) != 0 && block < blocks_) add(block, 1);
      }
    }
  }
  if (run_blocks > 0) each(run_start, run_blocks);
}

Status MaskFile::Set(io::FileSystem& files, uint64_t block, uint64_t blocks) {
  CHECK(file_.valid() && block + blocks <= blocks_);
  if (failed_) return Status(ErrorCode::kIoError, "masks: an earlier write failed");
  const uint64_t end = block + blocks;
  // Sectors that changed and are not written yet.
  uint64_t pending_from = 0;
  uint64_t pending = 0;
  const auto write = [&]() -> Status {
    if (pending == 0) return Status::Ok();
    unsynced_ = true;
    const uint64_t offset = pending_from * kMaskSectorBytes;
    const uint64_t bytes = pending * kMaskSectorBytes;
    pending = 0;
    const Status status = files.WriteAt(file_, offset, image_ + offset, bytes);
    failed_ = !status.ok();
    return status.Within("masks");
  };
  while (block < end) {
    const uint64_t index = block / kMaskSectorBlocks;
    const uint64_t stop = std::min(end, (index + 1) * kMaskSectorBlocks);
    uint8_t* bytes = image_ + index * kMaskSectorBytes;
    bool changed = false;
    for (uint64_t bit = block % kMaskSectorBlocks; block < stop;) {
      const uint64_t count = bit % 8 == 0 && stop - block >= 8 ? 8 : 1;
      const auto ones = static_cast<uint8_t>(count == 8 ? 0xff : 1 << (bit % 8));
      changed |= (bytes[bit / 8] & ones) != ones;
      bytes[bit / 8] |= ones;
      bit += count;
      block += count;
    }
    if (!changed) {
      RETURN_IF_ERROR(write());
      continue;
    }
    StoreLittle(bytes + offsetof(MaskSector, first_block), index * kMaskSectorBlocks);
    StoreLittle(bytes + offsetof(MaskSector, checksum),
                Crc32c(bytes, offsetof(MaskSector, checksum)));
    if (pending == 0) pending_from = index;
    if (++pending == kMaskSectorsAtATime) RETURN_IF_ERROR(write());
  }
  return write();
}

Status MaskFile::Sync(io::FileSystem& files) {
  if (!unsynced_) return Status::Ok();
  const Status status = files.SyncData(file_);
  failed_ |= !status.ok();
  unsynced_ = false;
  return status.Within("masks");
}

}  // namespace ankole::replica

#include "replica/sum_file.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "base/crc32c.h"

namespace ankole::replica {
namespace {

constexpr char kSumMagic[] = "ANKOCRC1";
constexpr size_t kSumMagicBytes = 8;
constexpr uint32_t kSumVersion = 1;
constexpr size_t kVersionAt = 8;
constexpr size_t kChecksumAt = 12;
constexpr size_t kSequenceAt = 16;
constexpr size_t kBlockBytesAt = 24;
constexpr size_t kBadCountAt = 28;
constexpr size_t kBadRegionsAt = 64;
static_assert(kBadRegionsAt + kBadRegionsMax * sizeof(uint64_t) <= kSumSlotBytes);

bool IsZero(const void* bytes, size_t count) {
  const auto* byte = static_cast<const uint8_t*>(bytes);
  return byte[0] == 0 && std::memcmp(byte, byte + 1, count - 1) == 0;
}

// Over the slot with the field itself as zero.
uint32_t SlotChecksum(const std::byte* slot) {
  constexpr uint32_t kZero = 0;
  uint32_t crc = Crc32c(slot, kChecksumAt);
  crc = Crc32c(&kZero, sizeof(kZero), crc);
  const size_t rest_at = kChecksumAt + sizeof(kZero);
  return Crc32c(slot + rest_at, kSumSlotBytes - rest_at, crc);
}

}  // namespace

SumPageState CheckSumPage(const SumPage& page, uint64_t region) {
  if (page.checksum == 0 && IsZero(&page, sizeof(page))) return SumPageState::kEmpty;
  const bool whole =
      page.region == region && page.checksum == Crc32c(&page, offsetof(SumPage, checksum));
  return whole ? SumPageState::kWhole : SumPageState::kDamaged;
}

void SealSumPage(SumPage* page, uint64_t region) {
  page->region = region;
  page->reserved = 0;
  page->checksum = Crc32c(page, offsetof(SumPage, checksum));
  std::memset(page->zero, 0, sizeof(page->zero));
}

Result<SumHeader> SumHeader::Decode(std::span<const std::byte, kSumSlotBytes> slot,
                                    uint64_t regions) {
  const std::byte* bytes = slot.data();
  if (std::memcmp(bytes, kSumMagic, kSumMagicBytes) != 0 ||
      LoadLittle<uint32_t>(bytes + kChecksumAt) != SlotChecksum(bytes)) {
    return Status(ErrorCode::kCorrupt, "the header is not whole");
  }
  const auto version = LoadLittle<uint32_t>(bytes + kVersionAt);
  if (version != kSumVersion || LoadLittle<uint32_t>(bytes + kBlockBytesAt) != kBlockBytes) {
    return Status(ErrorCode::kUnsupported, "checksums of format version " +
                                               std::to_string(version) +
                                               "; this version of Ankole reads version 1");
  }
  SumHeader header;
  header.sequence = LoadLittle<uint64_t>(bytes + kSequenceAt);
  const auto count = LoadLittle<uint32_t>(bytes + kBadCountAt);
  if (count > kBadRegionsMax) return Status(ErrorCode::kCorrupt, "the header counts too much");
  header.bad_regions.reserve(kBadRegionsMax);
  for (uint32_t i = 0; i < count; ++i) {
    const auto region = LoadLittle<uint64_t>(bytes + kBadRegionsAt + i * sizeof(uint64_t));
    const bool ascends = i == 0 || header.bad_regions.back() < region;
    if (region >= regions || !ascends) {
      return Status(ErrorCode::kCorrupt, "the header names a region that cannot be");
    }
    header.bad_regions.push_back(region);
  }
  return header;
}

void SumHeader::Encode(std::span<std::byte, kSumSlotBytes> slot) const {
  CHECK(bad_regions.size() <= kBadRegionsMax);
  std::byte* bytes = slot.data();
  std::memset(bytes, 0, kSumSlotBytes);
  std::memcpy(bytes, kSumMagic, kSumMagicBytes);
  StoreLittle(bytes + kVersionAt, kSumVersion);
  StoreLittle(bytes + kSequenceAt, sequence);
  StoreLittle(bytes + kBlockBytesAt, uint32_t{kBlockBytes});
  StoreLittle(bytes + kBadCountAt, static_cast<uint32_t>(bad_regions.size()));
  for (size_t i = 0; i < bad_regions.size(); ++i) {
    StoreLittle(bytes + kBadRegionsAt + i * sizeof(uint64_t), bad_regions[i]);
  }
  StoreLittle(bytes + kChecksumAt, SlotChecksum(bytes));
}

Result<SumFile> SumFile::Open(io::FileSystem& files, const std::string& path, uint64_t regions) {
  Result<io::File> opened = files.Open(path, {.write = true, .random = true});
  if (!opened.ok()) return opened.status();
  SumFile sums;
  sums.file_ = opened.value();
  sums.regions_ = regions;
  std::byte slots[2][kSumSlotBytes] = {};
  const Result<size_t> got = files.ReadAt(sums.file_, 0, slots, sizeof(slots));
  Status status = got.status();
  bool found = false;
  for (size_t i = 0; i < 2 && status.ok(); ++i) {
    Result<SumHeader> header = SumHeader::Decode(slots[i], regions);
    if (!header.ok() && header.status().code() == ErrorCode::kUnsupported) {
      status = header.status();
    } else if (header.ok() && (!found || header.value().sequence > sums.header_.sequence)) {
      sums.header_ = header.Take();
      found = true;
    }
  }
  if (status.ok() && !found) status = Status(ErrorCode::kCorrupt, "the header is not whole");
  // What an earlier process wrote and did not sync counts as written now.
  sums.unsynced_ = true;
  if (status.ok()) status = sums.WriteTornPage(files);
  if (status.ok()) return sums;
  sums.Close(files);
  return status.Within(path);
}

Result<SumFile> SumFile::Create(io::FileSystem& files, const std::string& directory,
                                const std::string& name, uint64_t regions) {
  // Under another name until it is whole: a file with this name can be believed.
  const std::string path = directory + "/" + name;
  const std::string aside = path + ".tmp";
  Result<io::File> opened = files.Open(aside, {.write = true, .create = true, .truncate = true});
  if (!opened.ok()) return opened.status();
  SumFile sums;
  sums.file_ = opened.value();
  sums.regions_ = regions;
  sums.header_.bad_regions.reserve(kBadRegionsMax);
  std::byte slots[2][kSumSlotBytes] = {};
  sums.header_.Encode(slots[0]);
  Status status = files.Truncate(sums.file_, SumCopyOffset(regions) + kSumPageBytes);
  // Both slots and the copy, as the later changes must find space on a full disk.
  if (status.ok()) status = files.WriteAt(sums.file_, 0, slots, sizeof(slots));
  if (status.ok()) status = files.Allocate(sums.file_, SumCopyOffset(regions), kSumPageBytes);
  if (status.ok()) status = files.Sync(sums.file_);
  if (status.ok()) status = files.Rename(aside, path);
  if (status.ok()) status = files.SyncDirectory(directory);
  if (!status.ok()) {
    sums.Close(files);
    (void)files.Remove(aside);
    return status.Within(path);
  }
  return sums;
}

void SumFile::Close(io::FileSystem& files) {
  if (file_.valid()) files.Close(file_);
  file_ = {};
}

Status SumFile::ReadPage(io::FileSystem& files, uint64_t region, SumPage* page,
                         SumPageState* state) const {
  CHECK(file_.valid());
  if (region >= regions_) {
    // A layer that is shorter than the volume.
    *page = {};
    *state = SumPageState::kEmpty;
    return Status::Ok();
  }
  const Result<size_t> got = files.ReadAt(file_, SumPageOffset(region), page, sizeof(*page));
  if (!got.ok()) return got.status().Within("checksums");
  // A file that was cut short lacks what it does not reach.
  if (got.value() < sizeof(*page)) {
    std::memset(reinterpret_cast<std::byte*>(page) + got.value(), 0, sizeof(*page) - got.value());
  }
  *state = CheckSumPage(*page, region);
  return Status::Ok();
}

Status SumFile::WritePage(io::FileSystem& files, uint64_t region, SumPage* page) {
  CHECK(file_.valid() && region < regions_);
  if (failed_) return Status(ErrorCode::kIoError, "checksums: an earlier write failed");
  SumPage stored;
  SumPageState state = SumPageState::kDamaged;
  RETURN_IF_ERROR(ReadPage(files, region, &stored, &state));
  if (state == SumPageState::kEmpty) {
    if (IsZero(page->sums, sizeof(page->sums))) return Status::Ok();
    // Space first: half a page in the file would look like damage.
    RETURN_IF_ERROR(files.Allocate(file_, SumPageOffset(region), kSumPageBytes));
  } else if (state == SumPageState::kWhole &&
             std::memcmp(stored.sums, page->sums, sizeof(page->sums)) == 0) {
    // What is there was written since the last Sync, or is durable.
    return Status::Ok();
  }
  SealSumPage(page, region);
  if (MayHoldBad(region)) RETURN_IF_ERROR(WriteCopy(files, *page));
  unsynced_ = true;
  return files.WriteAt(file_, SumPageOffset(region), page, sizeof(*page)).Within("checksums");
}

// The copy before may be that of a page which is not durable yet.
Status SumFile::WriteCopy(io::FileSystem& files, const SumPage& page) {
  RETURN_IF_ERROR(Sync(files));
  unsynced_ = true;
  RETURN_IF_ERROR(
      files.WriteAt(file_, SumCopyOffset(regions_), &page, sizeof(page)).Within("checksums"));
  return Sync(files);
}

Status SumFile::WriteTornPage(io::FileSystem& files) {
  SumPage copy;
  const Result<size_t> got = files.ReadAt(file_, SumCopyOffset(regions_), &copy, sizeof(copy));
  if (!got.ok() || got.value() < sizeof(copy) || copy.region >= regions_) return Status::Ok();
  const uint64_t region = copy.region;
  if (CheckSumPage(copy, region) != SumPageState::kWhole || !MayHoldBad(region)) {
    return Status::Ok();
  }
  SumPage stored;
  SumPageState state = SumPageState::kWhole;
  // One that the medium does not give may come back.
  if (!ReadPage(files, region, &stored, &state).ok() || state != SumPageState::kDamaged) {
    return Status::Ok();
  }
  RETURN_IF_ERROR(files.WriteAt(file_, SumPageOffset(region), &copy, sizeof(copy)));
  return Sync(files);
}

Status SumFile::Sync(io::FileSystem& files) {
  if (failed_) return Status(ErrorCode::kIoError, "checksums: an earlier sync failed");
  if (!unsynced_) return Status::Ok();
  const Status status = files.SyncData(file_);
  failed_ = !status.ok();
  unsynced_ = failed_;
  return status.Within("checksums");
}

// Where the copy lies the larger volume has a page, which must not show it. When all pages are
// durable nobody needs it, so that the file serves both sizes.
Status SumFile::Grow(io::FileSystem& files, uint64_t regions) {
  CHECK(file_.valid() && regions >= regions_);
  if (failed_) return Status(ErrorCode::kIoError, "checksums: an earlier write failed");
  if (regions == regions_) return Status::Ok();
  RETURN_IF_ERROR(Sync(files));
  unsynced_ = true;
  // What an earlier attempt left goes first.
  Status status = files.Truncate(file_, SumCopyOffset(regions_) + kSumPageBytes);
  if (status.ok()) status = files.Truncate(file_, SumCopyOffset(regions) + kSumPageBytes);
  if (status.ok()) status = files.Allocate(file_, SumCopyOffset(regions), kSumPageBytes);
  // With the space that it has: for the volume as it was it is the copy's.
  const SumPage zeros = {};
  if (status.ok()) status = files.WriteAt(file_, SumCopyOffset(regions_), &zeros, sizeof(zeros));
  if (!status.ok()) return status.Within("checksums");
  RETURN_IF_ERROR(Sync(files));
  regions_ = regions;
  return Status::Ok();
}

void SumFile::Shrink(uint64_t regions) {
  CHECK(regions <= regions_);
  regions_ = regions;
}

Status SumFile::ForgetFrom(io::FileSystem& files, uint64_t block) {
  const uint64_t region = block / kRegionBlocks;
  SumPage page;
  SumPageState state = SumPageState::kDamaged;
  RETURN_IF_ERROR(ReadPage(files, region, &page, &state));
  if (state != SumPageState::kWhole) return Status::Ok();
  bool any = false;
  for (uint64_t at = block % kRegionBlocks; at < kRegionBlocks; ++at) {
    uint32_t& sum = page.sums[at];
    if (sum == kSumNone || sum == kSumBad) continue;
    sum = kSumNone;
    any = true;
  }
  if (!any) return Status::Ok();
  RETURN_IF_ERROR(WritePage(files, region, &page));
  return Sync(files);
}

bool SumFile::MayHoldBad(uint64_t region) const {
  return std::binary_search(header_.bad_regions.begin(), header_.bad_regions.end(), region);
}

Status SumFile::NoteBad(io::FileSystem& files, uint64_t region, bool bad) {
  CHECK(file_.valid() && region < regions_);
  if (MayHoldBad(region) == bad) return Status::Ok();
  SumHeader next = header_;
  if (bad) {
    if (next.bad_regions.size() == kBadRegionsMax) {
      return Status(ErrorCode::kIoError, "checksums: " + std::to_string(kBadRegionsMax) +
                                             " regions hold damaged blocks already; the disk is "
                                             "to be replaced");
    }
    next.bad_regions.insert(
        std::lower_bound(next.bad_regions.begin(), next.bad_regions.end(), region), region);
  } else {
    std::erase(next.bad_regions, region);
  }
  ++next.sequence;
  return WriteHeader(files, next);
}

Status SumFile::WriteHeader(io::FileSystem& files, const SumHeader& header) {
  if (failed_) return Status(ErrorCode::kIoError, "checksums: an earlier write failed");
  std::byte slot[kSumSlotBytes];
  header.Encode(slot);
  unsynced_ = true;
  RETURN_IF_ERROR(files.WriteAt(file_, header.sequence % 2 * kSumSlotBytes, slot, sizeof(slot))
                      .Within("checksums"));
  RETURN_IF_ERROR(Sync(files));
  header_ = header;
  return Status::Ok();
}

}  // namespace ankole::replica

#include "replica/region_file.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/units.h"
#include "replica/metadata.h"

namespace ankole::replica {
namespace {

constexpr uint64_t kRegionMagic = 0x3147'4552'4f4b'4e41;  // «ANKOREG1»
constexpr uint32_t kRegionVersion = 1;
constexpr uint64_t kSectorsAt = 2 * kRegionHeaderBytes;
// Sectors that are read or made at a time.
constexpr uint32_t kRegionSectorsAtATime = 256;

// A header as docs/internals/replica-format.md has it; the rest of its 4096 bytes is zero.
struct Header {
  uint64_t magic;
  uint32_t version;
  uint32_t checksum;  // CRC32C of all 4096 bytes with this field zero
  uint64_t sequence;  // sequence % 2 is the header's place
  uint8_t reserved[40];
  std::byte slots[wire::kMissingSlotsMax * wire::kMissingSlotBytes];
};
static_assert(offsetof(Header, magic) == 0);
static_assert(offsetof(Header, version) == 8);
static_assert(offsetof(Header, checksum) == 12);
static_assert(offsetof(Header, sequence) == 16);
static_assert(offsetof(Header, reserved) == 24);
static_assert(offsetof(Header, slots) == 64);
static_assert(sizeof(Header) == 64 + 7 * 168);

using HeaderBytes = std::array<std::byte, kRegionHeaderBytes>;

HeaderBytes EncodeHeader(const MissingSlots& slots, uint64_t sequence) {
  Header header = {};
  header.magic = kRegionMagic;
  header.version = kRegionVersion;
  header.sequence = sequence;
  std::byte* at = header.slots;
  for (const wire::MissingSlot& slot : slots) {
    StoreLittle(at, slot.id);
    wire::EncodeRecord(slot.record, std::span<std::byte, wire::kEncodedRecordBytes>(
                                        at + 8, wire::kEncodedRecordBytes));
    at += wire::kMissingSlotBytes;
  }
  HeaderBytes bytes = {};
  std::memcpy(bytes.data(), &header, sizeof(header));
  StoreLittle(bytes.data() + offsetof(Header, checksum), Crc32c(bytes.data(), bytes.size()));
  return bytes;
}

struct DecodedHeader {
  MissingSlots slots;
  uint64_t sequence = 0;
};

Result<DecodedHeader> DecodeHeader(HeaderBytes bytes, uint64_t place) {
  Header header;
  std::memcpy(&header, bytes.data(), sizeof(header));
  StoreLittle<uint32_t>(bytes.data() + offsetof(Header, checksum), 0);
  if (header.magic != kRegionMagic) return Status(ErrorCode::kCorrupt, "no header");
  if (header.checksum != Crc32c(bytes.data(), bytes.size())) {
    return Status(ErrorCode::kCorrupt, "checksum does not match");
  }
  if (header.version != kRegionVersion) {
    return Status(ErrorCode::kUnsupported, "version " + std::to_string(header.version));
  }
  if (header.sequence % 2 != place) return Status(ErrorCode::kCorrupt, "in the other's place");
  DecodedHeader decoded;
  decoded.sequence = header.sequence;
  for (size_t i = 0; i < wire::kMissingSlotsMax; ++i) {
    const std::byte* at = header.slots + i * wire::kMissingSlotBytes;
    decoded.slots[i].id = LoadLittle<uint64_t>(at);
    Result<wire::Record> record = wire::DecodeRecord(
        std::span<const std::byte, wire::kEncodedRecordBytes>(at + 8, wire::kEncodedRecordBytes));
    if (!record.ok()) return record.status();
    decoded.slots[i].record = record.Take();
    for (size_t j = 0; j < i; ++j) {
      if (decoded.slots[i].id != 0 && decoded.slots[j].id == decoded.slots[i].id) {
        return Status(ErrorCode::kCorrupt, "two maps of one replica");
      }
    }
  }
  return decoded;
}

Result<DecodedHeader> ReadHeaders(io::FileSystem& files, io::File file) {
  std::optional<DecodedHeader> best;
  std::string reasons;
  ErrorCode code = ErrorCode::kCorrupt;
  for (uint64_t place = 0; place < 2; ++place) {
    HeaderBytes bytes = {};
    const Result<size_t> got =
        files.ReadAt(file, place * kRegionHeaderBytes, bytes.data(), bytes.size());
    Result<DecodedHeader> header = !got.ok() ? Result<DecodedHeader>(got.status())
                                   : got.value() < bytes.size()
                                       ? Status(ErrorCode::kCorrupt, "cut short")
                                       : DecodeHeader(bytes, place);
    if (header.ok()) {
      if (!best || header.value().sequence > best->sequence) best = header.Take();
    } else {
      // One of a newer version may be the newer one, as with the record.
      if (header.status().code() != ErrorCode::kCorrupt) code = header.status().code();
      reasons += (place == 0 ? "header 0: " : "; header 1: ") + header.status().message();
    }
  }
  if (code != ErrorCode::kCorrupt) return Status(code, reasons);
  if (!best) return Status(code, "neither header is whole (" + reasons + ")");
  return *std::move(best);
}

bool IsZero(const RegionSector& sector) {
  static constexpr RegionSector kZeros = {};
  return std::memcmp(&sector, &kZeros, sizeof(sector)) == 0;
}

// Sets what is not the regions' own. A sector without a bit becomes one of zeros.
void Seal(RegionSector* sector, uint32_t index) {
  sector->reserved = 0;
  sector->first_region = 0;
  sector->checksum = 0;
  if (IsZero(*sector)) return;
  sector->first_region = uint64_t{index} * kRegionSectorRegions;
  sector->checksum = Crc32c(sector, offsetof(RegionSector, checksum));
}

bool IsWhole(const RegionSector& sector, uint32_t index) {
  if (IsZero(sector)) return true;
  return sector.first_region == uint64_t{index} * kRegionSectorRegions && sector.reserved == 0 &&
         sector.checksum == Crc32c(&sector, offsetof(RegionSector, checksum));
}

uint32_t SectorsOf(uint32_t regions) {
  return static_cast<uint32_t>(DivideUp(regions, kRegionSectorRegions));
}

uint64_t FileBytes(uint32_t regions) {
  return RoundUp(kSectorsAt + uint64_t{SectorsOf(regions)} * kRegionSectorBytes, kBlockBytes);
}

Status Fill(io::FileSystem& files, io::File file, uint32_t regions, uint8_t bits) {
  RETURN_IF_ERROR(files.Allocate(file, 0, FileBytes(regions)));
  // Written, not only allocated: what is overwritten later is then data alone, and its sync cheap.
  std::vector<RegionSector> sectors(kRegionSectorsAtATime);
  const auto all = static_cast<uint32_t>((FileBytes(regions) - kSectorsAt) / kRegionSectorBytes);
  for (uint32_t first = 0; first < all; first += kRegionSectorsAtATime) {
    const uint32_t count = std::min(kRegionSectorsAtATime, all - first);
    for (uint32_t i = 0; i < count; ++i) {
      sectors[i] = {};
      for (uint32_t j = 0; j < kRegionSectorRegions; ++j) {
        const uint64_t region = uint64_t{first + i} * kRegionSectorRegions + j;
        sectors[i].regions[j] = region < regions ? bits : 0;
      }
      Seal(&sectors[i], first + i);
    }
    RETURN_IF_ERROR(files.WriteAt(file, kSectorsAt + uint64_t{first} * kRegionSectorBytes,
                                  sectors.data(), count * kRegionSectorBytes));
  }
  for (uint64_t sequence = 0; sequence < 2; ++sequence) {
    const HeaderBytes bytes = EncodeHeader({}, sequence);
    RETURN_IF_ERROR(files.WriteAt(file, sequence * kRegionHeaderBytes, bytes.data(), bytes.size()));
  }
  return files.Sync(file);
}

}  // namespace

Status RegionFile::Create(io::FileSystem& files, const std::string& path, uint32_t regions,
                          uint8_t bits) {
  Result<io::File> opened =
      files.Open(path, {.write = true, .create = true, .truncate = true, .random = true});
  if (!opened.ok()) return opened.status();
  const Status status = Fill(files, opened.value(), regions, bits);
  files.Close(opened.value());
  return status.Within(path);
}

Status RegionFile::Replace(io::FileSystem& files, const std::string& directory, uint32_t regions,
                           uint8_t bits) {
  const std::string path = directory + "/" + std::string(kRegionsName);
  const std::string aside = path + ".tmp";
  Status status = Create(files, aside, regions, bits);
  if (status.ok()) status = files.Rename(aside, path);
  if (status.ok()) return files.SyncDirectory(directory);
  (void)files.Remove(aside).ok();
  return status;
}

Status RegionFile::Extend(io::FileSystem& files, const std::string& path, uint32_t regions_before,
                          uint32_t regions, bool* sync_failed) {
  // Zeros are sectors without a bit. The last one so far may have regions of the new part already:
  // its bytes for these are zero.
  return io::ExtendFile(files, path, FileBytes(regions_before), FileBytes(regions),
                        io::NewPart::kWritten, sync_failed);
}

Result<RegionFile> RegionFile::Open(io::FileSystem& files, const std::string& path,
                                    uint32_t regions, Take take, void* owner, Loaded* loaded) {
  Result<io::File> opened = files.Open(path, {.write = true, .random = true});
  if (!opened.ok()) return opened.status();
  RegionFile file;
  file.file_ = opened.value();
  const Status status = file.Load(files, regions, take, owner, loaded);
  if (!status.ok()) {
    file.Close(files);
    return status.Within(path);
  }
  return file;
}

Status RegionFile::Load(io::FileSystem& files, uint32_t regions, Take take, void* owner,
                        Loaded* loaded) {
  Result<DecodedHeader> header = ReadHeaders(files, file_);
  if (!header.ok()) return header.status();
  slots_ = header.value().slots;
  sequence_ = header.value().sequence;
  std::vector<RegionSector> sectors(kRegionSectorsAtATime);
  for (uint32_t first = 0; first < SectorsOf(regions); first += kRegionSectorsAtATime) {
    const uint32_t count = std::min(kRegionSectorsAtATime, SectorsOf(regions) - first);
    const Result<size_t> got =
        files.ReadAt(file_, kSectorsAt + uint64_t{first} * kRegionSectorBytes, sectors.data(),
                     count * kRegionSectorBytes);
    for (uint32_t i = 0; i < count; ++i) {
      // Cut short, or not readable: as one whose checksum does not match.
      const bool read = got.ok() && (i + 1) * kRegionSectorBytes <= got.value();
      const bool whole = read && IsWhole(sectors[i], first + i);
      if (whole && IsZero(sectors[i])) continue;
      if (!whole) {
        ++loaded->sectors_bad;
        std::memset(sectors[i].regions, 0xff, sizeof(sectors[i].regions));
      }
      const uint32_t region = (first + i) * kRegionSectorRegions;
      take(owner, region, sectors[i].regions, std::min(kRegionSectorRegions, regions - region));
    }
  }
  return Status::Ok();
}

void RegionFile::Close(io::FileSystem& files) {
  if (file_.valid()) files.Close(file_);
  file_ = {};
}

Status RegionFile::Sync(io::FileSystem& files, bool* sync_failed) {
  const Status synced = files.SyncData(file_);
  unsynced_ &= !synced.ok();
  if (synced.ok()) return synced;
  failed_ = *sync_failed = true;
  return {ErrorCode::kIoError, "regions: " + synced.message()};
}

Status RegionFile::Write(io::FileSystem& files, RegionBatch& batch, bool sync, bool* sync_failed) {
  CHECK(file_.valid() && batch.count <= RegionBatch::kSectorsMax);
  *sync_failed = false;
  if (failed_) return {ErrorCode::kIoError, "regions: an earlier sync failed"};
  for (size_t begin = 0; begin < batch.count;) {
    size_t end = begin;
    unsynced_ = true;
    do {
      Seal(&batch.sectors[end], batch.index[end]);
      ++end;
    } while (end < batch.count && batch.index[end] == batch.index[end - 1] + 1);
    RETURN_IF_ERROR(files
                        .WriteAt(file_,
                                 kSectorsAt + uint64_t{batch.index[begin]} * kRegionSectorBytes,
                                 &batch.sectors[begin], (end - begin) * kRegionSectorBytes)
                        .Within("regions"));
    begin = end;
  }
  return sync ? Sync(files, sync_failed) : Status::Ok();
}

Status RegionFile::SyncWritten(io::FileSystem& files, bool* sync_failed) {
  CHECK(file_.valid());
  *sync_failed = false;
  if (failed_) return {ErrorCode::kIoError, "regions: an earlier sync failed"};
  return unsynced_ ? Sync(files, sync_failed) : Status::Ok();
}

Status RegionFile::WriteSlots(io::FileSystem& files, const MissingSlots& slots, bool* sync_failed) {
  CHECK(file_.valid());
  *sync_failed = false;
  if (failed_) return {ErrorCode::kIoError, "regions: an earlier sync failed"};
  const uint64_t sequence = sequence_ + 1;
  const HeaderBytes bytes = EncodeHeader(slots, sequence);
  RETURN_IF_ERROR(
      files.WriteAt(file_, sequence % 2 * kRegionHeaderBytes, bytes.data(), bytes.size())
          .Within("regions"));
  RETURN_IF_ERROR(Sync(files, sync_failed));
  slots_ = slots;
  sequence_ = sequence;
  return Status::Ok();
}

}  // namespace ankole::replica

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "io/file_system.h"

namespace ankole::replica {

// The checksums at rest of a layer, `<layer>.crc`: one CRC32C for each 4 KiB block (rule 9). A page
// holds those of one region, so that what becomes clean together is written together.
// Format: docs/internals/replica-format.md, «checksums».
inline constexpr size_t kRegionBlocks = kRegionBytes / kBlockBytes;
inline constexpr size_t kSumPageBytes = 4608;  // whole sectors of 512
inline constexpr size_t kSumSlotBytes = 4096;
inline constexpr uint64_t kSumPagesAt = 2 * kSumSlotBytes;
// Regions that may hold blocks which are good nowhere. What is more is a disk to be replaced.
inline constexpr size_t kBadRegionsMax = 500;

// Values that are no checksums. A hole in the file is «none».
inline constexpr uint32_t kSumNone = 0;  // not known, or nothing is stored: reads are not verified
inline constexpr uint32_t kSumBad = 1;   // the block is good nowhere, until it is written anew
// How a checksum is kept: the two values that mean something else are moved away.
constexpr uint32_t StoredSum(uint32_t crc32c) {
  return crc32c <= kSumBad ? crc32c ^ 0x80000000U : crc32c;
}

// A page as it lies in the file.
struct SumPage {
  uint32_t sums[kRegionBlocks];
  uint64_t region;
  uint32_t reserved;
  uint32_t checksum;  // CRC32C of what is before it
  uint8_t zero[496];
};
static_assert(offsetof(SumPage, region) == 4096);
static_assert(offsetof(SumPage, reserved) == 4104);
static_assert(offsetof(SumPage, checksum) == 4108);
static_assert(sizeof(SumPage) == kSumPageBytes);

enum class SumPageState {
  kEmpty,   // nothing was ever written: all are «none»
  kWhole,   // its checksum matches
  kDamaged  // torn or rotten: nothing in it is to be believed
};
SumPageState CheckSumPage(const SumPage& page, uint64_t region);
void SealSumPage(SumPage* page, uint64_t region);
constexpr uint64_t SumPageOffset(uint64_t region) { return kSumPagesAt + region * kSumPageBytes; }
// Behind the last page: a copy of the last one written of a region that may hold bad blocks. What a
// power loss tears there must not be forgotten, as it cannot be computed.
constexpr uint64_t SumCopyOffset(uint64_t regions) { return SumPageOffset(regions); }

// What a slot of the header says.
struct SumHeader {
  uint64_t sequence = 0;
  std::vector<uint64_t> bad_regions;  // ascending; each may hold blocks that are kSumBad

  // kCorrupt when it is not whole, kUnsupported for another version.
  static Result<SumHeader> Decode(std::span<const std::byte, kSumSlotBytes> slot, uint64_t regions);
  void Encode(std::span<std::byte, kSumSlotBytes> slot) const;
};

// Blocking; used by one thread at a time, but for file().
class SumFile {
 public:
  // kNotFound where there is none; kCorrupt when neither slot of the header is whole. A page that
  // was torn is written again from its copy.
  static Result<SumFile> Open(io::FileSystem& files, const std::string& path, uint64_t regions);
  // Makes the file, sparse, in the place of one that is there; durable, its name too.
  static Result<SumFile> Create(io::FileSystem& files, const std::string& directory,
                                const std::string& name, uint64_t regions);

  SumFile() = default;
  void Close(io::FileSystem& files);
  bool open() const { return file_.valid(); }
  io::File file() const { return file_; }

  // Of the layer; behind its last region no page says anything.
  uint64_t regions() const { return regions_; }

  // kDamaged comes back as `state`, not as an error.
  Status ReadPage(io::FileSystem& files, uint64_t region, SumPage* page, SumPageState* state) const;
  // Seals and writes it; a page without any checksum leaves a hole as it is. Durable after Sync.
  // kNoSpace: a page that is a hole found no space and still is one.
  Status WritePage(io::FileSystem& files, uint64_t region, SumPage* page);
  // Does nothing when nothing was written since the last. Once it failed it fails for good, as the
  // kernel may have dropped what was written (rule 1).
  Status Sync(io::FileSystem& files);

  // Makes the file fit a larger volume, durably. Nothing else is under way. On failure it fits the
  // volume as it was, as it does after Shrink.
  Status Grow(io::FileSystem& files, uint64_t regions);
  // The volume did not become larger after all.
  void Shrink(uint64_t regions);
  // From that block to the end of its region none that is not bad has a checksum from now on,
  // durably.
  Status ForgetFrom(io::FileSystem& files, uint64_t block);

  // It did: nothing is written any more until the file is opened anew.
  bool sync_failed() const { return failed_; }

  bool MayHoldBad(uint64_t region) const;
  const std::vector<uint64_t>& bad_regions() const { return header_.bad_regions; }
  // Notes durably that the region may hold bad blocks, or that it holds none any more. kIoError
  // when kBadRegionsMax are noted.
  Status NoteBad(io::FileSystem& files, uint64_t region, bool bad);

 private:
  Status WriteHeader(io::FileSystem& files, const SumHeader& header);
  Status WriteCopy(io::FileSystem& files, const SumPage& page);
  Status WriteTornPage(io::FileSystem& files);

  io::File file_;
  uint64_t regions_ = 0;
  SumHeader header_;
  bool unsynced_ = false;
  bool failed_ = false;
};

}  // namespace ankole::replica

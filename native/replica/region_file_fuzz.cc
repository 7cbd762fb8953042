#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "base/crc32c.h"
#include "io/file_system.h"
#include "replica/region_file.h"
#include "replica/region_map.h"

using namespace ankole;
using namespace ankole::replica;

// The input is flags (1 byte: put checksums right), the number of regions (2 bytes), and a file
// `regions`. What is taken must survive being written and read again.
namespace {

// Puts right what chance never hits.
void Repair(std::vector<std::byte>* file) {
  const size_t sectors_at = 2 * kRegionHeaderBytes;
  for (size_t at = 0; at + kRegionHeaderBytes <= std::min(file->size(), sectors_at);
       at += kRegionHeaderBytes) {
    std::byte* header = file->data() + at;
    std::memcpy(header, "ANKOREG1", 8);
    StoreLittle<uint32_t>(header + 8, 1);
    StoreLittle<uint32_t>(header + 12, 0);
    StoreLittle<uint32_t>(header + 12, Crc32c(header, kRegionHeaderBytes));
  }
  for (size_t at = sectors_at; at + kRegionSectorBytes <= file->size(); at += kRegionSectorBytes) {
    std::byte* sector = file->data() + at;
    StoreLittle<uint64_t>(sector + 496,
                          (at - sectors_at) / kRegionSectorBytes * kRegionSectorRegions);
    StoreLittle<uint32_t>(sector + 504, 0);
    StoreLittle<uint32_t>(sector + 508, Crc32c(sector, 508));
  }
}

void Take(void* owner, uint32_t first, const uint8_t* bytes, uint32_t count) {
  static_cast<RegionMap*>(owner)->Load(first, bytes, count);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 3) return 0;
  const uint32_t regions = 1 + LoadLittle<uint16_t>(data + 1) % 4096;
  std::vector<std::byte> content(size - 3);
  if (!content.empty()) std::memcpy(content.data(), data + 3, content.size());
  if ((data[0] & 1) != 0) Repair(&content);

  const int fd = memfd_create("regions", MFD_CLOEXEC);
  CHECK(fd >= 0);
  const std::string path = "/proc/self/fd/" + std::to_string(fd);
  static const auto files = io::MakePosixFileSystem();
  CHECK(files->WriteAt(io::File{fd}, 0, content.data(), content.size()).ok());
  RegionFile::Loaded loaded;
  RegionMap map;
  CHECK(map.Reserve(regions).ok());
  Result<RegionFile> file = RegionFile::Open(*files, path, regions, Take, &map, &loaded);
  if (file.ok()) {
    map.SetSlots(file.value().slots());
    CHECK(map.dirty_regions() == map.Count(kDirtyBit));
    // All that it has, written anew, is read again and without a fault.
    const auto batch = std::make_unique<RegionBatch>();
    bool sync_failed = false;
    for (uint32_t sector = 0; sector < map.sectors(); ++sector) {
      const RegionRange range = map.Sector(sector);
      batch->count = 1;
      batch->index[0] = sector;
      batch->sectors[0] = {};
      for (uint32_t region = range.first; region < range.end; ++region) {
        batch->sectors[0].regions[region - range.first] = map.wanted(region);
      }
      CHECK(file.value().Write(*files, *batch, false, &sync_failed).ok());
    }
    CHECK(file.value().WriteSlots(*files, file.value().slots(), &sync_failed).ok());
    RegionMap again;
    CHECK(again.Reserve(regions).ok());
    RegionFile::Loaded reloaded;
    Result<RegionFile> second = RegionFile::Open(*files, path, regions, Take, &again, &reloaded);
    CHECK(second.ok() && reloaded.sectors_bad == 0);
    CHECK(second.value().slots() == file.value().slots());
    again.SetSlots(second.value().slots());
    for (uint32_t region = 0; region < regions; ++region) {
      CHECK(again.wanted(region) == map.wanted(region));
    }
    second.value().Close(*files);
    file.value().Close(*files);
  }
  close(fd);
  return 0;
}

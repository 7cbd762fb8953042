#include "replica/region_file.h"

#include <array>
#include <map>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "replica/replica_testing.h"

namespace ankole::replica {
namespace {

constexpr uint32_t kRegions = 3 * kRegionSectorRegions - 7;

// What a file shows: the bytes that are not zero.
struct Shown {
  std::map<uint32_t, uint8_t> regions;
  MissingSlots slots;
  uint32_t bad = 0;
  Status status;
  uint8_t at(uint32_t region) const {
    const auto found = regions.find(region);
    return found == regions.end() ? 0 : found->second;
  }
};

Result<RegionFile> OpenFile(io::FileSystem& files, const std::string& path, Shown* shown) {
  RegionFile::Loaded loaded;
  Result<RegionFile> file = RegionFile::Open(
      files, path, kRegions,
      [](void* owner, uint32_t first, const uint8_t* bytes, uint32_t count) {
        EXPECT(first + count <= kRegions);
        for (uint32_t i = 0; i < count; ++i) {
          if (bytes[i] != 0) static_cast<Shown*>(owner)->regions[first + i] = bytes[i];
        }
      },
      shown, &loaded);
  shown->bad = loaded.sectors_bad;
  shown->status = file.status();
  if (file.ok()) shown->slots = file.value().slots();
  return file;
}

Shown Show(io::FileSystem& files, const std::string& path) {
  Shown shown;
  Result<RegionFile> file = OpenFile(files, path, &shown);
  if (file.ok()) file.value().Close(files);
  return shown;
}

void Add(RegionBatch* batch, uint32_t sector, uint32_t at, uint8_t bits) {
  batch->index[batch->count] = sector;
  batch->sectors[batch->count] = {};
  batch->sectors[batch->count].regions[at] = bits;
  ++batch->count;
}

MissingSlots SlotsOf(wire::ReplicaId id, uint64_t generation) {
  MissingSlots slots;
  slots[2].id = id;
  slots[2].record.epoch = {4, 1};
  slots[2].record.generation = generation;
  slots[2].record.members.Add(id);
  slots[2].record.newest_snapshot = "monday";
  return slots;
}

void Flip(io::FileSystem& files, const std::string& path, uint64_t offset) {
  const Result<io::File> file = files.Open(path, {.write = true});
  ASSERT_OK(file);
  char byte = 0;
  ASSERT_OK(files.ReadAt(file.value(), offset, &byte, 1));
  byte ^= 0x40;
  ASSERT_OK(files.WriteAt(file.value(), offset, &byte, 1));
  files.Close(file.value());
}

TEST(replica_region_file, has_its_space_from_the_start) {
  const auto files = io::MakePosixFileSystem();
  const std::string path = test::TemporaryDirectory() + "/regions";
  ASSERT_OK(RegionFile::Create(*files, path, kRegions, 0));
  const io::FileInfo info = files->Info(path).value();
  EXPECT_EQ(info.size_bytes, 3 * 4096U);
  EXPECT(info.allocated_bytes >= info.size_bytes);
  EXPECT(Show(*files, path).regions.empty());
  ASSERT_OK(RegionFile::Create(*files, path, kRegions, kDirtyBit));
  const Shown all = Show(*files, path);
  EXPECT_EQ(all.regions.size(), kRegions);
  EXPECT_EQ(all.at(kRegions - 1), kDirtyBit);
}

TEST(replica_region_file, what_was_written_comes_back) {
  const auto files = io::MakePosixFileSystem();
  const std::string path = test::TemporaryDirectory() + "/regions";
  ASSERT_OK(RegionFile::Create(*files, path, kRegions, 0));
  Shown before;
  Result<RegionFile> file = OpenFile(*files, path, &before);
  ASSERT_OK(file);
  RegionBatch batch;
  Add(&batch, 2, 0, 0x81);
  Add(&batch, 0, 495, 0x05);
  Add(&batch, 1, 7, 0x01);
  bool sync_failed = true;
  ASSERT_OK(file.value().Write(*files, batch, true, &sync_failed));
  EXPECT(!sync_failed);
  for (uint64_t generation = 1; generation < 5; ++generation) {
    ASSERT_OK(file.value().WriteSlots(*files, SlotsOf(0xb, generation), &sync_failed));
  }
  file.value().Close(*files);
  const Shown after = Show(*files, path);
  ASSERT_OK(after.status);
  EXPECT(after.slots == SlotsOf(0xb, 4));
  EXPECT_EQ(after.regions.size(), 3U);
  EXPECT_EQ(after.at(2 * kRegionSectorRegions), 0x81);
  EXPECT_EQ(after.at(495), 0x05);
  EXPECT_EQ(after.at(kRegionSectorRegions + 7), 0x01);
  EXPECT_EQ(after.bad, 0U);
}

TEST(replica_region_file, a_bad_sector_counts_as_dirty_and_missing_everywhere) {
  const auto files = io::MakePosixFileSystem();
  const std::string path = test::TemporaryDirectory() + "/regions";
  for (const uint64_t where :
       {uint64_t{7}, uint64_t{300}, uint64_t{497}, uint64_t{505}, uint64_t{511}}) {
    ASSERT_OK(RegionFile::Create(*files, path, kRegions, 0));
    Shown before;
    Result<RegionFile> file = OpenFile(*files, path, &before);
    ASSERT_OK(file);
    RegionBatch batch;
    Add(&batch, 1, 7, 0x01);
    bool sync_failed = false;
    ASSERT_OK(file.value().Write(*files, batch, true, &sync_failed));
    Flip(*files, path, 2 * kRegionHeaderBytes + kRegionSectorBytes + where);
    const Shown damaged = Show(*files, path);
    ASSERT_OK(damaged.status);
    EXPECT_EQ(damaged.bad, 1U);
    EXPECT_EQ(damaged.regions.size(), kRegionSectorRegions);
    EXPECT_EQ(damaged.at(kRegionSectorRegions), 0xff);
    // Written anew it is good again.
    ASSERT_OK(file.value().Write(*files, batch, true, &sync_failed));
    file.value().Close(*files);
    EXPECT_EQ(Show(*files, path).regions.size(), 1U);
  }
  // A sector of another place, and one of zeros that got a bit.
  ASSERT_OK(RegionFile::Create(*files, path, kRegions, 0));
  Flip(*files, path, 2 * kRegionHeaderBytes + 100);
  EXPECT_EQ(Show(*files, path).bad, 1U);
}

TEST(replica_region_file, a_file_cut_short_has_lost_its_regions) {
  const auto files = io::MakePosixFileSystem();
  const std::string path = test::TemporaryDirectory() + "/regions";
  ASSERT_OK(RegionFile::Create(*files, path, kRegions, 0));
  const auto file = files->Open(path, {.write = true});
  ASSERT_OK(file);
  ASSERT_OK(files->Truncate(file.value(), 2 * kRegionHeaderBytes + kRegionSectorBytes + 100));
  const Shown shown = Show(*files, path);
  ASSERT_OK(shown.status);
  EXPECT_EQ(shown.bad, 2U);
  EXPECT_EQ(shown.at(kRegionSectorRegions - 1), 0);
  EXPECT_EQ(shown.at(kRegions - 1), 0xff);
  ASSERT_OK(files->Truncate(file.value(), 100));
  EXPECT_EQ(Show(*files, path).status.code(), ErrorCode::kCorrupt);
  files->Close(file.value());
  EXPECT_EQ(Show(*files, path + "-none").status.code(), ErrorCode::kNotFound);
}

TEST(replica_region_file, a_damaged_header_falls_back_to_the_other) {
  const auto files = io::MakePosixFileSystem();
  const std::string path = test::TemporaryDirectory() + "/regions";
  for (const uint64_t where : {0, 9, 13, 17, 30, 64, 64 + 2 * 168 + 3, 1239, 1240, 4095}) {
    ASSERT_OK(RegionFile::Create(*files, path, kRegions, 0));
    Shown before;
    Result<RegionFile> file = OpenFile(*files, path, &before);
    ASSERT_OK(file);
    bool sync_failed = false;
    // Sequence 2 in header 0, 3 in header 1.
    ASSERT_OK(file.value().WriteSlots(*files, SlotsOf(0xb, 1), &sync_failed));
    ASSERT_OK(file.value().WriteSlots(*files, SlotsOf(0xb, 2), &sync_failed));
    file.value().Close(*files);
    Flip(*files, path, kRegionHeaderBytes + where);
    EXPECT(Show(*files, path).slots == SlotsOf(0xb, 1));
    Flip(*files, path, where);
    EXPECT_EQ(Show(*files, path).status.code(), ErrorCode::kCorrupt);
  }
}

TEST(replica_region_file, every_cut_leaves_the_old_or_the_new) {
  const auto files = io::MakePosixFileSystem();
  CutFiles cutting(*files);
  const std::string path = test::TemporaryDirectory() + "/regions";
  for (const size_t torn_bytes : {0, 512, 700, 1100}) {
    cutting.torn_bytes = torn_bytes;
    bool done = false;
    for (int cut = 1; !done; ++cut) {
      cutting.Reset(0);
      ASSERT_OK(RegionFile::Create(cutting, path, kRegions, 0));
      Shown before;
      Result<RegionFile> file = OpenFile(cutting, path, &before);
      ASSERT_OK(file);
      bool sync_failed = false;
      ASSERT_OK(file.value().WriteSlots(cutting, SlotsOf(0xb, 1), &sync_failed));
      cutting.Reset(cut);
      RegionBatch batch;
      Add(&batch, 0, 1, 0x01);
      Add(&batch, 1, 1, 0x01);
      const bool marked = file.value().Write(cutting, batch, true, &sync_failed).ok();
      done = file.value().WriteSlots(cutting, SlotsOf(0xc, 2), &sync_failed).ok();
      file.value().Close(cutting);
      const Shown after = Show(*files, path);
      ASSERT_OK(after.status);
      EXPECT(after.slots == SlotsOf(0xc, 2) || (!done && after.slots == SlotsOf(0xb, 1)));
      // At least what was answered; a torn sector counts as dirty.
      for (const uint32_t region : {1U, kRegionSectorRegions + 1}) {
        EXPECT(!marked || (after.at(region) & kDirtyBit) != 0);
      }
      EXPECT(done || cutting.reached());
    }
    EXPECT(cutting.cut > 4);
  }
}

// A file of maps of which syncs can fail, and a change for it.
struct Failing {
  Failing() {
    CHECK(RegionFile::Create(files, path, kRegions, 0).ok());
    Shown before;
    file = OpenFile(files, path, &before).Take();
    Add(&batch, 0, 1, 0x01);
  }
  ~Failing() { file.Close(files); }
  Failing(const Failing&) = delete;
  Failing& operator=(const Failing&) = delete;
  const std::unique_ptr<io::FileSystem> posix = io::MakePosixFileSystem();
  CutFiles files{*posix};
  const std::string path = test::TemporaryDirectory() + "/regions";
  RegionFile file;
  RegionBatch batch;
  bool sync_failed = false;
};

TEST(replica_region_file, a_failed_sync_is_final) {
  Failing on;
  on.files.fail_sync = true;
  EXPECT_EQ(on.file.Write(on.files, on.batch, true, &on.sync_failed).code(), ErrorCode::kIoError);
  EXPECT(on.sync_failed);
  on.files.fail_sync = false;
  EXPECT(!on.file.Write(on.files, on.batch, false, &on.sync_failed).ok());
  EXPECT(!on.file.WriteSlots(on.files, {}, &on.sync_failed).ok());
}

TEST(replica_region_file, what_was_written_without_a_sync_is_synced_when_asked) {
  Failing on;
  ASSERT_OK(on.file.Write(on.files, on.batch, true, &on.sync_failed));
  // There is nothing to sync.
  on.files.fail_sync = true;
  ASSERT_OK(on.file.SyncWritten(on.files, &on.sync_failed));
  ASSERT_OK(on.file.Write(on.files, on.batch, false, &on.sync_failed));
  EXPECT(!on.file.SyncWritten(on.files, &on.sync_failed).ok());
  EXPECT(on.sync_failed);
  on.files.fail_sync = false;
  EXPECT(!on.file.SyncWritten(on.files, &on.sync_failed).ok());
}

TEST(replica_region_file, a_newer_version_is_refused) {
  const auto files = io::MakePosixFileSystem();
  const std::string path = test::TemporaryDirectory() + "/regions";
  ASSERT_OK(RegionFile::Create(*files, path, kRegions, 0));
  const auto file = files->Open(path, {.write = true});
  ASSERT_OK(file);
  std::array<std::byte, kRegionHeaderBytes> header;
  ASSERT_OK(files->ReadAt(file.value(), kRegionHeaderBytes, header.data(), header.size()));
  StoreLittle<uint32_t>(header.data() + 8, 2);
  StoreLittle<uint32_t>(header.data() + 12, 0);
  StoreLittle<uint32_t>(header.data() + 12, Crc32c(header.data(), header.size()));
  ASSERT_OK(files->WriteAt(file.value(), kRegionHeaderBytes, header.data(), header.size()));
  files->Close(file.value());
  EXPECT_EQ(Show(*files, path).status.code(), ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace ankole::replica

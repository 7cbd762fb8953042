#include "replica/sum_file.h"

#include <cstring>
#include <memory>

#include "base/crc32c.h"
#include "io/reactor_testing.h"
#include "replica/replica_testing.h"

namespace ankole::replica {
namespace {

constexpr uint64_t kRegions = 5;
constexpr char kName[] = "volume-head-000.img.crc";

std::unique_ptr<SumPage> Page(uint32_t first) {
  auto page = std::make_unique<SumPage>();
  std::memset(page.get(), 0, sizeof(*page));
  for (size_t i = 0; i < kRegionBlocks; ++i) page->sums[i] = first + static_cast<uint32_t>(i);
  return page;
}

struct Place {
  std::unique_ptr<io::FileSystem> posix = io::MakePosixFileSystem();
  CutFiles files{*posix};
  std::string directory = test::TemporaryDirectory();
  std::string path = directory + "/" + kName;
};

void Flip(io::FileSystem& files, const std::string& path, uint64_t at) {
  Result<io::File> file = files.Open(path, {.write = true});
  ASSERT_OK(file);
  uint8_t byte = 0;
  ASSERT_OK(files.ReadAt(file.value(), at, &byte, 1));
  byte ^= 0x10;
  ASSERT_OK(files.WriteAt(file.value(), at, &byte, 1));
  files.Close(file.value());
}

TEST(sum_file, values_that_mean_something_else_are_moved_away) {
  EXPECT(StoredSum(0) != kSumNone && StoredSum(0) != kSumBad);
  EXPECT(StoredSum(1) != kSumNone && StoredSum(1) != kSumBad);
  EXPECT_EQ(StoredSum(2), 2U);
  EXPECT_EQ(StoredSum(0xffffffff), 0xffffffff);
}

TEST(sum_file, keeps_pages_and_is_sparse) {
  Place place;
  Result<SumFile> made = SumFile::Create(place.files, place.directory, kName, 1 << 20);
  ASSERT_OK(made);
  EXPECT(place.files.Info(place.path).value().allocated_bytes <= 4 * kSumSlotBytes);
  auto page = Page(7);
  ASSERT_OK(made.value().WritePage(place.files, 1'000'000, page.get()));
  ASSERT_OK(made.value().Sync(place.files));
  made.value().Close(place.files);
  EXPECT(place.files.Info(place.path).value().allocated_bytes <= 24 * kKiB);

  Result<SumFile> opened = SumFile::Open(place.files, place.path, 1 << 20);
  ASSERT_OK(opened);
  auto found = Page(0);
  SumPageState state = SumPageState::kDamaged;
  ASSERT_OK(opened.value().ReadPage(place.files, 1'000'000, found.get(), &state));
  EXPECT(state == SumPageState::kWhole);
  EXPECT(std::memcmp(found.get(), page.get(), sizeof(*page)) == 0);
  ASSERT_OK(opened.value().ReadPage(place.files, 999'999, found.get(), &state));
  EXPECT(state == SumPageState::kEmpty);
  opened.value().Close(place.files);
}

TEST(sum_file, a_page_without_sums_makes_no_page) {
  Place place;
  Result<SumFile> made = SumFile::Create(place.files, place.directory, kName, kRegions);
  ASSERT_OK(made);
  auto page = Page(0);
  std::memset(page->sums, 0, sizeof(page->sums));
  ASSERT_OK(made.value().WritePage(place.files, 3, page.get()));
  SumPageState state = SumPageState::kDamaged;
  ASSERT_OK(made.value().ReadPage(place.files, 3, page.get(), &state));
  EXPECT(state == SumPageState::kEmpty);
  made.value().Close(place.files);
}

TEST(sum_file, a_flipped_bit_anywhere_in_a_page_is_noticed) {
  Place place;
  Result<SumFile> made = SumFile::Create(place.files, place.directory, kName, kRegions);
  ASSERT_OK(made);
  auto page = Page(9);
  ASSERT_OK(made.value().WritePage(place.files, 2, page.get()));
  SumPageState state = SumPageState::kWhole;
  for (size_t at = 0; at < 4112; at += 37) {
    Flip(place.files, place.path, SumPageOffset(2) + at);
    ASSERT_OK(made.value().ReadPage(place.files, 2, page.get(), &state));
    EXPECT(state == SumPageState::kDamaged);
    Flip(place.files, place.path, SumPageOffset(2) + at);
  }
  ASSERT_OK(made.value().ReadPage(place.files, 2, page.get(), &state));
  EXPECT(state == SumPageState::kWhole);
  // One that lies at another's place is not believed either.
  Result<io::File> file = place.files.Open(place.path, {.write = true});
  ASSERT_OK(file);
  ASSERT_OK(place.files.WriteAt(file.value(), SumPageOffset(1), page.get(), sizeof(*page)));
  place.files.Close(file.value());
  ASSERT_OK(made.value().ReadPage(place.files, 1, page.get(), &state));
  EXPECT(state == SumPageState::kDamaged);
  made.value().Close(place.files);
}

// A page that was torn is damaged, and whatever is cut the header and the other pages stand.
TEST(sum_file, a_page_that_is_cut_is_old_new_or_damaged) {
  Place place;
  for (const size_t torn : {0, 512, 2048, 4096}) {
    bool done = false;
    for (int cut = 1; !done; ++cut) {
      Result<SumFile> made = SumFile::Create(place.files, place.directory, kName, kRegions);
      ASSERT_OK(made);
      auto old = Page(100);
      auto neighbour = Page(200);
      ASSERT_OK(made.value().WritePage(place.files, 1, old.get()));
      ASSERT_OK(made.value().WritePage(place.files, 2, neighbour.get()));
      ASSERT_OK(made.value().Sync(place.files));
      auto next = Page(300);
      place.files.torn_bytes = torn;
      place.files.Reset(cut);
      done = made.value().WritePage(place.files, 1, next.get()).ok() &&
             made.value().Sync(place.files).ok();
      place.files.Reset(0);
      made.value().Close(place.files);
      Result<SumFile> opened = SumFile::Open(place.files, place.path, kRegions);
      ASSERT_OK(opened);
      SumPageState state = SumPageState::kEmpty;
      auto found = Page(0);
      ASSERT_OK(opened.value().ReadPage(place.files, 1, found.get(), &state));
      if (state == SumPageState::kWhole) {
        EXPECT(found->sums[0] == 300 || (found->sums[0] == 100 && !done));
        EXPECT_EQ(found->sums[1023], found->sums[0] + 1023);
      } else {
        EXPECT(state == SumPageState::kDamaged && !done && torn > 0);
      }
      ASSERT_OK(opened.value().ReadPage(place.files, 2, found.get(), &state));
      EXPECT(state == SumPageState::kWhole && found->sums[5] == 205);
      opened.value().Close(place.files);
    }
  }
}

TEST(sum_file, a_full_disk_leaves_a_hole_as_it_is) {
  Place place;
  Result<SumFile> made = SumFile::Create(place.files, place.directory, kName, kRegions);
  ASSERT_OK(made);
  auto page = Page(9);
  place.files.torn_bytes = 1000;
  place.files.Reset(1);  // the allocation
  EXPECT(!made.value().WritePage(place.files, 1, page.get()).ok());
  place.files.Reset(0);
  SumPageState state = SumPageState::kWhole;
  ASSERT_OK(made.value().ReadPage(place.files, 1, page.get(), &state));
  EXPECT(state == SumPageState::kEmpty);
  made.value().Close(place.files);
}

TEST(sum_file, a_failed_sync_is_final) {
  Place place;
  Result<SumFile> made = SumFile::Create(place.files, place.directory, kName, kRegions);
  ASSERT_OK(made);
  auto page = Page(9);
  ASSERT_OK(made.value().WritePage(place.files, 1, page.get()));
  place.files.fail_sync = true;
  EXPECT(!made.value().Sync(place.files).ok());
  place.files.fail_sync = false;
  EXPECT(!made.value().Sync(place.files).ok());
  EXPECT(!made.value().WritePage(place.files, 2, page.get()).ok());
  made.value().Close(place.files);
}

// What an earlier process wrote without a sync is synced by the first Sync of this one, though the
// page that is to be written is there already.
TEST(sum_file, what_was_found_is_synced_once) {
  Place place;
  Result<SumFile> made = SumFile::Create(place.files, place.directory, kName, kRegions);
  ASSERT_OK(made);
  auto page = Page(9);
  ASSERT_OK(made.value().WritePage(place.files, 1, page.get()));
  made.value().Close(place.files);
  Result<SumFile> opened = SumFile::Open(place.files, place.path, kRegions);
  ASSERT_OK(opened);
  ASSERT_OK(opened.value().WritePage(place.files, 1, page.get()));
  place.files.syncs = 0;
  ASSERT_OK(opened.value().Sync(place.files));
  EXPECT_EQ(place.files.syncs.load(), 1);
  ASSERT_OK(opened.value().Sync(place.files));
  EXPECT_EQ(place.files.syncs.load(), 1);
  opened.value().Close(place.files);
}

TEST(sum_file, bad_regions_survive_a_cut_at_each_io) {
  Place place;
  for (const size_t torn : {0, 512, 3000}) {
    bool done = false;
    for (int cut = 1; !done; ++cut) {
      Result<SumFile> made = SumFile::Create(place.files, place.directory, kName, kRegions);
      ASSERT_OK(made);
      ASSERT_OK(made.value().NoteBad(place.files, 3, true));
      place.files.torn_bytes = torn;
      place.files.Reset(cut);
      done = made.value().NoteBad(place.files, 1, true).ok() &&
             made.value().NoteBad(place.files, 3, false).ok();
      place.files.Reset(0);
      made.value().Close(place.files);
      Result<SumFile> opened = SumFile::Open(place.files, place.path, kRegions);
      ASSERT_OK(opened);
      EXPECT(!done || (opened.value().bad_regions() == std::vector<uint64_t>{1}));
      EXPECT(opened.value().MayHoldBad(3) || opened.value().MayHoldBad(1));
      opened.value().Close(place.files);
    }
  }
}

TEST(sum_file, more_bad_regions_than_fit_are_refused) {
  Place place;
  Result<SumFile> made = SumFile::Create(place.files, place.directory, kName, 1000);
  ASSERT_OK(made);
  for (uint64_t i = 0; i < kBadRegionsMax; ++i) {
    ASSERT_OK(made.value().NoteBad(place.files, 999 - i, true));
  }
  EXPECT(made.value().NoteBad(place.files, 0, true).code() == ErrorCode::kIoError);
  ASSERT_OK(made.value().NoteBad(place.files, 999, true));  // is noted already
  made.value().Close(place.files);
  Result<SumFile> opened = SumFile::Open(place.files, place.path, 1000);
  ASSERT_OK(opened);
  EXPECT_EQ(opened.value().bad_regions().size(), kBadRegionsMax);
  opened.value().Close(place.files);
}

TEST(sum_file, a_header_that_is_not_whole_or_of_another_version_is_refused) {
  Place place;
  Result<SumFile> made = SumFile::Create(place.files, place.directory, kName, kRegions);
  ASSERT_OK(made);
  made.value().Close(place.files);
  Flip(place.files, place.path, 40);
  EXPECT(SumFile::Open(place.files, place.path, kRegions).status().code() == ErrorCode::kCorrupt);
  Flip(place.files, place.path, 40);
  Result<SumFile> opened = SumFile::Open(place.files, place.path, kRegions);
  ASSERT_OK(opened);
  opened.value().Close(place.files);

  std::byte slot[kSumSlotBytes];
  SumHeader header;
  header.bad_regions = {4, 2};  // not ascending
  header.Encode(slot);
  EXPECT(SumHeader::Decode(slot, kRegions).status().code() == ErrorCode::kCorrupt);
  header.bad_regions = {2, 5};  // beyond the end
  header.Encode(slot);
  EXPECT(SumHeader::Decode(slot, kRegions).status().code() == ErrorCode::kCorrupt);
  header.bad_regions = {2, 4};
  header.sequence = 77;
  header.Encode(slot);
  Result<SumHeader> good = SumHeader::Decode(slot, kRegions);
  ASSERT_OK(good);
  EXPECT_EQ(good.value().sequence, 77U);
  EXPECT_EQ(good.value().bad_regions.size(), 2U);
  slot[8] = std::byte{2};  // the version, with a checksum that matches
  std::memset(slot + 12, 0, 4);
  const uint32_t crc = Crc32c(slot, sizeof(slot));
  std::memcpy(slot + 12, &crc, 4);
  EXPECT(SumHeader::Decode(slot, kRegions).status().code() == ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace ankole::replica

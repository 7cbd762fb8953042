#include "sim/disk.h"

#include <cerrno>
#include <cstring>
#include <set>
#include <string>

#include "base/test.h"

// A disk that is too kind hides bugs: what may vanish must vanish for some seed, what must stay
// must stay for all.
namespace ankole::sim {
namespace {

constexpr int kSeeds = 300;

std::string ReadAll(const Disk& disk, const Inode& file) {
  std::string text(file.size_bytes, '\0');
  (void)disk.Read(file, 0, text.data(), text.size());
  return text;
}

InodePtr MakeFile(Disk* disk, const std::string& path) {
  InodePtr file;
  CHECK(disk->Create(path, true, &file) == 0);
  return file;
}

std::string Blocks(size_t count, char fill) { return std::string(count * kBlockBytes, fill); }

TEST(sim_disk, AHoleThatIsWrittenToIsWholeOrUnwrittenOrAHoleAfterwards) {
  std::set<std::string> seen;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Disk disk(seed);
    const InodePtr file = MakeFile(&disk, "/f");
    disk.SyncDirectory(disk.root().get());
    ASSERT(disk.Truncate(file.get(), kBlockBytes) == 0);
    disk.SyncEnds(file.get(), disk.SyncBegins(file.get()));
    const std::string data = Blocks(1, 'b');
    ASSERT(disk.Write(file.get(), 0, data.data(), data.size()) == 0);
    disk.LosePower();
    const std::string left = ReadAll(disk, *file);
    std::vector<io::FileExtent> extents;
    disk.Extents(*file, 0, kBlockBytes, 1, &extents);
    const std::string kind = extents.empty() ? "hole" : extents[0].unwritten ? "unwritten" : "data";
    EXPECT(left == (kind == "data" ? data : Blocks(1, '\0')));
    seen.insert(kind);
  }
  EXPECT_EQ(seen.size(), 3U);
}

TEST(sim_disk, UnsyncedDataVanishesInSubsetsBySectorAndSyncedDataStays) {
  bool none = false;
  bool all = false;
  bool within_a_block = false;
  bool across_blocks = false;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Disk disk(seed);
    const InodePtr file = MakeFile(&disk, "/f");
    disk.SyncDirectory(disk.root().get());
    const std::string old = Blocks(4, 'a');
    ASSERT(disk.Write(file.get(), 0, old.data(), old.size()) == 0);
    disk.SyncEnds(file.get(), disk.SyncBegins(file.get()));
    const std::string newer = Blocks(4, 'b');
    ASSERT(disk.Write(file.get(), 0, newer.data(), newer.size()) == 0);
    EXPECT(ReadAll(disk, *file) == newer);
    disk.LosePower();
    const std::string left = ReadAll(disk, *file);
    ASSERT(left.size() == old.size());
    std::set<std::string> blocks;
    for (size_t block = 0; block < 4; ++block) {
      std::set<char> kinds;
      for (size_t at = 0; at < kBlockBytes; at += kSectorBytes) {
        const char kind = left[block * kBlockBytes + at];
        kinds.insert(kind);
        // A sector is written whole or not at all.
        const std::string sector = left.substr(block * kBlockBytes + at, kSectorBytes);
        EXPECT(sector == std::string(kSectorBytes, kind) && (kind == 'a' || kind == 'b'));
      }
      within_a_block |= kinds.size() == 2;
      blocks.insert(left.substr(block * kBlockBytes, kBlockBytes));
    }
    across_blocks |= blocks.size() > 1;
    none |= left == old;
    all |= left == newer;
  }
  EXPECT(none);
  EXPECT(all);
  EXPECT(within_a_block);
  EXPECT(across_blocks);
}

TEST(sim_disk, ASyncCoversWhatWasWrittenBeforeItBeganAndNoMoreForCertain) {
  bool vanished = false;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Disk disk(seed);
    const InodePtr file = MakeFile(&disk, "/f");
    disk.SyncDirectory(disk.root().get());
    const std::string first = Blocks(8, 'a');
    ASSERT(disk.Write(file.get(), 0, first.data(), first.size()) == 0);
    const std::vector<uint64_t> pages = disk.SyncBegins(file.get());
    const std::string meanwhile = Blocks(8, 'b');
    ASSERT(disk.Write(file.get(), 0, meanwhile.data(), meanwhile.size()) == 0);
    disk.SyncEnds(file.get(), pages);
    disk.LosePower();
    const std::string left = ReadAll(disk, *file);
    EXPECT(left.find_first_not_of("ab") == std::string::npos);
    vanished |= left.find('a') != std::string::npos;
  }
  EXPECT(vanished);
}

TEST(sim_disk, AFailedSyncDropsPagesAndTheNextOneSaysNothing) {
  bool lost = false;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Disk disk(seed);
    const InodePtr file = MakeFile(&disk, "/f");
    disk.SyncDirectory(disk.root().get());
    const std::string data = Blocks(4, 'a');
    ASSERT(disk.Write(file.get(), 0, data.data(), data.size()) == 0);
    disk.SyncFails(file.get());
    EXPECT(!Disk::NeedsSync(*file));
    // In memory nothing is wrong yet.
    EXPECT(ReadAll(disk, *file) == data);
    disk.SyncEnds(file.get(), disk.SyncBegins(file.get()));
    disk.LosePower();
    lost |= ReadAll(disk, *file) != data;
  }
  EXPECT(lost);
}

TEST(sim_disk, NamesVanishInTheirOrderUntilTheDirectoryIsSynced) {
  bool old_name = false;
  bool new_name = false;
  bool gone = false;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Disk disk(seed);
    (void)MakeFile(&disk, "/kept");
    disk.SyncDirectory(disk.root().get());
    (void)MakeFile(&disk, "/first");
    (void)MakeFile(&disk, "/second");
    ASSERT(disk.Rename("/second", "/third") == 0);
    disk.LosePower();
    InodePtr found;
    EXPECT_EQ(disk.Lookup("/kept", &found), 0);
    const bool first = disk.Lookup("/first", &found) == 0;
    const bool second = disk.Lookup("/second", &found) == 0;
    const bool third = disk.Lookup("/third", &found) == 0;
    EXPECT(!(second && third));
    EXPECT(first || (!second && !third));
    old_name |= second;
    new_name |= third;
    gone |= !first;
  }
  EXPECT(old_name);
  EXPECT(new_name);
  EXPECT(gone);
}

TEST(sim_disk, AFileThatWasNamedDurablyButNotSyncedMayBeEmpty) {
  bool empty = false;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Disk disk(seed);
    const InodePtr file = MakeFile(&disk, "/f");
    ASSERT(disk.Write(file.get(), 0, "text", 4) == 0);
    disk.SyncDirectory(disk.root().get());
    disk.LosePower();
    empty |= file->size_bytes == 0;
  }
  EXPECT(empty);
}

TEST(sim_disk, HolesTakeNoSpaceAndAFullDiskRefuses) {
  Disk disk(1);
  const InodePtr file = MakeFile(&disk, "/f");
  ASSERT(disk.Truncate(file.get(), 16 * kBlockBytes) == 0);
  EXPECT_EQ(disk.used_pages(), 0U);
  const std::string data = Blocks(4, 'x');
  ASSERT(disk.Write(file.get(), 2 * kBlockBytes, data.data(), data.size()) == 0);
  ASSERT(disk.Allocate(file.get(), 8 * kBlockBytes, kBlockBytes) == 0);
  EXPECT_EQ(disk.used_pages(), 5U);
  disk.PunchHole(file.get(), 3 * kBlockBytes + 10, 2 * kBlockBytes);
  EXPECT_EQ(disk.used_pages(), 4U);
  std::vector<io::FileExtent> extents;
  disk.Extents(*file, 0, UINT64_MAX, 10, &extents);
  ASSERT(extents.size() == 3);
  EXPECT_EQ(extents[0].offset_bytes, 2 * kBlockBytes);
  EXPECT_EQ(extents[0].length_bytes, 2 * kBlockBytes);
  EXPECT_EQ(extents[1].offset_bytes, 5 * kBlockBytes);
  EXPECT(!extents[1].unwritten && extents[2].unwritten);
  const std::string all = ReadAll(disk, *file);
  EXPECT(all[3 * kBlockBytes + 9] == 'x' && all[3 * kBlockBytes + 10] == '\0');
  EXPECT(all[5 * kBlockBytes + 9] == '\0' && all[5 * kBlockBytes + 10] == 'x');
  disk.capacity_pages = disk.used_pages();
  EXPECT(disk.Write(file.get(), 12 * kBlockBytes, "y", 1) == -ENOSPC);
  EXPECT(disk.Write(file.get(), 2 * kBlockBytes, "y", 1) == 0);
}

TEST(sim_disk, AFileOfTwoNamesTakesUpItsSpaceOnceAndUntilBothAreGone) {
  Disk disk(1);
  const InodePtr file = MakeFile(&disk, "/f");
  const std::string data = Blocks(2, 'a');
  ASSERT(disk.Write(file.get(), 0, data.data(), data.size()) == 0);
  ASSERT(disk.MakeDirectory("/d") == 0);
  EXPECT(disk.Link("/d", "/e") == -EPERM && disk.Link("/g", "/e") == -ENOENT);
  ASSERT(disk.Link("/f", "/d/f") == 0);
  EXPECT(disk.Link("/f", "/d/f") == -EEXIST);
  EXPECT_EQ(file->links, 2U);
  InodePtr other;
  ASSERT(disk.Lookup("/d/f", &other) == 0);
  EXPECT(other == file);
  EXPECT_EQ(disk.used_pages(), 2U);
  ASSERT(disk.Remove("/f", false) == 0);
  EXPECT_EQ(disk.used_pages(), 2U);
  ASSERT(disk.Remove("/d/f", false) == 0);
  EXPECT_EQ(disk.used_pages(), 0U);
}

TEST(sim_disk, EachNameOfAFileVanishesByItself) {
  std::set<std::string> seen;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Disk disk(seed);
    ASSERT(disk.MakeDirectory("/d") == 0);
    disk.SyncDirectory(disk.root().get());
    const InodePtr file = MakeFile(&disk, "/f");
    const std::string data = Blocks(1, 'a');
    ASSERT(disk.Write(file.get(), 0, data.data(), data.size()) == 0);
    disk.SyncEnds(file.get(), disk.SyncBegins(file.get()));
    ASSERT(disk.Link("/f", "/d/f") == 0);
    disk.LosePower();
    InodePtr found;
    std::string names;
    for (const char* path : {"/f", "/d/f"}) {
      if (disk.Lookup(path, &found) < 0) continue;
      EXPECT(found == file && ReadAll(disk, *found) == data);
      names += path;
    }
    EXPECT_EQ(disk.used_pages(), names.empty() ? 0U : 1U);
    EXPECT(names.empty() || file->links == (names == "/f/d/f" ? 2U : 1U));
    seen.insert(names);
  }
  EXPECT_EQ(seen.size(), 4U);
}

TEST(sim_disk, ABitFlipsOnTheDiskAlone) {
  Disk disk(1);
  const InodePtr file = MakeFile(&disk, "/f");
  disk.SyncDirectory(disk.root().get());
  const std::string data = Blocks(1, 'a');
  ASSERT(disk.Write(file.get(), 0, data.data(), data.size()) == 0);
  EXPECT(!disk.FlipBit(file.get(), 0, 5));  // the disk has nothing of it yet
  disk.SyncEnds(file.get(), disk.SyncBegins(file.get()));
  EXPECT(disk.FlipBit(file.get(), 0, 5));
  EXPECT(ReadAll(disk, *file) != data);
}

}  // namespace
}  // namespace ankole::sim

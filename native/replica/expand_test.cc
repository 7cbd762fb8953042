#include <algorithm>

#include "replica/regions_testing.h"
#include "replica/snapshots_testing.h"

// A volume that becomes larger, while it is at work and cut at each I/O.
namespace ankole::replica::testing {
namespace {

constexpr wire::ReplicaId kAway = 0xb2;
constexpr char kSnap[] = "volume-snap-a.img";
constexpr char kTop[] = "volume-head-001.img";

// A size within a block, within a region, and at the end of one.
constexpr uint64_t kSizes[] = {8 * kMiB + 512, 6 * kMiB, 8 * kMiB};
// Its maps and masks take more blocks of their files.
constexpr uint64_t kLarger = 16 * kGiB + 12 * kMiB;
constexpr uint32_t kLargerRegions = 4099;

std::string ReadRange(Driver& driver, uint64_t at, uint64_t bytes) {
  std::string got(bytes, '?');
  for (uint64_t done = 0; done < bytes; done += kDataBytesMax) {
    const uint64_t part = std::min<uint64_t>(kDataBytesMax, bytes - done);
    EXPECT_EQ(driver.Do(OperationKind::kRead, at + done, part, got.data() + done), ErrorCode::kOk);
  }
  return got;
}

std::string Zeros(uint64_t bytes) { return std::string(bytes, '\0'); }

// A layer under the head, as a snapshot leaves it.
void PushLayer(io::FileSystem& files, const std::string& directory) {
  ASSERT_OK(files.Rename(directory + kHead, directory + "/" + kSnap));
  ASSERT_OK(files.Remove(directory + kHead + ".meta"));
  ASSERT_OK(files.Rename(directory + kSumsName, directory + "/" + kTop + ".crc"));
  VolumeMeta volume =
      VolumeMeta::Parse(io::ReadWholeFile(files, directory + "/volume.meta", kMiB).Take()).Take();
  ASSERT_OK(CreateLayerFile(files, directory + "/" + kTop, volume.size_bytes));
  LayerMeta meta;
  meta.name = kSnap;
  WriteText(files, directory + "/" + kSnap + ".meta", meta.Write());
  meta.name = kTop;
  meta.parent = kSnap;
  WriteText(files, directory + "/" + kTop + ".meta", meta.Write());
  volume.head = kTop;
  volume.parent = kSnap;
  WriteText(files, directory + "/volume.meta", volume.Write());
}

// A replica with data at the end of its volume, and what it holds.
struct Small {
  Small(io::FileSystem& files, uint64_t size_bytes, bool layers)
      : directory(test::TemporaryDirectory() + "/r"), model(size_bytes, '\0') {
    Identity identity = TestIdentity();
    ASSERT_OK(Replica::Create(files, directory, identity, size_bytes));
    if (layers) {
      const io::File file = files.Open(directory + kHead, {.write = true}).Take();
      const std::string below = Text(64 * kKiB, 'l');
      ASSERT_OK(files.WriteAt(file, size_bytes - below.size(), below.data(), below.size()));
      files.Close(file);
      model.replace(size_bytes - below.size(), below.size(), below);
      PushLayer(files, directory);
    }
  }

  ErrorCode Write(Driver& driver, uint64_t at, uint64_t bytes, char seed) {
    std::string data = Text(bytes, seed);
    model.replace(at, bytes, data);
    return driver.Do(OperationKind::kWrite, at, bytes, data.data());
  }

  std::string directory;
  std::string model;
};

TEST(replica_expand, grows_under_what_it_does_and_reads_zeros_there) {
  io::OnEachBackend([](io::Reactor& reactor) {
    for (const bool layers : {false, true}) {
      for (const uint64_t size : kSizes) {
        if (test::kStride > 1 && size != kSizes[0]) continue;
        CutFiles files(reactor.files());
        Small small(files, size, layers);
        auto driver = std::make_unique<Driver>(files, reactor, small.directory);
        ASSERT_OK(driver->status());
        WriteRecord(*driver);
        EXPECT_EQ(small.Write(*driver, size - 1536, 1536, 'a'), ErrorCode::kOk);
        if (layers) {
          EXPECT_EQ(driver->Do(OperationKind::kUnmap, size - 64 * kKiB, 8 * kKiB), ErrorCode::kOk);
          small.model.replace(size - 64 * kKiB, 8 * kKiB, Zeros(8 * kKiB));
        }
        // Beside it, of each kind, at the end of what there is so far.
        std::string data = Text(512, 'b');
        std::string got(8192, '?');
        driver->Add(OperationKind::kWrite, size - 512, 512, data.data());
        driver->Add(OperationKind::kRead, size - 16384, 8192, got.data());
        driver->Add(OperationKind::kExpand).size_bytes = kLarger;
        driver->Add(OperationKind::kFlush);
        driver->Add(OperationKind::kUnmap, 0, 4 * kMiB);
        driver->Add(OperationKind::kExpand).size_bytes = size;  // it has that
        EXPECT_EQ(driver->Run(), ErrorCode::kOk);
        small.model.replace(size - 512, 512, data);
        EXPECT_EQ(driver->replica().size_bytes(), kLarger);
        EXPECT_EQ(driver->replica().regions().regions(), kLargerRegions);
        EXPECT(got == small.model.substr(size - 16384, 8192));
        EXPECT(ReadRange(*driver, 0, size) == small.model);
        EXPECT(ReadRange(*driver, size, kMiB) == Zeros(kMiB));
        EXPECT(ReadRange(*driver, kLarger - kMiB, kMiB) == Zeros(kMiB));
        // Across the old end, at the new one, zeroed and freed there.
        small.model.resize(size + 8 * kMiB);
        EXPECT_EQ(small.Write(*driver, size - 2048, 4096, 'c'), ErrorCode::kOk);
        EXPECT_EQ(small.Write(*driver, size + 5 * kMiB, 65536, 'd'), ErrorCode::kOk);
        EXPECT_EQ(driver->Do(OperationKind::kUnmap, size + 5 * kMiB, 8192), ErrorCode::kOk);
        small.model.replace(size + 5 * kMiB, 8192, Zeros(8192));
        std::string end = Text(4096, 'e');
        EXPECT_EQ(driver->Do(OperationKind::kWrite, kLarger - 4096, 4096, end.data()),
                  ErrorCode::kOk);
        EXPECT_EQ(driver->Do(OperationKind::kRead, kLarger, 4096, end.data()),
                  ErrorCode::kOutOfRange);
        EXPECT(driver->replica().regions().dirty(kLargerRegions - 1));
        for (int round = 0; round < 2; ++round) {
          EXPECT(ReadRange(*driver, 0, small.model.size()) == small.model);
          EXPECT(ReadRange(*driver, kLarger - 4096, 4096) == end);
          EXPECT_EQ(driver->replica().sum_counters().errors, 0U);
          EXPECT_EQ(driver->replica().sum_counters().pages_damaged, 0U);
          EXPECT_EQ(Clean(*driver, 0, kLargerRegions), ErrorCode::kOk);
          ASSERT_OK(driver->Close(true));
          driver = std::make_unique<Driver>(files, reactor, small.directory);
          ASSERT_OK(driver->status());
          EXPECT_EQ(driver->replica().size_bytes(), kLarger);
          EXPECT_EQ(driver->replica().regions().dirty_regions(), 0U);
        }
        // Checksums guard the block that the old end was in, and those behind it.
        const std::string head = small.directory + "/" + (layers ? kTop : kHead + 1);
        driver->Drop();
        FlipBit(files, head, size - 2048);
        FlipBit(files, head, kLarger - 1);
        Driver damaged(files, reactor, small.directory);
        EXPECT_EQ(damaged.Do(OperationKind::kRead, size - 2048, 512, got.data()),
                  ErrorCode::kCorrupt);
        EXPECT_EQ(damaged.Do(OperationKind::kRead, kLarger - 4096, 4096, got.data()),
                  ErrorCode::kCorrupt);
      }
    }
  });
}

// The checksum of the last block is of another range than before: it is neither wrong nor lost, and
// what did not match it still does not.
TEST(replica_expand, a_size_within_a_block_keeps_that_block_verified) {
  io::OnEachBackend([](io::Reactor& reactor) {
    for (const bool damaged : {false, true}) {
      CutFiles files(reactor.files());
      const uint64_t size = 8 * kMiB + 512;
      Small small(files, size, false);
      Driver driver(files, reactor, small.directory);
      WriteRecord(driver);
      EXPECT_EQ(small.Write(driver, size - 1024, 1024, 'a'), ErrorCode::kOk);
      EXPECT_EQ(Clean(driver, 0, 3), ErrorCode::kOk);
      if (damaged) FlipBit(files, small.directory + kHead, size - 100);
      EXPECT_EQ(Expand(driver, 9 * kMiB), ErrorCode::kOk);
      std::string got(512, '?');
      EXPECT_EQ(driver.Do(OperationKind::kRead, size - 512, 512, got.data()),
                damaged ? ErrorCode::kCorrupt : ErrorCode::kOk);
      if (damaged) continue;
      FlipBit(files, small.directory + kHead, size - 100);
      EXPECT_EQ(driver.Do(OperationKind::kRead, size - 512, 512, got.data()), ErrorCode::kCorrupt);
    }
  });
}

TEST(replica_expand, a_cut_leaves_a_replica_of_either_size_and_loses_nothing) {
  // Of files alone.
  auto made = io::MakeReactor(
      {.backend = io::Backend::kEpoll, .probe_directory = test::TemporaryDirectory()});
  ASSERT_OK(made);
  io::Reactor& reactor = *made.value();
  {
    for (const bool layers : {false, true}) {
      for (const uint64_t size : kSizes) {
        if (layers != (size == kSizes[1])) continue;
        bool done = false;
        int cut = 1;
        for (; !done; cut += test::kStride) {
          CutFiles files(reactor.files());
          files.torn_bytes = cut % 2 == 0 ? 200 : 0;
          Small small(files, size, layers);
          const uint32_t last = static_cast<uint32_t>((size - 1) / kRegionBytes);
          auto maps = std::make_unique<Maps>(files, reactor, small.directory);
          ASSERT_OK(maps->status());
          const wire::Record both = ARecord(1, {kMe, kAway});
          const wire::Record alone = ARecord(2, {kMe});
          EXPECT_EQ(maps->Propose(both, both), ErrorCode::kOk);
          EXPECT_EQ(small.Write(*maps, 0, 8192, 'a'), ErrorCode::kOk);
          EXPECT_EQ(small.Write(*maps, size - 2048, 2048, 'b'), ErrorCode::kOk);
          if (layers) {
            EXPECT_EQ(maps->Do(OperationKind::kUnmap, size - 64 * kKiB, 8 * kKiB), ErrorCode::kOk);
            small.model.replace(size - 64 * kKiB, 8 * kKiB, Zeros(8 * kKiB));
          }
          EXPECT_EQ(maps->Propose(alone, alone), ErrorCode::kOk);  // begins a map of what it misses
          // The region of the old end stays dirty, the first one does not; it has a bad block.
          EXPECT_EQ(maps->Clean(0, alone), ErrorCode::kOk);
          EXPECT_EQ(maps->Do(OperationKind::kBad, 16384, 4096), ErrorCode::kOk);
          const std::set<uint32_t> dirty = maps->Dirty();
          const std::set<uint32_t> missing = maps->Missing(kAway);
          // The last write touches two regions where the size ends within a block.
          const auto before_last = static_cast<uint32_t>((size - 2048) / kRegionBytes);
          EXPECT(dirty == std::set<uint32_t>({before_last, last}));
          EXPECT(missing == std::set<uint32_t>({0, before_last, last}));

          files.Reset(cut);
          done = Expand(*maps, kLarger) == ErrorCode::kOk;
          EXPECT(done != files.reached());
          EXPECT_EQ(maps->replica().size_bytes(), done ? kLarger : size);
          if (cut % 3 == 0 && !done && !maps->replica().sync_failed()) {
            // It goes on in the same process, and is as it was.
            files.Reset(0);
            EXPECT(ReadRange(*maps, size - 64 * kKiB, 64 * kKiB) ==
                   small.model.substr(size - 64 * kKiB));
          }
          maps->Drop();
          files.Reset(0);
          maps = std::make_unique<Maps>(files, reactor, small.directory);
          ASSERT_OK(maps->status());
          const uint64_t found = maps->replica().size_bytes();
          EXPECT(found == kLarger || (found == size && !done));
          const auto check = [&] {
            EXPECT(maps->replica().region_damage().empty() && maps->replica().notes().empty());
            // What was cleaned may be there still.
            const std::set<uint32_t> shown = maps->Dirty();
            EXPECT(std::includes(shown.begin(), shown.end(), dirty.begin(), dirty.end()));
            EXPECT(shown.size() <= dirty.size() + 1);
            EXPECT(maps->Missing(kAway) == missing);
            EXPECT(ReadRange(*maps, 0, 16384) == small.model.substr(0, 16384));
            EXPECT(ReadRange(*maps, 20480, size - 20480) == small.model.substr(20480));
            std::string got(4096, '?');
            EXPECT_EQ(maps->Do(OperationKind::kRead, 16384, 4096, got.data()), ErrorCode::kCorrupt);
          };
          check();
          // On to another size than the one that was tried, and to that.
          for (const uint64_t next : {size + 24 * kMiB, kLarger}) {
            EXPECT_EQ(Expand(*maps, next), ErrorCode::kOk);
            EXPECT_EQ(maps->replica().size_bytes(), std::max(found, next));
            check();
            EXPECT(ReadRange(*maps, size, 20 * kMiB) == Zeros(20 * kMiB));
          }
          EXPECT_EQ(maps->Write(kLargerRegions - 1), ErrorCode::kOk);
          EXPECT(maps->Has(kLargerRegions - 1));
          EXPECT_EQ(maps->Clean(0, alone, {}, kLargerRegions), ErrorCode::kOk);
          EXPECT_EQ(maps->replica().sum_counters().pages_damaged, 0U);
          ASSERT_OK(maps->Close(true));
        }
        EXPECT(cut > 15);
      }
    }
  }
}

TEST(replica_expand, a_full_disk_refuses_and_changes_nothing) {
  io::OnEachBackend([](io::Reactor& reactor) {
    CutFiles files(reactor.files());
    Small small(files, 6 * kMiB, false);
    Driver driver(files, reactor, small.directory);
    WriteRecord(driver);
    EXPECT_EQ(small.Write(driver, 6 * kMiB - 4096, 4096, 'a'), ErrorCode::kOk);
    const std::string maps = small.directory + "/regions";
    const uint64_t bytes = files.Info(maps).value().size_bytes;
    files.full = true;
    // The first finds no space for its checksums, the second for its maps.
    for (const uint64_t wanted : {4 * kGiB, kLarger}) {
      EXPECT_EQ(Expand(driver, wanted), ErrorCode::kNoSpace);
    }
    EXPECT_EQ(driver.replica().size_bytes(), 6 * kMiB);
    EXPECT_EQ(files.Info(maps).value().size_bytes, bytes);
    EXPECT_EQ(files.Info(small.directory + kHead).value().size_bytes, 6 * kMiB);
    EXPECT(!driver.replica().sync_failed());
    EXPECT(ReadRange(driver, 0, 6 * kMiB) == small.model);
    EXPECT_EQ(small.Write(driver, 6 * kMiB - 8192, 4096, 'b'), ErrorCode::kOk);
    files.full = false;
    EXPECT_EQ(Expand(driver, kLarger), ErrorCode::kOk);
    EXPECT_EQ(driver.replica().size_bytes(), kLarger);
    EXPECT(ReadRange(driver, 0, 6 * kMiB) == small.model);
  });
}

// Rule 1: what clients wrote may be lost with what could not be synced.
TEST(replica_expand, a_sync_that_fails_counts_as_a_failed_flush) {
  io::OnEachBackend([](io::Reactor& reactor) {
    CutFiles files(reactor.files());
    Small small(files, 6 * kMiB, false);
    {
      Driver driver(files, reactor, small.directory);
      WriteRecord(driver);
      EXPECT_EQ(small.Write(driver, 6 * kMiB - 4096, 4096, 'a'), ErrorCode::kOk);
      files.fail_whole_sync = true;
      EXPECT_EQ(Expand(driver, 8 * kMiB), ErrorCode::kIoError);
      files.fail_whole_sync = false;
      EXPECT_EQ(driver.replica().size_bytes(), 6 * kMiB);
      EXPECT(driver.replica().sync_failed());
      EXPECT_EQ(driver.Do(OperationKind::kFlush), ErrorCode::kSuspect);
      EXPECT_EQ(Expand(driver, 8 * kMiB), ErrorCode::kSuspect);
      driver.Drop();
    }
    Driver driver(files, reactor, small.directory);
    ASSERT_OK(driver.status());
    EXPECT(driver.replica().suspect());
  });
}

// Checksums are computed of regions as a whole after a crash: of the last one as far as it reaches.
TEST(replica_expand, what_lies_behind_the_end_has_no_checksum_until_it_is_there) {
  io::OnEachBackend([](io::Reactor& reactor) {
    for (const bool layers : {false, true}) {
      CutFiles files(reactor.files());
      Small small(files, 6 * kMiB, layers);
      {
        Driver driver(files, reactor, small.directory);
        WriteRecord(driver);
        EXPECT_EQ(small.Write(driver, 6 * kMiB - 8192, 8192, 'a'), ErrorCode::kOk);
        driver.Drop();
      }
      Driver driver(files, reactor, small.directory);
      EXPECT_EQ(driver.Do(OperationKind::kFlush), ErrorCode::kOk);
      EXPECT_EQ(CleanNow(driver, 0, 2), ErrorCode::kOk);
      EXPECT_EQ(Expand(driver, 12 * kMiB), ErrorCode::kOk);
      EXPECT(ReadRange(driver, 0, 12 * kMiB) == small.model + Zeros(6 * kMiB));
    }
  });
}

TEST(replica_expand, bounds_and_alignment_are_those_of_creation) {
  io::OnEachBackend([](io::Reactor& reactor) {
    CutFiles files(reactor.files());
    Small small(files, 8 * kMiB, false);
    Driver driver(files, reactor, small.directory);
    for (const uint64_t size : {uint64_t{0}, 8 * kMiB + 100, kVolumeBytesMax + 512}) {
      EXPECT_EQ(Expand(driver, size), ErrorCode::kInvalidArgument);
    }
    EXPECT_EQ(Expand(driver, 4 * kMiB), ErrorCode::kOk);  // it has more
    EXPECT_EQ(driver.replica().size_bytes(), 8 * kMiB);
    EXPECT_EQ(Expand(driver, 8 * kMiB + 512), ErrorCode::kOk);
    EXPECT_EQ(driver.replica().size_bytes(), 8 * kMiB + 512);
    const std::string direct = test::TemporaryDirectory() + "/r";
    ASSERT_OK(Replica::Create(files, direct, TestIdentity(CacheMode::kDirect), 8 * kMiB));
    Driver other(files, reactor, direct);
    ASSERT_OK(other.status());
    EXPECT_EQ(Expand(other, 9 * kMiB + 512), ErrorCode::kInvalidArgument);
    EXPECT_EQ(Expand(other, 9 * kMiB), ErrorCode::kOk);
    std::string data = Text(8192, 'x');
    EXPECT_EQ(other.Do(OperationKind::kWrite, 8 * kMiB - 4096, 8192, data.data()), ErrorCode::kOk);
    EXPECT(ReadRange(other, 8 * kMiB - 4096, 8192) == data);
  });
}

}  // namespace
}  // namespace ankole::replica::testing
